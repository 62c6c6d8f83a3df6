"""Which tile strategies a run tried and how well the best of each did."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis import style
from analysis.frames import records

AXES = ("language", "strategy", "tile", "stages", "warps", "memory")
"""Parts of a niche's key, in order."""

_ROWS = ("language", "strategy", "memory", "warps")
_COLUMNS = ("tile", "stages")
_NUMBER_LAST = 1 << 30


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Niches filled: `AXES`, `score` (best of the niche's last epoch) and `count` of candidates.

    Scores compare within an epoch only, so a niche shows its best from the last epoch that has one.
    """
    passed = frame[(frame["status"] == "PASSED") & (frame["niche"] != "")]
    rows = []
    for niche, group in passed.groupby("niche", sort=True):
        scored = group[group["score"].notna()]
        if scored.empty:
            continue
        last = scored[scored["epoch"] == scored["epoch"].max()]
        rows.append(
            {**split(str(niche)), "niche": niche, "score": last["score"].max(),
             "count": group["program"].nunique()}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=[*AXES, "niche", "score", "count"])


def split(niche: str) -> dict[str, str]:
    """A niche's key by axis; parts that it does not have are `other`."""
    parts = niche.split("/")
    return {axis: parts[i] if i < len(parts) else "other" for i, axis in enumerate(AXES)}


def draw(frame: pd.DataFrame, path: Path, *, title: str = "") -> None:
    """Draw the niches of `frame` (`frames.evaluations`) to a PNG at `path`.

    Rows: language, strategy and memory path, then warps; columns: tile class, then stages. Colour
    is the best score, the number is how many candidates fell there; blank cells hold none.
    """
    found = cells(frame)
    rows, columns = _keys(found, _ROWS), _keys(found, _COLUMNS)
    with style.figure(path, 1.75 + 0.26 * max(len(rows), 2)) as made:
        axis = made.subplots()
        note = f"{len(found)} niches filled. Colour: best score; number: correct candidates"
        if len(found):
            note += f"; outlined: the best, {found['score'].max():.2f}x"
        style.title(made, title or "archive", note + ".")
        if found.empty:
            axis.set_axis_off()
            axis.text(0.5, 0.5, "no correct candidate yet", ha="center", transform=axis.transAxes)
            return
        _fill(made, axis, found, rows, columns)
        _label(axis, rows, columns)


def _keys(found: pd.DataFrame, axes: tuple[str, ...]) -> list[tuple[str, ...]]:
    keys = {tuple(row) for row in found[list(axes)].itertuples(index=False)}
    return sorted(keys, key=lambda key: tuple(_order(part) for part in key))


def _order(part: str) -> tuple[str, int, str]:
    """Sort `t64` before `t128`, and `other` last."""
    digits = "".join(c for c in part if c.isdigit())
    if part == "other":
        return ("~", _NUMBER_LAST, part)
    return (part.rstrip("+0123456789")[:1] if digits else part, int(digits or 0), part)


def _fill(
    made: Any,
    axis: Any,
    found: pd.DataFrame,
    rows: list[tuple[str, ...]],
    columns: list[tuple[str, ...]],
) -> None:
    grid = [[math.nan] * len(columns) for _ in rows]
    norm = _norm(found["score"])
    best = int(found["score"].argmax())
    for i, cell in enumerate(records(found)):
        y = rows.index(tuple(cell[a] for a in _ROWS))
        x = columns.index(tuple(cell[a] for a in _COLUMNS))
        grid[y][x] = cell["score"]
        dark = norm(cell["score"]) < 0.55
        axis.text(
            x, y, str(cell["count"]), ha="center", va="center", fontsize=7.5,
            color="white" if dark else style.INK,
            fontweight="bold" if i == best else "normal",
        )  # fmt: skip
        if i == best:
            axis.add_patch(_outline(x, y))
    image = axis.imshow(grid, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
    bar = made.colorbar(image, ax=axis, pad=0.01, fraction=0.04, aspect=25)
    if isinstance(norm, LogNorm):
        bar.locator = LogLocator(subs=(1, 2, 5))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_visible(False)


def _norm(scores: pd.Series) -> Any:
    low, high = float(scores.min()), float(scores.max())
    kind: Callable[..., Any] = LogNorm if high / low > 6 else Normalize
    return kind(low, high if high > low else low * 1.01)


def _outline(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=style.SEED, linewidth=2)


def _label(axis: Any, rows: list[tuple[str, ...]], columns: list[tuple[str, ...]]) -> None:
    """Inner axes as tick labels, outer axes once per group with a line between groups."""
    axis.set_xticks(range(len(columns)), [c[-1] for c in columns], fontsize=8)
    inner = ["–" if r[-1] == "other" else r[-1] for r in rows]
    axis.set_yticks(range(len(rows)), inner, fontsize=8)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    for first, last, key in _groups([c[:-1] for c in columns]):
        axis.text(
            (first + last) / 2, -0.62, " · ".join(key), ha="center", va="bottom", fontsize=8.5
        )
        if first:
            axis.axvline(first - 0.5, color=style.FAINT, linewidth=1)
    across = axis.get_yaxis_transform()
    for first, last, key in _groups([r[:-1] for r in rows]):
        axis.text(
            -0.045, (first + last) / 2, " · ".join(key), ha="right", va="center", fontsize=8.5,
            transform=across,
        )  # fmt: skip
        if first:
            axis.axhline(first - 0.5, color=style.FAINT, linewidth=1)
    axis.set_xlabel("stages, by tile class (above)")
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _groups(keys: list[tuple[str, ...]]) -> list[tuple[int, int, tuple[str, ...]]]:
    groups: list[tuple[int, int, tuple[str, ...]]] = []
    for i, key in enumerate(keys):
        if groups and groups[-1][2] == key:
            groups[-1] = (groups[-1][0], i, key)
        else:
            groups.append((i, i, key))
    return groups
