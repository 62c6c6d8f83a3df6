"""Two champions head to head: each as the candidate beside the other as the anchor.

The anchor is a process that lives as long as its epoch, the candidate a new one. To be worth the
same, each champion has both roles once, and the ratio is the geometric mean of the two orders. A
workload's interval is that of their mean (half widths in quadrature), and covers both orders where
they differ by more. Before that both are candidates beside the definition's own anchor: guard,
build, correctness, plausibility, and the speedup that a run's scores are told in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from evaluators.schema import Record, Solution, Status
from evolve import closing
from evolve.closing import Contender, Say
from evolve.errors import UserError
from evolve.phrases import gist
from evolve.pool import EvaluatorPool
from evolve.recording import Measured

RUN, BASE = "run", "base"
"""The two sides, as they are called in documents."""


class Met(Record):
    """One workload. `ratio`: how many times as fast RUN's champion is, with its 95% interval.

    `as_candidate`, `as_anchor`: the ratio in either order, by RUN's role. Latencies in µs are
    geometric means over the orders. `run_copy`, `base_copy`: least bytes over latency as a part of
    the copy bandwidth measured on the device.
    """

    label: str
    ratio: Measured
    as_candidate: float
    as_anchor: float
    run_us: float
    base_us: float
    run_copy: float | None = None
    base_copy: float | None = None


class Duel(Record):
    """What came of it. `failure` says which champion failed what; '' when both hold.

    `over_anchor`: each one's speedup over the definition's anchor on the same grid.
    """

    failure: str = ""
    anchor: str = ""
    over_anchor: dict[str, Measured] = Field(default_factory=dict)
    workloads: tuple[Met, ...] = ()
    mean: Measured | None = None

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER, ALIKE (the interval holds 1) or FAILED: of RUN's champion."""
        if self.mean is None:
            return "FAILED"
        if self.mean.low > 1:
            return "FASTER"
        return "SLOWER" if self.mean.high < 1 else "ALIKE"


def fight(
    pool: EvaluatorPool, anchor: Solution, seed: int, run: Solution, base: Solution, say: Say
) -> Duel:
    """Measure both over the report grid. UserError when the definition's anchor fails there."""
    sides = {RUN: run, BASE: base}
    lines = [_line(side, solution) for side, solution in sides.items()]
    entries, _ = closing.measure(pool, anchor, 0, seed, lines, say)
    if failure := _failure(entries):
        return Duel(failure=failure, anchor=anchor.name)
    over = {e["name"]: mean(list(_rows(e).values())) for e in entries}
    found: dict[str, dict[str, Any]] = {}
    for epoch, (candidate, beside) in enumerate(((RUN, BASE), (BASE, RUN)), 1):
        say(f"{candidate} beside {beside}")
        line = _line(candidate, sides[candidate])
        try:
            (entry,), _ = closing.measure(pool, sides[beside], epoch, seed, [line], say)
            failure = _failure([entry])
        except UserError as error:  # the anchor is somebody's champion here
            failure = f"{beside}'s champion fails as the anchor: {error}"
        if failure:
            return Duel(failure=failure, anchor=anchor.name, over_anchor=over)
        found[candidate] = entry
    gbps = (pool.facts.get("ceilings") or {}).get("copy_gbps")
    met = meetings(found[RUN], found[BASE], gbps)
    return Duel(
        anchor=anchor.name,
        over_anchor=over,
        workloads=met,
        mean=mean([m.ratio for m in met]),
    )


def _line(name: str, solution: Solution) -> Contender:
    return Contender(name, "champion", solution, trusted=False)


def _failure(entries: Sequence[Mapping[str, Any]]) -> str:
    failed = [e for e in entries if e["status"] != Status.PASSED.value]
    return "; ".join(
        f"{e['name']}'s champion fails: {e['status']}: {gist(e['log'])}" for e in failed
    )


def _rows(entry: Mapping[str, Any]) -> dict[str, Measured]:
    """Speedups over whatever was the anchor, by workload."""
    return {
        row["workload"]: Measured(
            speedup=row["speedup"],
            low=row["speedup_low"],
            high=row["speedup_high"],
            weight=row.get("weight", 1.0),
        )
        for row in entry["results"]
    }


def meetings(
    run: Mapping[str, Any], base: Mapping[str, Any], gbps: float | None = None
) -> tuple[Met, ...]:
    """Both orders put together; `run` and `base` are the entries measured beside the other one."""
    first, second = _rows(run), _rows(base)
    theirs = {row["workload"]: row for row in base["results"]}
    found = []
    for row in run["results"]:
        key, other = row["workload"], theirs[row["workload"]]
        run_us = 1e3 * math.sqrt(row["latency_ms"] * other["anchor_ms"])
        base_us = 1e3 * math.sqrt(row["anchor_ms"] * other["latency_ms"])
        found.append(
            Met(
                label=row["label"],
                ratio=both_orders(first[key], second[key]),
                as_candidate=first[key].speedup,
                as_anchor=1 / second[key].speedup,
                run_us=run_us,
                base_us=base_us,
                run_copy=row["bytes"] / run_us / 1e3 / gbps if gbps else None,
                base_copy=row["bytes"] / base_us / 1e3 / gbps if gbps else None,
            )
        )
    return tuple(found)


def both_orders(forth: Measured, back: Measured) -> Measured:
    """`forth` is A over B, `back` B over A: A over B of both, its interval covers both."""
    one, other = math.log(forth.speedup), -math.log(back.speedup)
    half = max(math.hypot(forth.half_width, back.half_width), abs(one - other)) / 2
    return _around((one + other) / 2, half, forth.weight)


def mean(rows: Sequence[Measured]) -> Measured:
    """Weighted geometric mean; the workloads' errors are taken as independent."""
    total = sum(row.weight for row in rows)
    middle = sum(row.weight * math.log(row.speedup) for row in rows) / total
    half = math.sqrt(sum((row.weight * row.half_width) ** 2 for row in rows)) / total
    return _around(middle, half, total)


def _around(log: float, half: float, weight: float) -> Measured:
    return Measured(
        speedup=math.exp(log), low=math.exp(log - half), high=math.exp(log + half), weight=weight
    )
