"""A run as two plain tables: its evaluations, and the results that its closing report compares.

`evaluations` has one row per recorded evaluation, `entries` one row per (entry, workload), where an
entry is the champion, a seed, a peer or a bound. Figures and tables are functions of these alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from evaluators.schema import Evaluation

_PAIR = re.compile(r"\b(?:([a-z]\w*)\s*=\s*|([BLM]))(\d+)([kKmM]?)\b")
_LETTER = {"B": "batch_size", "L": "seq_len", "M": "num_tokens"}
_UNIT = {"": 1, "k": 1024, "m": 1024 * 1024}

EVALUATION_COLUMNS = (
    "seq", "program", "epoch", "kind", "island", "emitter", "status", "rung", "niche",
    "archive", "score", "score_low", "score_high", "at",
    "build_s", "correctness_s", "latency_s", "contest_s", "wait_s",
    "shared_bytes", "registers", "spills", "num_warps", "num_stages", "reason",
)  # fmt: skip
ENTRY_COLUMNS = (
    "name", "role", "status", "workload", "label", "axes", "coordinates", "latency_us",
    "measured_us", "anchor_us", "speedup", "speedup_low", "speedup_high", "weight", "flops",
    "bytes", "reason",
)  # fmt: skip


class EvaluationRow(Protocol):
    """What a stored evaluation offers (`evolve.store.Row`)."""

    @property
    def seq(self) -> int: ...
    @property
    def program_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def evaluation(self) -> Evaluation: ...
    @property
    def at(self) -> float: ...
    @property
    def status_in_archive(self) -> str: ...
    @property
    def niche(self) -> str: ...
    @property
    def island(self) -> int: ...
    @property
    def emitter(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class Run:
    """A run's tables and facts.

    `evaluations` has the columns `EVALUATION_COLUMNS`, `entries` has `ENTRY_COLUMNS` (empty while a
    run has no closing report). `ceilings` holds the device's measured `copy_gbps` in GB/s and
    `tflops` per dtype. `champion` is the champion's program id, `verified` says whether it passed
    on workloads that the search never saw.
    """

    definition: str
    device: str
    evaluations: pd.DataFrame
    entries: pd.DataFrame
    ceilings: Mapping[str, Any]
    champion: str = ""
    verified: bool = False

    @property
    def title(self) -> str:
        """Definition and device, as figures are titled."""
        return f"{self.definition} on {self.device}"


def load(run_dir: Path) -> Run:
    """The run stored in `run_dir`. Errors are those of `evolve.store.Store.open`."""
    from evolve.store import Store

    store = Store.open(run_dir, readonly=True)
    try:
        return run_of(store.meta, store.evaluations(), store.report())
    finally:
        store.close()


def run_of(
    meta: Mapping[str, Any], rows: Iterable[EvaluationRow], report: Mapping[str, Any] | None
) -> Run:
    """A `Run` from a store's parts. KeyError when `meta` names no definition."""
    device = meta.get("device") or {}
    champion = (report or {}).get("champion") or {}
    return Run(
        definition=str(meta["definition"]),
        device=str(device.get("name", "unknown device")),
        evaluations=evaluations(rows),
        entries=entries((report or {}).get("entries", ())),
        ceilings=device.get("ceilings") or {},
        champion=str(champion.get("program_id", "")),
        verified=bool(champion.get("verified", False)),
    )


def evaluations(rows: Iterable[EvaluationRow]) -> pd.DataFrame:
    """One row per evaluation, by `seq`. Scores are NaN unless PASSED; `at` is a Unix time.

    A program that few workloads screened out (`rung` is `screen`) has no score either: one over
    some of the workloads does not compare with one over all.
    """
    table = [_evaluation_record(row) for row in rows]
    frame = pd.DataFrame(table, columns=list(EVALUATION_COLUMNS))
    return frame.sort_values("seq", ignore_index=True)


def _evaluation_record(row: EvaluationRow) -> dict[str, Any]:
    evaluation, build = row.evaluation, row.evaluation.build
    nan = float("nan")
    scored = evaluation.passed and evaluation.rung == "full"
    return {
        "seq": row.seq,
        "program": row.program_id,
        "epoch": row.epoch,
        "kind": row.kind,
        "island": row.island,
        "emitter": row.emitter,
        "status": evaluation.status.value,
        "rung": evaluation.rung if evaluation.passed else "",
        "niche": row.niche,
        "archive": row.status_in_archive,
        "score": evaluation.score if scored else nan,
        "score_low": evaluation.score_low if scored else nan,
        "score_high": evaluation.score_high if scored else nan,
        "at": row.at,
        **{f"{stage}_s": evaluation.seconds.get(stage, nan) for stage in _STAGES},
        "shared_bytes": build.shared_bytes if build else 0,
        "registers": build.registers if build else 0,
        "spills": build.spills if build else 0,
        "num_warps": build.num_warps if build else 0,
        "num_stages": build.num_stages if build else 0,
        "reason": "" if evaluation.passed else first_line(evaluation.log),
    }


_STAGES = ("build", "correctness", "latency", "contest", "wait")


def verdicts(frame: pd.DataFrame) -> pd.Series:
    """Status per evaluation, with `SCREENED` for one that passed and was not measured in full."""
    return frame["status"].where(frame["rung"] != "screen", "SCREENED")


def entries(report_entries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per entry and workload; an entry that failed has one row without a workload.

    `coordinates` holds what the workload's label or axes say in numbers (`batch_size`, `seq_len`,
    `num_tokens`, ...); `speedup` is over the anchor. `latency_us` (microseconds) is at a common
    clock: the median of the anchor's latencies beside all entries, divided by the entry's speedup.
    So latencies compare as the paired measurements do, whatever the device's clock did meanwhile;
    `measured_us` is the entry's own median.
    """
    table: list[dict[str, Any]] = []
    for entry in report_entries:
        head = {"name": entry["name"], "role": entry["role"], "status": entry["status"]}
        results = entry.get("results") or ()
        if not results:
            table.append({**head, "reason": first_line(entry.get("log", ""))})
        table += [{**head, **_result_record(result)} for result in results]
    frame = pd.DataFrame(table, columns=list(ENTRY_COLUMNS))
    common = frame.groupby("workload")["anchor_us"].transform("median")
    return frame.assign(latency_us=(common / frame["speedup"]).astype(float))


def _result_record(result: Mapping[str, Any]) -> dict[str, Any]:
    label = str(result.get("label") or result["workload"])
    axes = dict(result.get("axes") or {})
    return {
        "workload": result["workload"],
        "label": label,
        "axes": json.dumps(axes),
        "coordinates": {**axes, **coordinates(label)},
        "measured_us": 1e3 * result["latency_ms"],
        "anchor_us": 1e3 * result["anchor_ms"],
        **{key: result[key] for key in ("speedup", "speedup_low", "speedup_high")},
        "weight": result.get("weight", 1.0),
        "flops": result.get("flops", float("nan")),
        "bytes": result.get("bytes", float("nan")),
        "reason": "",
    }


def coordinates(label: str) -> dict[str, int]:
    """Numbers in a workload's label: `B16 L1K` or `batch_size=16 seq_len=1024`, by axis name."""
    found = _PAIR.findall(label)
    return {name or _LETTER[x]: int(n) * _UNIT[unit.lower()] for name, x, n, unit in found}


def means(entries: pd.DataFrame) -> pd.DataFrame:
    """Weighted geometric mean of speedup over the anchor per passed entry: name, role, score."""
    passed = entries[entries["speedup"].notna()]
    rows = [
        {
            "name": name,
            "role": group["role"].iloc[0],
            "score": _geomean(group["speedup"], group["weight"]),
        }
        for name, group in passed.groupby("name", sort=False)
    ]
    return pd.DataFrame(rows, columns=["name", "role", "score"])


def _geomean(values: pd.Series, weights: pd.Series) -> float:
    pairs = zip(values, weights, strict=True)
    return math.exp(sum(w * math.log(v) for v, w in pairs) / sum(weights))


def leading(entries: pd.DataFrame) -> pd.DataFrame:
    """`entries` with the best passed seed alone of all seeds: what figures and pages show."""
    scores = means(entries)
    seeds = scores[scores["role"] == "seed"].sort_values("score", ascending=False)
    kept = list(seeds["name"].head(1))
    return entries[(entries["role"] != "seed") | entries["name"].isin(kept)]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts by column name."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def first_line(log: str) -> str:
    """First line of a log that says something, cut to 160 characters."""
    lines = (line.strip() for line in log.splitlines())
    return next((line for line in lines if line), "")[:160]
