"""Closing tables of a run: champion against seed and peers, niches, evaluations by status.

A speedup of the champion over another entry is the ratio of their speedups over the anchor that
was timed beside each, so that clock drift between the two measurements cancels. Intervals are 95%,
half widths of log speedup added in quadrature.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.table import Table

from analysis import archive_map
from analysis.frames import Run, leading, records, verdicts

GEOMEAN = "geometric mean"


def champion_over(entries: pd.DataFrame) -> pd.DataFrame:
    """Champion against every other passed entry, per workload, then one `GEOMEAN` row per entry.

    Columns: name, role, workload, label, champion_us, latency_us (microseconds), speedup,
    speedup_low, speedup_high, half_width (of log speedup), weight, flops, bytes; speedup is the
    champion's over the entry. Empty without a passed champion. Workloads that only one of the two
    has are left out.
    """
    passed = entries[entries["speedup"].notna()]
    champion = passed[passed["role"] == "champion"]
    others = passed[passed["role"] != "champion"]
    pairs = others.merge(champion, on="workload", suffixes=("", "_c"), how="inner", sort=False)
    rows = [_ratio(pair) for pair in records(pairs)]
    for name in dict.fromkeys(pairs["name"]):
        rows.append(_mean([row for row in rows if row["name"] == name]))
    return pd.DataFrame(rows, columns=_RATIO_COLUMNS)


_RATIO_COLUMNS = [
    "name", "role", "workload", "label", "champion_us", "latency_us", "speedup", "speedup_low",
    "speedup_high", "half_width", "weight", "flops", "bytes",
]  # fmt: skip


def _ratio(pair: dict[str, Any]) -> dict[str, Any]:
    half = math.hypot(
        math.log(pair["speedup_high"] / pair["speedup_low"]) / 2,
        math.log(pair["speedup_high_c"] / pair["speedup_low_c"]) / 2,
    )
    row = _with_interval(pair["speedup_c"] / pair["speedup"], half)
    kept = ("name", "role", "workload", "label", "latency_us", "weight", "flops", "bytes")
    return {**{key: pair[key] for key in kept}, "champion_us": pair["latency_us_c"], **row}


def _with_interval(speedup: float, half_width: float) -> dict[str, float]:
    return {
        "speedup": speedup,
        "speedup_low": speedup * math.exp(-half_width),
        "speedup_high": speedup * math.exp(half_width),
        "half_width": half_width,
    }


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Weighted geometric means over an entry's workloads (their errors taken as independent)."""
    total = sum(row["weight"] for row in rows)

    def mean(key: str) -> float:
        return math.exp(sum(row["weight"] * math.log(row[key]) for row in rows) / total)

    half = math.sqrt(sum((row["weight"] * row["half_width"]) ** 2 for row in rows)) / total
    return {
        **{key: rows[0][key] for key in ("name", "role")},
        "workload": GEOMEAN, "label": GEOMEAN, "weight": total,
        "latency_us": mean("latency_us"), "champion_us": mean("champion_us"),
        "flops": math.nan, "bytes": math.nan, **_with_interval(mean("speedup"), half),
    }  # fmt: skip


def best_peer(over: pd.DataFrame) -> str | None:
    """The peer (not a bound) that the champion beats least in geometric mean."""
    means = over[(over["label"] == GEOMEAN) & (over["role"] == "peer")]
    return None if means.empty else str(means.sort_values("speedup")["name"].iloc[0])


def latencies(entries: pd.DataFrame) -> pd.DataFrame:
    """Text table of latency in µs: a row per workload; champion, seeds, peers and bounds."""
    over = champion_over(entries)
    over = over[over["label"] != GEOMEAN]
    table = []
    for _, group in over.groupby("workload", sort=False):
        cells = records(group)
        row = {"workload": cells[0]["label"], "champion": _us(cells[0]["champion_us"])}
        row |= {_heading(c["name"], c["role"]): _us(c["latency_us"]) for c in cells}
        table.append(row)
    return pd.DataFrame(table, columns=["workload", "champion", *_headings(entries)]).fillna("")


def speedups(entries: pd.DataFrame) -> pd.DataFrame:
    """Text table of the champion's speedup over each entry with its 95% interval as ±%; the last
    row holds geometric means."""
    over = champion_over(entries)
    table = []
    for _, group in over.groupby("workload", sort=False):
        cells = records(group)
        row = {"workload": cells[0]["label"]}
        row |= {_heading(c["name"], c["role"]): _percent(c) for c in cells}
        table.append(row)
    return pd.DataFrame(table, columns=["workload", *_headings(entries)]).fillna("")


def _headings(entries: pd.DataFrame) -> list[str]:
    return [_heading(name, role) for name, role in _ordered(champion_over(entries))]


def _ordered(over: pd.DataFrame) -> list[tuple[str, str]]:
    """(name, role) of the entries: seeds, then peers and bounds, each from the hardest to beat."""
    means = over[over["label"] == GEOMEAN].sort_values("speedup", kind="stable")
    rank = {"seed": 0, "peer": 1, "bound": 2}
    pairs = list(zip(means["name"], means["role"], strict=True))
    return sorted(pairs, key=lambda pair: rank.get(pair[1], 1))


def _heading(name: str, role: str) -> str:
    return f"{name} (bound)" if role == "bound" else name


def _percent(cell: dict[str, Any]) -> str:
    return f"{cell['speedup']:.2f}x ±{100 * math.expm1(cell['half_width']):.1f}%"


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def failed(entries: pd.DataFrame) -> pd.DataFrame:
    """Entries without results: name, role, status, reason."""
    rows = entries[entries["speedup"].isna()]
    return rows[["name", "role", "status", "reason"]].reset_index(drop=True)


def outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Evaluations by status (rows, most frequent first) and emitter (columns), with totals."""
    if frame.empty:
        return pd.DataFrame(columns=["status", "total"])
    kind = frame["emitter"].where(frame["kind"] != "remeasure", "remeasured")
    table = pd.crosstab(verdicts(frame).rename("status"), kind)
    table["total"] = table.sum(axis=1)
    table = table.sort_values("total", ascending=False, kind="stable")
    table.loc["total"] = table.sum(axis=0)
    return table.rename_axis(index="status", columns=None).reset_index()


def niches(frame: pd.DataFrame) -> pd.DataFrame:
    """Niches filled, best first: niche, score, count."""
    found = archive_map.cells(frame)[["niche", "score", "count"]]
    return found.sort_values("score", ascending=False, ignore_index=True)


def summary(run: Run) -> dict[str, Any]:
    """The whole report as JSON-ready values; speedups are the champion's over each entry."""
    over = champion_over(run.entries)
    means = over[over["label"] == GEOMEAN]
    counts = run.evaluations
    return {
        "definition": run.definition,
        "device": run.device,
        "champion": {"program": run.champion, "verified": run.verified},
        "best_peer": best_peer(over),
        "geometric_mean": _json(means.drop(columns=_NOT_PUBLISHED)),
        "workloads": _json(over[over["label"] != GEOMEAN].drop(columns=["half_width"])),
        "failed_entries": _json(failed(run.entries)),
        "niches": _json(niches(counts)),
        "evaluations": {
            "total": len(counts),
            "by_status": _counts(counts["status"]),
            "by_rung": _counts(counts.loc[counts["status"] == "PASSED", "rung"]),
            "by_emitter": _counts(counts["emitter"]),
        },
    }


_NOT_PUBLISHED = [
    "workload", "label", "champion_us", "latency_us", "half_width", "weight", "flops", "bytes",
]  # fmt: skip


def _json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values; NaN becomes null."""
    return list(json.loads(frame.to_json(orient="records", double_precision=10)))


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(k): int(v) for k, v in column.value_counts().items()}


def tables(run: Run, *, top: int = 12) -> list[tuple[str, pd.DataFrame]]:
    """(heading, text table) of the closing report; of seeds the best one is shown,
    of niches the best `top`."""
    found, shown_entries = niches(run.evaluations), leading(run.entries)
    shown = found.head(top).assign(score=[f"{s:.2f}x" for s in found["score"].head(top)])
    more = f", best {top}" if len(found) > top else ""
    verified = "verified on unseen workloads" if run.verified else "not verified"
    parts = [
        (f"Latency in µs (champion {verified})", latencies(shown_entries)),
        ("Champion's speedup over each, 95% interval", speedups(shown_entries)),
        ("Entries without results", failed(run.entries)),
        ("Evaluations by status and emitter", outcomes(run.evaluations)),
        (f"Niches filled: {len(found)}{more}", shown),
    ]
    return [(heading, table) for heading, table in parts if len(table)]


def rich_tables(run: Run) -> Group:
    """The closing report for `rich.console.Console.print`."""
    return Group(*(_rich(heading, table) for heading, table in tables(run)))


def _rich(heading: str, frame: pd.DataFrame) -> Table:
    table = Table(title=heading, title_justify="left", title_style="bold", header_style="bold")
    table.min_width = len(heading)  # a narrow table would break its title
    for i, column in enumerate(frame.columns):
        table.add_column(str(column), justify="right" if _numeric(frame.iloc[:, i]) else "left")
    for row in frame.itertuples(index=False):
        total = str(row[0]) in (GEOMEAN, "total")
        table.add_row(*(str(cell) for cell in row), style="bold" if total else None)
    return table


def _numeric(column: pd.Series) -> bool:
    return all(not str(cell) or str(cell)[0].isdigit() for cell in column)


def text(run: Run, *, width: int = 120) -> str:
    """The closing report as plain text of at most `width` columns."""
    written = io.StringIO()
    Console(width=width, color_system=None, file=written).print(rich_tables(run))
    return written.getvalue()


def markdown_table(frame: pd.DataFrame) -> str:
    """A Markdown table; bars in cells are escaped."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = ["---:" if _numeric(frame.iloc[:, i]) else "---" for i in range(frame.shape[1])]
    return "\n".join([line(list(frame.columns)), line(rule), *map(line, frame.values.tolist())])


def markdown(run: Run) -> str:
    """The closing report as a Markdown page."""
    parts = [f"# {run.title}"]
    parts += [f"## {heading}\n\n{markdown_table(table)}" for heading, table in tables(run)]
    return "\n\n".join(parts) + "\n"


def write(run: Run, folder: Path) -> list[Path]:
    """Write evaluations.csv, comparison.csv, report.md and report.json; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    at = run.evaluations["at"].map("{:.3f}".format)  # six digits of a time would be hours
    files = {
        "evaluations.csv": run.evaluations.assign(at=at).to_csv(index=False, float_format="%.6g"),
        "comparison.csv": champion_over(run.entries).to_csv(index=False, float_format="%.6g"),
        "report.md": markdown(run),
        "report.json": json.dumps(summary(run), indent=1) + "\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]
