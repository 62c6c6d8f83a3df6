"""The end of a run: verify the champion on unseen workloads, measure it beside seeds and peers.

`evolve verify` uses the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from evaluators.catalog import Peer
from evaluators.launches import UNAVAILABLE
from evaluators.schema import Evaluation, Replays, Solution, Workload
from evolve.phrases import gist
from evolve.pool import EvaluatorPool
from islands.program import Program

CANDIDATES = 5
"""How many leading elites are measured on unseen workloads."""
FINAL_SAMPLES = 3
"""Closing measurements take this many times the samples of a search evaluation."""

REPLAYS = 200
"""Judged calls that a champion has to survive: a published top-k kernel failed 3 of 200 and passed
3 of 3."""
GROWTH = {"cpu": 64 << 20, "cuda": 32 << 20}
"""Bytes by which a process may have grown after them: an allocator keeps what it once had."""

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


class Verified(NamedTuple):
    """A champion, its evaluation on unseen workloads, and its replays there."""

    program: Program
    evaluation: Evaluation
    replays: Replays


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
) -> Verified | None:
    """The best of the leading elites on workloads the search never saw; None if none passes.

    The best of many noisy scores is partly luck; the score on unseen workloads decides, and then
    whether `REPLAYS` judged calls bring no failure.
    """
    workloads = pool.sample("verification", 0, seed, None)
    pool.open_epoch(epoch, workloads, anchor)
    programs = [program for _, program, _ in elites[:CANDIDATES]]
    say(f"verifying {len(programs)} elites on {len(workloads)} unseen workloads")
    jobs = [(program.solution, {"samples_factor": FINAL_SAMPLES}) for program in programs]
    found = list(zip(programs, pool.evaluate_all(jobs), strict=True))
    for program, verified in found:
        if not verified.passed:
            say(f"  {program.id[:8]} fails verification: {verified.status.value}")
    passed = [(program, verified) for program, verified in found if verified.passed]
    for program, verified in sorted(passed, key=lambda pair: -pair[1].score):
        replays = pool.replay(program.solution, REPLAYS)
        faults = unstable(replays)
        if not faults:
            return Verified(program, verified, replays)
        say(f"  {program.id[:8]} fails verification: {'; '.join(faults)}")
    return None


def unstable(replays: Replays) -> list[str]:
    """What speaks against a kernel that was replayed; empty when it is stable."""
    found = []
    if replays.failures:
        first = gist(replays.failures[0], 200)
        found.append(f"{len(replays.failures)} of {replays.calls} judged calls failed: {first}")
    if replays.launches and not replays.launches.startswith(UNAVAILABLE):
        found.append(replays.launches)
    growth = replays.final_bytes - replays.start_bytes
    if growth > GROWTH[replays.device]:
        found.append(f"memory grew by {growth / 2**20:.0f} MiB over {replays.calls} calls")
    return found


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
    # Our own together: builds overlap where the device has slots, timing never does. Peers one by
    # one: what they prepare may fill the device or keep it busy.
    ours = [e for e in present if not e.trusted]
    found = dict(
        zip((e.name for e in ours), pool.evaluate_all([_job(e) for e in ours]), strict=True)
    )
    for entry in (e for e in present if e.trusted):
        solution, options = _job(entry)
        found[entry.name] = pool.evaluate(solution, **options)
    measured = []
    for entry in entries:
        if entry.missing:
            measured.append(_entry(entry, "NOT_INSTALLED", f"needs {', '.join(entry.missing)}", []))
        else:
            evaluation = found[entry.name]
            found_rows = rows(evaluation, workloads, costs)
            measured.append(_entry(entry, evaluation.status.value, evaluation.log, found_rows))
    return measured, workloads


def _job(entry: Contender) -> tuple[Solution, dict[str, Any]]:
    options = {"trusted": entry.trusted, "samples_factor": FINAL_SAMPLES, "skips": entry.skips}
    return entry.solution, options


def _entry(
    entry: Contender, status: str, log: str, results: list[dict[str, Any]]
) -> dict[str, Any]:
    head = {"name": entry.name, "role": entry.role, "status": status, "log": log}
    return {**head, "results": results}


def rows(
    evaluation: Evaluation, workloads: list[Workload], costs: list[tuple[float, float]]
) -> list[dict[str, Any]]:
    """An evaluation's results as plain data, with label, axes, flops and bytes of the workload."""
    facts = {w.uuid: (w, cost) for w, cost in zip(workloads, costs, strict=True)}
    found = []
    for result in evaluation.results:
        workload, (flops, least_bytes) = facts[result.workload]
        found.append(
            {
                **result.model_dump(),
                "label": workload.label,
                "axes": {**workload.axes, **_scalars(workload.make)},
                "flops": flops,
                "bytes": least_bytes,
            }
        )
    return found


def _scalars(make: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in make.items() if isinstance(v, int | float)}
