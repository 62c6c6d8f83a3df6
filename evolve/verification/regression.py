"""Latencies now against those before: within 10%, and whether kernel or machine differs.

`ratio` is latency now over latency before. `slowdown` is the same at a common clock: the speedup
over the anchor before, divided by that now; its 95% interval adds the half widths of both log
speedups in quadrature. A machine that is slower today slows the anchor too: then ratio moves and
slowdown does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evolve.verification.record import Outcome, Step, Table
from evolve.verification.subject import Claim

NAME = "regression"
LIMIT = 0.10
"""Largest accepted change of a latency."""


@dataclass(frozen=True)
class Change:
    """One workload measured twice. `half_width`: of the log of `slowdown`."""

    label: str
    before_us: float
    now_us: float
    ratio: float
    slowdown: float
    half_width: float

    @property
    def within(self) -> bool:
        return 1 / (1 + LIMIT) <= self.ratio <= 1 + LIMIT

    def row(self) -> dict[str, Any]:
        """Its line in the report's table."""
        return {
            "workload": self.label,
            "before_us": self.before_us,
            "now_us": self.now_us,
            "change_percent": 100 * (self.ratio - 1),
            "change_at_common_clock_percent": 100 * (self.slowdown - 1),
            "interval_percent": 100 * math.expm1(self.half_width),
        }


@dataclass(frozen=True)
class Comparison:
    """All workloads that both measurements have. Means are geometric."""

    changes: tuple[Change, ...]
    ratio: float
    slowdown: float
    half_width: float

    @property
    def outside(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if not change.within)

    @property
    def within(self) -> bool:
        """Every workload and the mean within `LIMIT`."""
        return not self.outside and 1 / (1 + LIMIT) <= self.ratio <= 1 + LIMIT

    @property
    def slower(self) -> bool:
        """Slower beyond `LIMIT`, beyond the noise, and not because the machine is."""
        surely = self.slowdown * math.exp(-self.half_width)
        return self.ratio > 1 + LIMIT and surely > 1 + LIMIT

    @property
    def too_noisy(self) -> tuple[Change, ...]:
        """Workloads whose interval is wider than what it should tell."""
        return tuple(c for c in self.changes if math.expm1(c.half_width) > LIMIT)

    @property
    def tells(self) -> bool:
        """Whether the intervals of at least half of the workloads are narrow enough."""
        return 2 * len(self.too_noisy) <= len(self.changes)


def compare(now: Iterable[dict[str, Any]], before: Claim) -> Comparison | None:
    """Results by label, now and before; None when they share no workload."""
    changes = [
        _change(row, before.rows[row["label"]]) for row in now if row["label"] in before.rows
    ]
    if not changes:
        return None
    count = len(changes)
    return Comparison(
        tuple(changes),
        math.exp(sum(math.log(c.ratio) for c in changes) / count),
        math.exp(sum(math.log(c.slowdown) for c in changes) / count),
        math.sqrt(sum(c.half_width**2 for c in changes)) / count,
    )


def _change(now: dict[str, Any], before: dict[str, Any]) -> Change:
    halves = (math.log(r["speedup_high"] / r["speedup_low"]) / 2 for r in (now, before))
    return Change(
        label=str(now["label"]),
        before_us=1e3 * before["latency_ms"],
        now_us=1e3 * now["latency_ms"],
        ratio=now["latency_ms"] / before["latency_ms"],
        slowdown=before["speedup"] / now["speedup"],
        half_width=math.hypot(*halves),
    )


def step(entries: list[dict[str, Any]], before: Claim | str, anchor: str) -> Step:
    """The step; `before` is a text where there is nothing to compare with.

    It fails a kernel that is slower beyond `LIMIT` for sure. A difference that the machine or the
    noise explains is said and convicts nobody; where most intervals are too wide, nothing is told.
    """
    if isinstance(before, str):
        return Step(name=NAME, outcome=Outcome.NOT_AVAILABLE, summary=before)
    found = compare(entries[0]["results"], before)
    if found is None:
        text = f"{before.source} has no workload of today's report grid"
        return Step(name=NAME, outcome=Outcome.NOT_AVAILABLE, summary=text)
    same_anchor = before.anchor in ("", anchor)
    failed = found.slower and found.tells and same_anchor
    outcome = Outcome.PASSED if found.tells or found.within else Outcome.NOT_AVAILABLE
    return Step(
        name=NAME,
        outcome=Outcome.FAILED if failed else outcome,
        summary=_summary(found, before, failed),
        notes=tuple(_notes(found, failed, same_anchor)),
        facts={
            "before": before.source,
            "change_percent": 100 * (found.ratio - 1),
            "change_at_common_clock_percent": 100 * (found.slowdown - 1),
            "within_10_percent": found.within,
        },
        tables=(Table(title="Against before", rows=tuple(c.row() for c in found.changes)),),
    )


def _summary(found: Comparison, before: Claim, failed: bool) -> str:
    change = f"{100 * (found.ratio - 1):+.1f}% in geometric mean against {before.source}"
    if failed:
        return f"slower: {change} ({100 * (found.slowdown - 1):+.1f}% at a common clock)"
    if found.within:
        return f"all {len(found.changes)} latencies within 10%: {change}"
    if not found.tells:
        return f"intervals too wide to tell 10% ({change}): measure on an idle machine"
    return f"NOT within 10% on {len(found.outside)} of {len(found.changes)} shapes: {change}"


def _notes(found: Comparison, failed: bool, same_anchor: bool) -> Iterable[str]:
    if not same_anchor:
        yield "the anchor is another kernel than before: only raw latencies compare"
    elif not found.within and not failed:
        clock = 100 * (found.slowdown - 1)
        yield (
            "latencies are not within 10% of those before; at a common clock they differ by "
            f"{clock:+.1f}% ±{100 * math.expm1(found.half_width):.1f}% in geometric mean"
        )
    if found.too_noisy:
        shapes = ", ".join(change.label for change in found.too_noisy)
        yield f"intervals too wide to tell 10%: {shapes}; measure on an idle machine"
