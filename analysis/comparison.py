"""Two searches in one figure: the best so far of each, and who raised it.

Scores of different epochs do not compare: other workloads are easier or harder to win on. The best
seed is measured in every epoch, so heights are scores over that of the best seed in the same epoch.
Where both runs drew the same workloads, the seed's score is the mean of both measurements of it,
and the ratio of two heights of one epoch is that of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import style
from analysis.frames import means, records

COLORS = (style.CHAMPION, "#6E6E6E")
"""Of the run, and of what it is compared with."""
AUTHORED = "#E69F00"
"""Fill of what a model, an agent, a person or an import wrote."""


@dataclass(frozen=True)
class Course:
    """A run's name, its evaluations, the names of its seeds by program id, its closing table.

    The first seed is the anchor. `table` is `analysis.gains.course` with the column `maker`,
    `entries` is `frames.entries`.
    """

    name: str
    table: pd.DataFrame
    seeds: Mapping[str, str]
    entries: pd.DataFrame

    @property
    def anchor(self) -> str:
        """Program id of the anchor; '' without seeds."""
        return next(iter(self.seeds), "")


@dataclass(frozen=True)
class _Mark:
    """How improvements by one kind of maker are drawn."""

    marker: str
    size: float
    fill: str


_OWN = {"tuner": _Mark("o", 34, "white"), "crossover": _Mark("^", 40, "white")}
_AUTHORS = _Mark("*", 130, AUTHORED)
_DESCENDED = AUTHORED


def draw(
    courses: Sequence[Course], path: Path, *, title: str, note: str = "", pooled: bool = False
) -> None:
    """Draw both courses to a PNG at `path`; `pooled`: they drew the same workloads.

    A line breaks where an epoch begins: there elites are measured again on other workloads. Marks
    are programs that raised the best so far of their epoch; dots are all others measured in full.
    A diamond at the right is the champion over the same seed on the report grid, as the run closed:
    lines hold the luck of the best of many measurements, diamonds do not.
    """
    seed = common_seed(courses)
    tables = over_seed([course.table for course in courses], seed, pooled)
    shown = [replace(c, table=table) for c, table in zip(courses, tables, strict=True)]
    with style.figure(path, 5.2) as made:
        axis = made.subplots()
        axis.axhline(1.0, color=style.SEED, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        for course, color in zip(shown, COLORS, strict=True):
            _dots(axis, course.table, color)
            _line(axis, course.table, color)
        for course, color in zip(shown, COLORS, strict=True):
            _marks(axis, course.table, color)
        closed = [closing(course, seed) for course in courses]
        _limits(axis, shown, closed)
        _diamonds(axis, closed)
        axis.set_ylabel(f"best so far, over the {'best seed' if seed else 'anchor'}")
        _names(axis, shown, closed, _reference(courses, seed))
        handles = _legend(shown, closed)
        made.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 7), fontsize=8,
            handletextpad=0.3, columnspacing=1.3,
        )  # fmt: skip
        style.title(made, title, note)


def common_seed(courses: Sequence[Course]) -> str:
    """The best seed of those that every epoch of both runs measured; '' when there is none.

    '' also when it is their anchor, over which scores are already, without the noise of a second
    measurement of it.
    """
    known: list[set[str]] = []
    for course in courses:
        table = course.table[course.table["score"].notna()]
        seeds = table[table["emitter"] == "seed"]
        epochs = table["epoch"].nunique()
        measured = seeds.groupby("program")["epoch"].nunique()
        known.append(set(measured[measured == epochs].index))
    both = set.intersection(*known) if known else set()
    scores = pd.concat([course.table for course in courses]).groupby("program")["score"].mean()
    best = max(sorted(both), key=lambda p: scores[p], default="")
    return "" if all(best == course.anchor for course in courses) else best


def over_seed(tables: Sequence[pd.DataFrame], seed: str, pooled: bool) -> list[pd.DataFrame]:
    """The tables with `score` and `best` over the seed's score of the epoch; '': as they are.

    `pooled`: where both measured the seed in an epoch, over the geometric mean of the two.
    """
    if not seed:
        return list(tables)
    logs = [
        table[table["program"] == seed].groupby("epoch")["score"].first().map(math.log)
        for table in tables
    ]
    if pooled:
        both = pd.concat(logs, axis=1).mean(axis=1)
        logs = [both.reindex(own.index) for own in logs]
    found = []
    for table, own in zip(tables, logs, strict=True):
        level = table["epoch"].map(own).map(math.exp)
        found.append(table.assign(score=table["score"] / level, best=table["best"] / level))
    return found


def _reference(courses: Sequence[Course], seed: str) -> str:
    """Name of what heights are over."""
    names = {course.seeds.get(seed or course.anchor, "") for course in courses}
    name = names.pop() if len(names) == 1 else ""
    return name.removeprefix("seed_") or "anchor"


def closing(course: Course, seed: str) -> float | None:
    """The champion over `seed` ('': over the anchor) on the report grid; None: not measured."""
    scores = means(course.entries)
    champion = scores.loc[scores["role"] == "champion", "score"]
    if champion.empty:
        return None
    if not seed:
        return float(champion.iloc[0])
    other = scores.loc[scores["name"] == course.seeds.get(seed), "score"]
    return None if other.empty else float(champion.iloc[0] / other.iloc[0])


def _dots(axis: Any, table: pd.DataFrame, color: str) -> None:
    searched = table[(table["kind"] == "search") & table["score"].notna()]
    own = searched["maker"].map(_is_own)
    axis.scatter(
        searched.loc[own, "number"], searched.loc[own, "score"], s=9, color=color, alpha=0.3,
        linewidths=0, zorder=2,
    )  # fmt: skip
    axis.scatter(
        searched.loc[~own, "number"], searched.loc[~own, "score"], s=30, marker="*",
        color=AUTHORED, alpha=0.8, linewidths=0, zorder=2.5,
    )  # fmt: skip


def _line(axis: Any, table: pd.DataFrame, color: str) -> None:
    """The best so far of every epoch, and thin dots from the end of one to the next."""
    ended: tuple[float, float] | None = None
    for start, end, epoch in _epochs(table):
        known = epoch[epoch["best"].notna()].drop_duplicates("number", keep="last")
        if known.empty:
            continue
        numbers = [max(start, known["number"].iloc[0]), *known["number"].iloc[1:], end]
        best = [*known["best"], known["best"].iloc[-1]]
        if ended is not None:
            axis.plot(
                [ended[0], numbers[0]], [ended[1], best[0]], color=color, linewidth=1.3,
                linestyle=(0, (1, 1.2)), zorder=3,
            )  # fmt: skip
        axis.step(
            numbers, best, where="post", color=color, linewidth=2.2, zorder=3.5,
            solid_capstyle="butt",
        )  # fmt: skip
        ended = (end, best[-1])


def _epochs(table: pd.DataFrame) -> list[tuple[float, float, pd.DataFrame]]:
    """(first number, last number, rows) of every epoch."""
    groups = [group for _, group in table.groupby("epoch", sort=False)]
    ends = [float(group["number"].max()) for group in groups]
    return list(zip([0.0, *ends[:-1]], ends, groups, strict=True))


def _marks(axis: Any, table: pd.DataFrame, color: str) -> None:
    for row in records(table[table["gain"] > 0]):
        mark = _mark(row["maker"])
        axis.scatter(
            [row["number"]], [row["score"]], s=mark.size, marker=mark.marker,
            facecolors=mark.fill, edgecolors=color, linewidths=1.3, zorder=5,
        )  # fmt: skip


def _mark(maker: str) -> _Mark:
    """Own emitters by shape, filled where they varied what an author wrote; authors: a star."""
    emitter = maker.partition(" ")[0]
    if emitter not in _OWN:
        return _AUTHORS
    own = _OWN[emitter]
    return own if maker == emitter else _Mark(own.marker, own.size, _DESCENDED)


def _is_own(maker: str) -> bool:
    return maker.partition(" ")[0] in _OWN


def _limits(axis: Any, courses: Sequence[Course], closed: Sequence[float | None]) -> None:
    """From a little below seed and lines to a little above: slower programs are left out."""
    tables = [c.table.drop_duplicates("number", keep="last") for c in courses]
    best = pd.concat([table["best"].dropna() for table in tables])
    drawn = [1.0, *best, *(value for value in closed if value is not None)]
    low, high = min(drawn), max(drawn)
    pad = 0.1 * (high - low) + 0.01 * high
    axis.set_ylim(max(0.0, low - 1.5 * pad), high + pad)
    last = max([1.0, *(float(c.table["number"].max()) for c in courses if len(c.table))])
    axis.set_xlim(-0.01 * last, last * 1.01)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.set_xlabel("evaluations that the budget counts")
    axis.grid(axis="y")


def _diamonds(axis: Any, closed: Sequence[float | None]) -> None:
    for value, color in zip(closed, COLORS, strict=True):
        if value is not None:
            axis.plot(
                [1.0], [value], "D", markersize=7, color=color, markeredgecolor="white",
                transform=axis.get_yaxis_transform(), clip_on=False, zorder=6,
            )  # fmt: skip


def _names(
    axis: Any, courses: Sequence[Course], closed: Sequence[float | None], reference: str
) -> None:
    """At the right: each run's name and last best, beside where its line ends; diamonds; seed."""
    ends = [
        (f"{course.name}\n{course.table['best'].dropna().iloc[-1]:.3f}x", color, "bold",
         course.table["best"].dropna().iloc[-1])
        for course, color in zip(courses, COLORS, strict=True)
        if course.table["best"].notna().any()
    ]  # fmt: skip
    ends += [
        (f"champion {value:.3f}x", color, "normal", value)
        for value, color in zip(closed, COLORS, strict=True)
        if value is not None
    ]
    ends.append((reference, style.SEED, "normal", 1.0))
    low, high = axis.get_ylim()
    height = [(best - low) / (high - low) for *_, best in ends]
    places = style.spread(height, 0.08, 0.03, 0.97)
    for (label, color, weight, _), place in zip(ends, places, strict=True):
        axis.text(
            1.015, place, label, color=color, transform=axis.transAxes, va="center", fontsize=9,
            fontweight=weight, linespacing=1.1,
        )  # fmt: skip


def _legend(courses: Sequence[Course], closed: Sequence[float | None]) -> list[Line2D]:
    """What is on the picture: only makers that raised something, in one order."""
    tables = [course.table for course in courses]
    raised = sorted({maker for table in tables for maker in table.loc[table["gain"] > 0, "maker"]})
    authors = ", ".join(maker for maker in raised if not _is_own(maker))
    found = []
    for label in [authors, *filter(_is_own, raised)] if authors else raised:
        mark = _mark(label)
        found.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker=mark.marker,
                markerfacecolor=mark.fill,
                markeredgecolor=style.INK,
                markersize=math.sqrt(mark.size),
                label=label,
            )
        )
    tried = any(not _is_own(m) for t in tables for m in t.loc[t["kind"] == "search", "maker"])
    if tried:
        found.append(_dot(AUTHORED, "*", "an author's, no gain"))
    found.append(_dot(style.DOT, "o", "others, no gain"))
    if any(value is not None for value in closed):
        found.append(_dot(style.INK, "D", "champion, report grid"))
    return found


def _dot(color: str, marker: str, label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=marker, markersize=5, color=color,
        markeredgewidth=0, label=label,
    )  # fmt: skip
