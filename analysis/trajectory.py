"""How a search went: every correct candidate, the best so far, and what there is to beat."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis import style
from analysis.frames import leading, means, records, verdicts

LOG_RANGE = 6.0
"""The score axis is logarithmic when the drawn scores span more than this factor."""

_REACH = 2.5
"""A peer further than this factor outside the candidates' range is named at the edge instead."""


def draw(frame: pd.DataFrame, entries: pd.DataFrame, path: Path, *, title: str = "") -> None:
    """Draw `frame` (`frames.evaluations`) and `entries` (`frames.entries`) to a PNG at `path`.

    Score is the geometric mean of speedup over the anchor on the epoch's workloads; a dashed line
    is the geometric mean of the best seed or a peer over the report's workloads. Scores compare
    within an epoch, so the best-so-far line starts anew at each epoch from the elites measured
    again.
    """
    frame = frame.reset_index(drop=True).assign(number=range(1, len(frame) + 1))
    frame = frame.assign(verdict=verdicts(frame))
    failing = frame[frame["verdict"] != "PASSED"]
    kinds = list(failing["verdict"].value_counts().index)
    with style.figure(path, 4.6 + 0.17 * len(kinds)) as made:
        ratios = [4.2, 0.19 * len(kinds)] if kinds else [1]
        axes = made.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)
        top = axes[0][0]
        _epochs(frame, [row[0] for row in axes])
        _candidates(top, frame)
        _best(top, frame)
        _limits(top, frame)
        _peers(top, means(leading(entries)))
        if kinds:
            _failures(axes[1][0], failing, kinds)
        last = axes[-1][0]
        last.set_xlim(0, len(frame) + 1)
        last.xaxis.set_major_locator(MaxNLocator(integer=True))
        last.set_xlabel("evaluation")
        style.title(made, title or "trajectory", _note(frame, peers=len(entries) > 0))


def best_so_far(frame: pd.DataFrame) -> pd.Series:
    """Best score of the epoch up to each row; NaN before the first correct candidate.

    Elites measured again at an epoch's start count from the epoch's first row: they are one set,
    not a sequence.
    """
    parts: list[pd.Series] = []
    for _, epoch in frame.groupby("epoch", sort=False):
        again = epoch.loc[epoch["kind"] == "remeasure", "score"].max()
        best = epoch["score"].cummax().ffill()
        parts.append(best if math.isnan(again) else best.fillna(again).clip(lower=again))
    return pd.concat(parts) if parts else pd.Series(dtype=float)


def _epochs(frame: pd.DataFrame, axes: list[Any]) -> None:
    starts = frame.groupby("epoch", sort=False)["number"].min().iloc[1:]
    for axis in axes:
        for number in starts:
            axis.axvline(number - 0.5, color=style.FAINT, linewidth=1, zorder=0)


def _candidates(axis: Any, frame: pd.DataFrame) -> None:
    passed = frame[frame["score"].notna()]
    search = passed[passed["kind"] != "seed"]
    axis.scatter(
        search["number"], search["score"], s=11, color=style.DOT, alpha=0.65, linewidths=0, zorder=2
    )
    seeds = passed[passed["kind"] == "seed"]
    axis.scatter(
        seeds["number"], seeds["score"], s=26, marker="D", facecolors="white",
        edgecolors=style.SEED, linewidths=1.1, zorder=4,
    )  # fmt: skip


def _best(axis: Any, frame: pd.DataFrame) -> None:
    best = best_so_far(frame)
    for _, epoch in frame.groupby("epoch", sort=False):
        axis.step(
            epoch["number"], best.loc[epoch.index], where="post", color=style.CHAMPION,
            linewidth=2.2, zorder=3, solid_capstyle="butt",
        )  # fmt: skip
    if len(best) and not math.isnan(best.iloc[-1]):
        axis.annotate(
            f"{best.iloc[-1]:.2f}x", (len(frame), best.iloc[-1]), xytext=(-2, 5),
            textcoords="offset points", ha="right", color=style.CHAMPION, fontweight="bold",
        )  # fmt: skip


def _limits(axis: Any, frame: pd.DataFrame) -> None:
    scores = frame["score"].dropna()
    low, high = (scores.min(), scores.max()) if len(scores) else (0.5, 2.0)
    if high / low > LOG_RANGE:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.25, high * 1.35)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        pad = 0.08 * (high - low) + 0.02 * high
        axis.set_ylim(max(0.0, low - pad), high + 1.6 * pad)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.set_ylabel("score (speedup over the anchor)")
    axis.grid(axis="y")


def _peers(axis: Any, scores: pd.DataFrame) -> None:
    """Dashed lines with their names at the right; out of reach ones are named at the edge."""
    others = scores[scores["role"] != "champion"].reset_index(drop=True)
    looks = style.looks(zip(scores["name"], scores["role"], strict=True))
    _stretch(axis, list(others["score"]))
    low, high = axis.get_ylim()
    scale = math.log if axis.get_yscale() == "log" else float
    height = [(scale(s) - scale(low)) / (scale(high) - scale(low)) for s in others["score"]]
    places = style.spread(height, 0.048, 0.015, 0.985)
    for row, at, place in zip(records(others), height, places, strict=True):
        color = looks[row["name"]].color
        if 0 <= at <= 1:
            axis.axhline(row["score"], color=color, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        arrow = "↑ " if at > 1 else "↓ " if at < 0 else ""
        bound = " (bound)" if row["role"] == "bound" else ""
        axis.text(
            1.01, place, f"{arrow}{row['name']}{bound} {row['score']:.2f}x", color=color,
            transform=axis.transAxes, va="center", fontsize=8.5,
        )  # fmt: skip


def _stretch(axis: Any, scores: list[float]) -> None:
    """Widen the score axis to the entries within reach."""
    low, high = axis.get_ylim()
    near = [s for s in scores if max(low, 1e-9) / _REACH <= s <= high * _REACH]
    if near and min(near) < low * 1.02:
        low = min(near) / 1.08
    if near and max(near) > high / 1.02:
        high = max(near) * 1.06
    axis.set_ylim(low, high)


def _failures(axis: Any, failing: pd.DataFrame, kinds: list[str]) -> None:
    for row, kind in enumerate(kinds):
        numbers = failing.loc[failing["verdict"] == kind, "number"]
        axis.plot(numbers, [row] * len(numbers), "|", color=style.INK, markersize=6, alpha=0.8)
    counts = failing["verdict"].value_counts()
    labels = [f"{kind.lower().replace('_', ' ')}  {counts[kind]}" for kind in kinds]
    axis.set_yticks(range(len(kinds)), labels, fontsize=8)
    axis.set_ylim(len(kinds) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


def _note(frame: pd.DataFrame, *, peers: bool) -> str:
    passed = int((frame["status"] == "PASSED").sum())
    dashed = "; dashed: geometric mean on the report grid" if peers else ""
    again = "" if frame["epoch"].nunique() < 2 else "; vertical: new workloads drawn"
    return (
        f"{len(frame)} evaluations, {passed} correct. Dots: measured in full; diamonds: seeds; "
        f"line: best so far{dashed}{again}."
    )
