"""Paired latency: a candidate and the anchor timed in turns, and what their ratio is.

Rounds alternate as AB BA AB BA ..., so that a drift of the clock cancels, and so does what it is
worth to come second: the caches are warmer. Both sides of a round get the same new values. The
speedup is the median of the paired ratios, each the mean over a round and the next (in logarithms);
what slows both sides for a while does not touch it. Its 95% interval comes from a two-level
bootstrap (rounds, then pairs within a round, both with replacement: Davison and Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8), because samples of one round resemble each other
more than those of different rounds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.child import CandidateFailed
from evaluators.schema import Status
from evaluators.stopwatch import Estimate, Mode

ROUNDS = (4, 64)
"""Fewest and most rounds; even numbers keep both orders balanced."""

IN_PLACE_MS = 1.0
"""A call of this length is timed alone, its values written in place before it."""

HOPELESS = 3.0
"""Times slower than the anchor that a candidate's exact latency stops mattering."""

RESAMPLES = 500

Samples = NDArray[np.float64]
"""Latencies in milliseconds, shape [rounds, samples of a round]."""


@dataclass(frozen=True)
class Batch:
    """Claimed latencies of one round in milliseconds, and what the judge saw of it.

    `wall_ms`: the whole round by the judge's clock; `spent_ms`: processor time of the process with
    all its threads in the round, and `idle_ms` since it ended what it was asked before; both NaN
    where that says nothing. `late_ms`, `queued_ms`: how long in the round the judge and
    the process were ready to run and waited for a processor.
    """

    claims_ms: list[float]
    wall_ms: float
    spent_ms: float = math.nan
    idle_ms: float = math.nan
    late_ms: float = 0.0
    queued_ms: float = 0.0


class Timed(Protocol):
    """Something that can be timed: a candidate's process or the anchor's."""

    def prepare(self, workload: int) -> Estimate:
        """Warm up and take a first look."""

    def time(self, workload: int, mode: Mode, samples: int) -> Batch:
        """Time `samples` calls, each on values of its own."""


class Desk(Protocol):
    """The judge's part in one workload's timing."""

    slots: int
    """Most calls of a round; 0 where there is no ring and every call is timed alone."""

    def open(self) -> None:
        """Write values for the first look."""

    def lay(self, calls: int) -> None:
        """Write new values for the `calls` of a round."""

    def take(self) -> None:
        """Take what the candidate wrote, before anything that still works for it writes more."""

    def look(self) -> None:
        """Judge what the round's calls wrote. Raises CandidateFailed."""


@dataclass(frozen=True)
class Interval:
    """A ratio with its 95% interval; `low <= value <= high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One side's samples in its faster mode, what the judge saw of its rounds, both medians.

    `walls_ms`, `spent_ms`, `idle_ms`, `late_ms`, `queued_ms`: of each round, see `Batch`.
    """

    estimate: Estimate
    mode: Mode
    samples: Samples
    walls_ms: NDArray[np.float64]
    spent_ms: NDArray[np.float64]
    idle_ms: NDArray[np.float64]
    late_ms: NDArray[np.float64]
    queued_ms: NDArray[np.float64]

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
        return ratio(_both_orders(self.anchor.samples), _both_orders(self.candidate.samples), rng)


class Series:
    """Samples of a candidate and the anchor on one workload; more can be taken later."""

    def __init__(self, candidate: Timed, anchor: Timed, desk: Desk, workload: int) -> None:
        self._sides = candidate, anchor
        self._desk = desk
        self._workload = workload
        desk.open()
        self._estimates = candidate.prepare(workload), anchor.prepare(workload)
        self._modes = _faster(self._estimates[0]), _faster(self._estimates[1])
        least = [min(e.eager_ms, e.graph_ms or math.inf) for e in self._estimates]
        self._hopeless = least[0] > HOPELESS * least[1]
        short = max(least) < IN_PLACE_MS and desk.slots > 1
        self._batch = desk.slots if short else 1
        self._rounds: tuple[list[Batch], list[Batch]] = ([], [])
        self._spent_ms = 0.0

    def fewest(self) -> None:
        """As many rounds as it takes to tell a bad candidate from a good one."""
        while len(self._rounds[0]) < ROUNDS[0]:
            self._round()

    def extend(self, budget_ms: float, samples: int, factor: float) -> None:
        """Rounds for about `budget_ms` of wall time in all, those taken before among them.

        Up to twice that where `samples` need it; the fewest for a candidate that is hopelessly
        slow. `factor` multiplies time and samples.
        """
        self.fewest()
        if self._hopeless and factor <= 1:
            return
        while len(self._rounds[0]) < ROUNDS[1] * factor:
            enough = len(self._rounds[0]) * self._batch >= samples * factor
            if self._spent_ms >= budget_ms * factor * (1 if enough else 2):
                break
            self._round()
            self._round()

    def more(self, rounds: int) -> None:
        """Take some more rounds; `rounds` is even."""
        for _ in range(rounds):
            self._round()

    def paired(self) -> Paired:
        """What was measured so far."""
        made = [
            Side(
                estimate,
                mode,
                np.asarray([b.claims_ms for b in rounds]),
                np.asarray([b.wall_ms for b in rounds]),
                np.asarray([b.spent_ms for b in rounds]),
                np.asarray([b.idle_ms for b in rounds]),
                np.asarray([b.late_ms for b in rounds]),
                np.asarray([b.queued_ms for b in rounds]),
            )
            for estimate, mode, rounds in zip(
                self._estimates, self._modes, self._rounds, strict=True
            )
        ]
        return Paired(*made)

    def _round(self) -> None:
        start = time.perf_counter()
        first = 1 - len(self._rounds[0]) % 2  # the anchor begins
        self._desk.lay(self._batch)
        for side in (first, 1 - first):
            timed, mode = self._sides[side], self._modes[side]
            self._rounds[side].append(timed.time(self._workload, mode, self._batch))
            if side == 0:
                self._desk.take()
        self._desk.look()
        self._spent_ms += (time.perf_counter() - start) * 1e3


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


def _both_orders(samples: Samples) -> Samples:
    """Geometric means over each round and the next, in which the other side began."""
    logs = np.log(samples)
    halves: Samples = np.exp((logs[0::2] + logs[1::2]) / 2)
    return halves
