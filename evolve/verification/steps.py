"""The steps that use the evaluator: build, correctness, benchmark, stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.launches import UNAVAILABLE
from evaluators.sanitizer import Sanitized
from evaluators.schema import Evaluation, Judged, Replays, Solution, Status, Workload
from evolve import closing
from evolve.phrases import gist
from evolve.plan import Plan
from evolve.pool import EvaluatorPool
from evolve.verification.progress import Watch
from evolve.verification.record import Outcome, Step, Table

CHECKS = 64
"""Judged calls of the correctness step, beside those of the evaluation itself."""

LOGS = 10
"""Failed calls whose logs a report shows."""
MOST_SHOWN = 1e6
"""Of an error over its budget, which may be infinite."""

_UNBUILT = (Status.INVALID_SOURCE, Status.COMPILE_ERROR)


@dataclass(frozen=True)
class Bench:
    """What all steps work with."""

    solution: Solution
    found: Plan
    pool: EvaluatorPool
    seed: int
    watch: Watch


def open_unseen(bench: Bench) -> None:
    """Open an epoch of workloads that no search sees. UserError when the anchor fails there."""
    bench.pool.open_epoch(0, _workloads(bench)[0], bench.found.anchor)


def build(bench: Bench) -> tuple[Step, Evaluation]:
    """Evaluate on unseen workloads; the step is how far guard, compiler and first calls came."""
    evaluation = bench.pool.evaluate(bench.solution)
    unbuilt = not evaluation.passed and (evaluation.status in _UNBUILT or evaluation.build is None)
    said = evaluation.build.model_dump(mode="json") if evaluation.build else {}
    facts = {name: value for name, value in said.items() if value}  # what the compiler said
    if unbuilt:
        summary, outcome = _status(evaluation), Outcome.FAILED
    else:
        kernels = ", ".join(facts.get("kernels", ())) or "no kernel named"
        summary, outcome = f"{facts.get('seconds', 0.0):.1f} s, {kernels}", Outcome.PASSED
    log = evaluation.log if unbuilt else ""
    return Step(name="build", outcome=outcome, summary=summary, log=log, facts=facts), evaluation


def correctness(bench: Bench, evaluation: Evaluation) -> Step:
    """Judged calls of every case and unseen workload, and what the evaluation said."""
    replays = bench.pool.replay(bench.solution, CHECKS)
    tables = [_judged_table("Cases and unseen workloads", replays.judged)] if replays.judged else []
    if evaluation.passed:
        rows = tuple(_error_row(r) for r in closing.rows(evaluation, *_workloads(bench)))
        tables.append(Table(title="Unseen workloads, largest errors of the evaluation", rows=rows))
    log = "\n".join([evaluation.log, *replays.failures[:LOGS]]).strip()
    failed = not evaluation.passed or bool(replays.failures)
    return Step(
        name="correctness",
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        summary=_told(evaluation, replays),
        log=log,
        facts={"status": evaluation.status.value, "calls": replays.calls},
        tables=tuple(tables),
    )


def _told(evaluation: Evaluation, replays: Replays) -> str:
    """The correctness step on one line."""
    if not evaluation.passed:
        return _status(evaluation)
    if replays.failures:
        wrong = [row.label for row in replays.judged if row.failures]
        where = f" ({', '.join(wrong[:3])})" if wrong else ""
        first = gist(replays.failures[0], 200)
        return f"{len(replays.failures)} of {replays.calls} calls failed{where}: {first}"
    cases = sum(row.kind == "case" for row in replays.judged)
    text = f"{len(evaluation.results)} unseen workloads and {cases} cases right"
    text += f" in {replays.calls} calls on new values"
    if replays.judged:
        worst = max(row.budget_used for row in replays.judged)
        text += f"; largest error {worst:.0%} of what is allowed"
    return text


def _status(evaluation: Evaluation) -> str:
    return f"{evaluation.status.value}: {gist(evaluation.log)}"


def benchmark(bench: Bench, peers: list[Any]) -> tuple[Step, list[dict[str, Any]]]:
    """Latency on the report grid beside the best seed and, where asked, peers."""
    lines = closing.contenders(bench.solution, bench.found.seeds[:1], peers)
    entries, _ = closing.measure(
        bench.pool, bench.found.anchor, 1, bench.seed, lines, bench.watch.say
    )
    own = entries[0]
    if own["status"] != Status.PASSED.value:
        text = f"{own['status']}: {gist(own['log'])}"
        return Step(name="benchmark", outcome=Outcome.FAILED, summary=text, log=own["log"]), entries
    ceilings = bench.pool.facts.get("ceilings") or {}
    rows = tuple(_latency_row(row, ceilings, _dtype(bench)) for row in own["results"])
    wide = [row["workload"] for row in rows if row["interval_percent"] > 10]
    notes = (f"intervals wider than 10%: {', '.join(wide)}",) if wide else ()
    mean = math.exp(sum(math.log(row["speedup"]) for row in own["results"]) / len(rows))
    step = Step(
        name="benchmark",
        outcome=Outcome.PASSED,
        summary=f"{mean:.3f}x the anchor in geometric mean over {len(rows)} shapes",
        notes=notes,
        facts={"anchor": bench.found.anchor.name, "speedup": mean},
        tables=(Table(title="Latency", rows=rows),),
    )
    return step, entries


def stability(bench: Bench) -> Step:
    """Many judged calls over the report grid's shapes and the cases; memory; checkers."""
    replays = bench.pool.replay(bench.solution, closing.REPLAYS)
    bench.watch.doing("memory and race checkers")
    checked = bench.pool.sanitize(bench.solution, _workloads(bench)[0])
    faults = [*closing.unstable(replays), *_tool_faults(checked)]
    unavailable = [f"{c.tool}: {c.text}" for c in checked if c.outcome == "not available"]
    if replays.launches.startswith(UNAVAILABLE):
        unavailable.append(f"launches: {replays.launches}")
    clean = ", ".join(c.tool for c in checked if c.outcome == "clean") or "no checker"
    peak = replays.peak_bytes / 2**20
    right = f"{replays.calls} judged calls right, memory back, peak {peak:.0f} MiB, clean: {clean}"
    return Step(
        name="stability",
        outcome=Outcome.FAILED if faults else Outcome.PASSED,
        summary="; ".join(faults) or right,
        notes=tuple(gist(text, 200) for text in unavailable),
        log="\n".join([*replays.failures[:LOGS], *_findings(checked)]),
        facts={
            **replays.model_dump(mode="json", exclude={"judged", "failures"}),
            "failed_calls": len(replays.failures),
        },
        tables=tuple(_stability_tables(replays, checked)),
    )


def _findings(checked: Sequence[Sanitized]) -> list[str]:
    return [f"{c.tool}:\n{c.text}" for c in checked if c.outcome == "errors"]


def _tool_faults(checked: Sequence[Sanitized]) -> list[str]:
    return [f"{c.tool}: {gist(c.text, 200)}" for c in checked if c.outcome == "errors"]


def _stability_tables(replays: Replays, checked: Sequence[Sanitized]) -> list[Table]:
    tables = [_judged_table("Judged calls", replays.judged)] if replays.judged else []
    rows = tuple(
        {"checker": c.tool, "outcome": c.outcome, "calls": c.calls, "seconds": c.seconds}
        for c in checked
    )
    return [*tables, Table(title="Checkers", rows=rows)] if rows else tables


def _judged_table(title: str, judged: Sequence[Judged]) -> Table:
    rows = (
        {
            "kind": row.kind,
            "workload": row.label,
            "calls": row.calls,
            "failed": row.failures,
            "error_percent_of_allowed": 100 * min(row.budget_used, MOST_SHOWN),
            "status": "wrong" if row.failures else "right",
        }
        for row in judged
    )
    return Table(title=title, rows=tuple(rows))


def _error_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "workload": row["label"],
        "max_absolute_error": row["max_absolute_error"],
        "max_relative_error": row["max_relative_error"],
    }


def _latency_row(row: dict[str, Any], ceilings: dict[str, Any], dtype: str) -> dict[str, Any]:
    half = math.sqrt(row["speedup_high"] / row["speedup_low"]) - 1
    found = {
        "workload": row["label"],
        "latency_us": 1e3 * row["latency_ms"],
        "anchor_us": 1e3 * row["anchor_ms"],
        "speedup": row["speedup"],
        "interval_percent": 100 * half,
    }
    floor_ms = _floor_ms(row, ceilings, dtype)
    if floor_ms:
        found["percent_of_roof"] = 100 * floor_ms / row["latency_ms"]
    return found


def _floor_ms(row: dict[str, Any], ceilings: dict[str, Any], dtype: str) -> float:
    """The larger of least bytes at copy bandwidth and arithmetic at the measured peak."""
    gbps, tflops = ceilings.get("copy_gbps"), (ceilings.get("tflops") or {}).get(dtype)
    moved = row["bytes"] / gbps / 1e6 if gbps else 0.0
    computed = row["flops"] / tflops / 1e9 if tflops else 0.0
    return float(max(moved, computed))


def _dtype(bench: Bench) -> str:
    """The definition's floating dtype with a measured peak, the first of its inputs."""
    floats = [s.dtype for s in bench.found.definition.inputs.values() if "float" in s.dtype]
    return floats[0] if floats else "float32"


def _workloads(bench: Bench) -> tuple[list[Workload], list[tuple[float, float]]]:
    """The unseen workloads with their costs."""
    workloads = bench.pool.sample("verification", 0, bench.seed, None)
    return workloads, bench.pool.costs(workloads)
