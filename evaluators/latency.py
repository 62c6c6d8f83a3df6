"""Paired latency: a candidate and the anchor timed in turns, and what their ratio is.

Batches alternate as ABBA ABBA ..., so that a drift of the clock cancels. The speedup is the median
of the paired ratios (the i-th sample of one side over the i-th of the other, of the same round);
what slows both sides for a while does not touch it. Its 95% interval comes from a two-level
bootstrap (rounds, then pairs within a round, both with replacement: Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8), because samples of one batch resemble each other
more than those of different batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.child import CandidateFailed
from evaluators.schema import Status
from evaluators.stopwatch import SLOW_MS, Estimate, Mode

ROUNDS = (4, 32)
"""Fewest and most batches of each side; even numbers keep ABBA balanced."""

BATCH_MS = 5.0
"""Least duration of a batch: the device changes hands between batches, which costs time."""

BATCH_LIMIT = 64
"""Most samples of a batch."""

HOPELESS = 3.0
"""Times slower than the anchor that a candidate's exact latency stops mattering."""

RESAMPLES = 500

Samples = NDArray[np.float64]
"""Latencies in milliseconds, shape [rounds, samples of a batch]."""


class Timed(Protocol):
    """Something that can be timed: a candidate's process or the anchor's."""

    def prepare(self, workload: int) -> Estimate:
        """Warm up and take a first look."""

    def time(self, workload: int, mode: Mode, samples: int) -> list[float]:
        """Latencies in milliseconds of `samples` calls."""


@dataclass(frozen=True)
class Interval:
    """A ratio with its 95% interval; `low <= value <= high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One side's samples in its faster mode, and the medians of both modes."""

    estimate: Estimate
    mode: Mode
    samples: Samples

    @property
    def median_ms(self) -> float:
        return float(np.median(self.samples))

    def mode_ms(self, mode: Mode) -> float | None:
        """Median of a mode: of all samples where it was timed, else of the first look."""
        if mode == self.mode:
            return self.median_ms
        return self.estimate.eager_ms if mode == "eager" else self.estimate.graph_ms


@dataclass(frozen=True)
class Paired:
    """Both sides of one workload. The i-th samples of a round belong together."""

    candidate: Side
    anchor: Side

    def speedup(self, rng: np.random.Generator) -> Interval:
        """Anchor latency / candidate latency, the median of pairs, with its interval."""
        return ratio(self.anchor.samples, self.candidate.samples, rng)


def measure(
    candidate: Timed, anchor: Timed, workload: int, budget_ms: float, samples: int, factor: float
) -> Paired:
    """Time both sides on one workload within about `budget_ms` of wall time.

    `samples` of each side are wanted at least where the budget allows; `factor` multiplies the
    rounds.
    """
    ours, theirs = candidate.prepare(workload), anchor.prepare(workload)
    rounds, batch = schedule(ours, theirs, budget_ms, samples, factor)
    modes = _faster(ours), _faster(theirs)
    mine: list[list[float]] = []
    others: list[list[float]] = []
    for number in range(rounds):
        if number % 2:
            mine.append(candidate.time(workload, modes[0], batch))
            others.append(anchor.time(workload, modes[1], batch))
        else:
            others.append(anchor.time(workload, modes[1], batch))
            mine.append(candidate.time(workload, modes[0], batch))
    return Paired(
        Side(ours, modes[0], np.asarray(mine)), Side(theirs, modes[1], np.asarray(others))
    )


def schedule(
    candidate: Estimate, anchor: Estimate, budget_ms: float, samples: int, factor: float
) -> tuple[int, int]:
    """(rounds, samples of a batch) for a pair of calls.

    As many rounds as the budget buys; up to twice the budget where `samples` need it, and the
    fewest for a candidate that is hopelessly slow.
    """
    ours, theirs = _sample_ms(candidate), _sample_ms(anchor)
    batch = min(BATCH_LIMIT, max(1, math.ceil(BATCH_MS / max(ours, theirs))))
    affordable = budget_ms / (batch * (ours + theirs))
    rounds = max(affordable, min(samples / batch, 2 * affordable))
    if _least(candidate) > HOPELESS * _least(anchor):
        rounds = 0
    fewest, most = ROUNDS
    even = 2 * round(min(max(rounds, fewest), most) * factor / 2)
    return max(even, fewest), batch


def ratio(top: Samples, bottom: Samples, rng: np.random.Generator) -> Interval:
    """Median of the paired `top / bottom` with a 95% interval; equal shapes [rounds, batch]."""
    logs = np.log(top / bottom)
    rounds, batch = logs.shape
    chosen = rng.integers(rounds, size=(RESAMPLES, rounds, 1))
    within = rng.integers(batch, size=(RESAMPLES, rounds, batch))
    medians = np.median(logs[chosen, within].reshape(RESAMPLES, -1), axis=1)
    low, high = np.exp(np.quantile(medians, (0.025, 0.975)))
    value = float(np.exp(np.median(logs)))
    return Interval(value, min(float(low), value), max(float(high), value))


def checked(values: object, count: int) -> list[float]:
    """A candidate's claimed latencies. Raises CandidateFailed when they cannot be latencies."""
    if isinstance(values, list) and len(values) == count:
        numbers = [v for v in values if isinstance(v, float | int) and not isinstance(v, bool)]
        if len(numbers) == count and all(math.isfinite(v) and v > 0 for v in numbers):
            return [float(v) for v in numbers]
    raise CandidateFailed(Status.RUNTIME_ERROR, "the process reported no valid latencies")


def _faster(estimate: Estimate) -> Mode:
    graph = estimate.graph_ms
    return "graph" if graph is not None and graph < estimate.eager_ms else "eager"


def _least(estimate: Estimate) -> float:
    return min(estimate.eager_ms, estimate.graph_ms or math.inf)


def _sample_ms(estimate: Estimate) -> float:
    """Wall time of one sample; short calls drop one of each batch, which costs a little more."""
    once = _least(estimate) + estimate.overhead_ms
    return once if once > SLOW_MS else 1.1 * once
