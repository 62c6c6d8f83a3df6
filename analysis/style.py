"""Look shared by all figures: size, fonts, colours that colour-blind people can tell apart.

Figures are made without pyplot, so that drawing needs no display and leaves no global state.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches; at 130 dots per inch a figure fills a README column."""
DPI = 130

CHAMPION = "#0072B2"
SEED = "#D55E00"
PEERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
BOUND = "#6E6E6E"
DOT = "#9A9A9A"
INK = "#262626"
FAINT = "#D9D9D9"
FLOOR = "#CBD5DE"

_RC = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7A7A7A",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Look:
    """How one entry is drawn."""

    color: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str
    width: float
    zorder: float


_PEER_LINES: tuple[tuple[str | tuple[int, tuple[float, ...]], str], ...] = (
    ((0, (5, 2)), "s"),
    ((0, (3, 1, 1, 1)), "^"),
    ((0, (1.5, 1.2)), "D"),
    ((0, (6, 1.5, 1, 1.5, 1, 1.5)), "v"),
    ("-", "P"),
)


def looks(entries: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """A look per entry name from (name, role) pairs: stable in their order, champion on top."""
    found: dict[str, Look] = {}
    peers = seeds = bounds = 0
    for name, role in entries:
        if name in found:
            continue
        if role == "champion":
            found[name] = Look(CHAMPION, "-", "o", 2.6, 5)
        elif role == "seed":
            found[name] = Look(SEED, ("-", (0, (4, 1.5)), ":")[seeds % 3], "o", 1.4, 4)
            seeds += 1
        elif role == "bound":
            found[name] = Look(BOUND, ((0, (1, 1)), (0, (3, 2)))[bounds % 2], "x", 1.2, 2)
            bounds += 1
        else:
            dash, marker = _PEER_LINES[peers % len(_PEER_LINES)]
            found[name] = Look(PEERS[peers % len(PEERS)], dash, marker, 1.4, 3)
            peers += 1
    return found


@contextmanager
def figure(path: Path, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure of `width` x `height` inches, written to `path` (PNG) when the block ends well."""
    with matplotlib.rc_context(_RC):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        made.draw_without_rendering()  # text beside axes is placed by a second layout
        path.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(path, dpi=DPI, metadata={"Software": None})


def title(made: Figure, text: str, note: str = "") -> None:
    """Title at the top left, with an optional plain note below it, wrapped to the figure."""
    wrapped = textwrap.fill(note, int(made.get_figwidth() * 14))
    made.suptitle(
        f"$\\bf{{{_bold(text)}}}$" + (f"\n{wrapped}" if wrapped else ""),
        x=0.01,
        ha="left",
        fontsize=9.5,
        linespacing=1.5,
    )


def _bold(text: str) -> str:
    for sign in "_#%&$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("-", "\u2010").replace(" ", "\\ ")


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Label positions `gap` or more apart within [low, high], crowded ones about their mean.

    Where [low, high] is too short for all of them they go below `low`.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # each: the wanted positions of labels that touch
    for i in order:
        groups.append([min(max(positions[i], low), high)])
        while len(groups) > 1 and _start(groups[-1], gap, low, high) < (
            _start(groups[-2], gap, low, high) + gap * len(groups[-2])
        ):
            last = groups.pop()
            groups[-1] += last
    placed = [_start(g, gap, low, high) + gap * k for g in groups for k in range(len(g))]
    result = [0.0] * len(positions)
    for k, i in enumerate(order):
        result[i] = placed[k]
    return result


def _start(group: Sequence[float], gap: float, low: float, high: float) -> float:
    """Lowest position of a group that is laid out `gap` apart about its mean, inside the limits."""
    span = gap * (len(group) - 1)
    return min(max(sum(group) / len(group) - span / 2, low), high - span)


def quantity(value: float) -> str:
    """A count on an axis, in binary thousands where exact: 1024 -> 1K, 131072 -> 128K."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if value >= size and value % size == 0:
            return f"{int(value // size)}{unit}"
    return f"{value:g}"
