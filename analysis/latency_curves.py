"""Latency and share of the measured copy bandwidth over problem size: champion, seed and peers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from analysis import style
from analysis.frames import leading, records

_SIZES = ("seq_len", "num_tokens", "tokens", "kv_tokens", "num_kv_indices", "M", "m")
_PANELS = ("batch_size", "batch")
_NAMES = {
    "seq_len": "sequence length (tokens)",
    "num_tokens": "tokens",
    "tokens": "tokens",
    "kv_tokens": "KV tokens",
    "num_kv_indices": "KV pages in use",
}
MAX_PANELS = 4


@dataclass(frozen=True)
class Layout:
    """Which coordinate runs along x, and which one (if any) splits the figure into columns."""

    size: str
    panel: str | None
    panels: tuple[int | None, ...]


def draw(
    entries: pd.DataFrame, ceilings: Mapping[str, Any], path: Path, *, title: str = ""
) -> None:
    """Draw `entries` (`frames.entries`) to a PNG at `path`.

    `ceilings["copy_gbps"]` is the measured copy bandwidth in GB/s (the lower row is left out
    without it); `ceilings["tflops"]`, a number or a number per dtype (the title names it), adds the
    floor that arithmetic sets. One column per batch size where the workloads have one. ValueError
    when no entry passed.
    """
    passed = leading(entries[entries["latency_us"].notna()])
    if passed.empty:
        raise ValueError("no entry has latencies to draw")
    layout = arrange(passed)
    copy = float(ceilings.get("copy_gbps") or 0.0)
    curves = _curves(passed, layout, copy, _peak(ceilings, title))
    looks = style.looks(zip(passed["name"], passed["role"], strict=True))
    rows = 2 if copy else 1
    with style.figure(path, 1.2 + 2.55 * rows) as made:
        axes = made.subplots(rows, len(layout.panels), sharex="col", sharey="row", squeeze=False)
        for column, panel in enumerate(layout.panels):
            part = curves[curves["panel"] == panel] if panel is not None else curves
            _latency(axes[0][column], part, looks, narrow=_narrow(curves))
            if copy:
                _fraction(axes[1][column], part, looks, top=curves["fraction"].max())
            if panel is not None:
                axes[0][column].set_title(
                    f"{str(layout.panel).replace('_', ' ')} {panel}", loc="left"
                )
            _size_axis(axes[-1][column], part["size"], _NAMES.get(layout.size, layout.size))
        axes[0][0].set_ylabel("latency (µs)")
        if copy:
            axes[1][0].set_ylabel(f"share of copy bandwidth\n({copy:,.0f} GB/s measured)")
        _legend(made, curves, looks, floor=bool(curves["floor_us"].notna().any()))
        style.title(made, title or "latency")


def arrange(passed: pd.DataFrame) -> Layout:
    """The layout for these workloads: by the coordinates that they have and that vary."""
    known = [set(c) for c in passed["coordinates"]]
    shared = set.intersection(*known)
    values = {k: sorted({c[k] for c in passed["coordinates"]}) for k in shared}
    sizes = [k for k in _SIZES if k in shared]
    varying = [k for k in sizes if len(values[k]) > 1]
    others = [k for k in sorted(shared) if k not in _PANELS and len(values[k]) > 1]
    size = (varying or others or sizes or sorted(shared) or ["workload"])[0]
    panels = (k for k in _PANELS if k in shared and 1 < len(values[k]) <= MAX_PANELS)
    panel = next(panels, None)
    return Layout(size, panel, tuple(values[panel]) if panel else (None,))


def _curves(passed: pd.DataFrame, layout: Layout, copy: float, peak: float) -> pd.DataFrame:
    """One row per entry and workload: panel, size, latency_us, fraction, floor_us."""
    table = []
    for i, row in enumerate(records(passed)):
        memory_us = row["bytes"] / copy * 1e-3 if copy else math.nan
        math_us = row["flops"] / peak * 1e-6 if peak else math.nan
        floor = max((v for v in (memory_us, math_us) if not math.isnan(v)), default=math.nan)
        table.append(
            {
                "name": row["name"], "role": row["role"],
                "panel": row["coordinates"].get(layout.panel) if layout.panel else None,
                "size": row["coordinates"].get(layout.size, i + 1),
                "latency_us": row["latency_us"], "fraction": memory_us / row["latency_us"],
                "floor_us": floor, "floor_fraction": memory_us / floor if floor else math.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(table).sort_values("size", kind="stable")


def _peak(ceilings: Mapping[str, Any], title: str) -> float:
    """Measured TFLOP/s of the dtype in the title (the only dtype where it has none), or 0."""
    rates = ceilings.get("tflops") or {}
    if not isinstance(rates, Mapping):
        return float(rates)
    named = [dtype for dtype, short in _SHORT.items() if short in title]
    found = [float(rate) for dtype, rate in rates.items() if not named or dtype in named]
    return found[0] if len(found) == 1 else 0.0


_SHORT = {"bfloat16": "bf16", "float16": "_f16", "float32": "f32"}
"""How definitions' names write a dtype."""


def _latency(axis: Any, part: pd.DataFrame, looks: dict[str, style.Look], *, narrow: bool) -> None:
    _lines(axis, part, "latency_us", looks)
    _floor(axis, part, "floor_us")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid()


def _narrow(curves: pd.DataFrame) -> bool:
    """Whether all that the latency row shows spans less than a factor of 200."""
    shown = pd.concat([curves["latency_us"], curves["floor_us"]])
    return bool(shown.max() / shown.min() < 200)


def _fraction(axis: Any, part: pd.DataFrame, looks: dict[str, style.Look], *, top: float) -> None:
    _lines(axis, part, "fraction", looks)
    _floor(axis, part, "floor_fraction")
    axis.set_ylim(0, max(1.05, 1.05 * top))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
    axis.grid()


def _lines(axis: Any, part: pd.DataFrame, column: str, looks: dict[str, style.Look]) -> None:
    for name, group in part.groupby("name", sort=False):
        look = looks[str(name)]
        axis.plot(
            group["size"], group[column], color=look.color, linestyle=look.dash,
            linewidth=look.width, marker=look.marker, markersize=3.6, zorder=look.zorder,
        )  # fmt: skip


def _floor(axis: Any, part: pd.DataFrame, column: str) -> None:
    floor = part.drop_duplicates("size")
    axis.plot(floor["size"], floor[column], color=style.FLOOR, linewidth=4, zorder=1)


def _size_axis(axis: Any, sizes: pd.Series, name: str) -> None:
    values = sorted(set(sizes))
    axis.set_xlabel(name)
    axis.xaxis.set_major_locator(FixedLocator(values))
    if len(values) > 1 and values[0] > 0 and values[-1] / values[0] > 8:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(values[:: 1 + len(values) // 14]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: style.quantity(round(v))))


def _legend(made: Any, curves: pd.DataFrame, looks: dict[str, style.Look], *, floor: bool) -> None:
    roles = dict(zip(curves["name"], curves["role"], strict=True))
    order = ("champion", "seed", "peer", "bound")
    names = sorted(looks, key=lambda n: order.index(roles[n]) if roles[n] in order else 2)
    handles = [
        Line2D(
            [], [], color=looks[n].color, linestyle=looks[n].dash, linewidth=looks[n].width,
            marker=looks[n].marker, markersize=3.6,
            label=f"{n} (bound)" if roles[n] == "bound" else n,
        )
        for n in names
    ]  # fmt: skip
    if floor:
        label = "floor: copy bandwidth or peak arithmetic"
        handles.append(Line2D([], [], color=style.FLOOR, linewidth=4, label=label))
    made.legend(
        handles=handles, loc="outside lower left", ncols=4, fontsize=8.5, handlelength=3.2,
        columnspacing=1.6,
    )  # fmt: skip
