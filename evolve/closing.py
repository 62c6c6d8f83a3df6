"""The end of a run: verify the champion on unseen workloads, measure it beside seeds and peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from evaluators.catalog import Peer
from evaluators.schema import Evaluation, Solution, Workload
from evolve.pool import EvaluatorPool
from islands.program import Program

CANDIDATES = 5
"""How many elites are tried, best first, until one passes verification."""
FINAL_SAMPLES = 3
"""Closing measurements take this many times the samples of a search evaluation."""

Role = Literal["champion", "seed", "peer", "bound"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """One line of the closing table before it is measured."""

    name: str
    role: Role
    solution: Solution
    trusted: bool
    missing: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()


def contenders(champion: Solution, seeds: list[Solution], peers: list[Peer]) -> list[Contender]:
    """Champion, every seed, every peer; a peer whose packages are absent is named with them."""
    found = [Contender("champion", "champion", champion, trusted=False)]
    found += [Contender(s.name, "seed", s, trusted=False) for s in seeds]
    for peer in peers:
        role: Role = "bound" if peer.bound else "peer"
        found.append(
            Contender(peer.solution.name, role, peer.solution, True, peer.missing, peer.skips)
        )
    return found


def verify(
    pool: EvaluatorPool,
    anchor: Solution,
    epoch: int,
    seed: int,
    elites: list[tuple[str, Program, Evaluation]],
    say: Say,
) -> tuple[Program, Evaluation] | None:
    """First elite, best first, that passes on workloads the search never saw; None if none does."""
    workloads = pool.sample("verification", 0, seed, None)
    pool.open_epoch(epoch, workloads, anchor)
    for _, program, evaluation in elites[:CANDIDATES]:
        say(f"verifying {program.id[:8]} ({evaluation.score:.3f}x) on unseen workloads")
        verified = pool.evaluate(program.solution, samples_factor=FINAL_SAMPLES)
        if verified.passed:
            return program, verified
        say(f"  {program.id[:8]} fails verification: {verified.status.value}")
    return None


def measure(
    pool: EvaluatorPool,
    anchor: Solution,
    epoch: int,
    seed: int,
    entries: list[Contender],
    say: Say,
) -> tuple[list[dict[str, Any]], list[Workload]]:
    """Measure every contender on the operator's report grid.

    Returns plain data for tables and plots, and the grid's workloads.
    """
    workloads = pool.sample("report", 0, seed, None)
    costs = pool.costs(workloads)
    pool.open_epoch(epoch, workloads, anchor)
    present = [e for e in entries if not e.missing]
    for entry in entries:
        state = f"not installed ({', '.join(entry.missing)})" if entry.missing else "measuring"
        say(f"{state} {entry.role} {entry.name}")
    # All at once: builds overlap where the device has slots, timing never does.
    options = [
        {"trusted": e.trusted, "samples_factor": FINAL_SAMPLES, "skips": e.skips} for e in present
    ]
    jobs = [(e.solution, o) for e, o in zip(present, options, strict=True)]
    found = dict(zip((e.name for e in present), pool.evaluate_all(jobs), strict=True))
    measured = []
    for entry in entries:
        if entry.missing:
            measured.append(_entry(entry, "NOT_INSTALLED", f"needs {', '.join(entry.missing)}", []))
        else:
            evaluation = found[entry.name]
            rows = _rows(evaluation, workloads, costs)
            measured.append(_entry(entry, evaluation.status.value, evaluation.log, rows))
    return measured, workloads


def _entry(entry: Contender, status: str, log: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": entry.name, "role": entry.role, "status": status, "log": log, "results": rows}


def _rows(
    evaluation: Evaluation, workloads: list[Workload], costs: list[tuple[float, float]]
) -> list[dict[str, Any]]:
    facts = {w.uuid: (w, cost) for w, cost in zip(workloads, costs, strict=True)}
    rows = []
    for result in evaluation.results:
        workload, (flops, least_bytes) = facts[result.workload]
        rows.append(
            {
                **result.model_dump(),
                "label": workload.label,
                "axes": {**workload.axes, **_scalars(workload.make)},
                "flops": flops,
                "bytes": least_bytes,
            }
        )
    return rows


def _scalars(make: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in make.items() if isinstance(v, int | float)}
