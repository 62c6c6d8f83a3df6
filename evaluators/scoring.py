"""Latency of one correct candidate on an epoch's workloads, cheap first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluators import plausible, rungs
from evaluators.anchor import Anchor, AnchorRestarted
from evaluators.child import CandidateFailed
from evaluators.correctness import Comparison
from evaluators.latency import Paired, Series
from evaluators.plausible import Ceiling
from evaluators.rungs import Contends
from evaluators.schema import Evaluation, Status, WorkloadResult
from evaluators.timed import TimedCalls
from evaluators.trial import Trial

Rung = Literal["screen", "full"]

DOUBTS = 3
"""Times that more is measured before a contradiction to the judge's clock is believed."""

DOUBT_ROUNDS = 8


@dataclass(frozen=True)
class Scorer:
    """Times candidates against `anchor`.

    `cores`: how many a candidate may use. `budget_ms`: wall time of one workload; `samples`: wanted
    of each at least. `trusted` results are not doubted.
    """

    anchor: Anchor
    ceiling: Ceiling
    cores: int
    budget_ms: float
    samples: int
    trusted: bool = False

    def score(
        self, trial: Trial, comparisons: list[Comparison], factor: float, contends: Contends | None
    ) -> tuple[Rung, tuple[WorkloadResult, ...]]:
        """Results of the workloads, or of those that were screened when `contends` says no.

        Raises CandidateFailed. Needs the device.
        """
        count = len(trial.epoch.workloads)
        begun: dict[int, Series] = {}
        if contends is not None:
            order = [item for item in trial.epoch.order if item < count]
            first = sorted(rungs.screened(order))
            found = []
            for workload in first:
                series, paired = self._measured(trial, workload, None)
                begun[workload] = series
                found.append(self._result(trial, workload, comparisons[workload], paired))
            screen = Evaluation(
                status=Status.PASSED, epoch=trial.epoch.number, results=tuple(found)
            )
            timed = tuple(result.workload for result in screen.results)
            if not contends(trial.facts, screen.score_high, timed):
                return "screen", screen.results
        results = []
        for workload in range(count):
            _, paired = self._measured(trial, workload, factor, begun.get(workload))
            results.append(self._result(trial, workload, comparisons[workload], paired))
        return "full", tuple(results)

    def _measured(
        self, trial: Trial, workload: int, factor: float | None, series: Series | None = None
    ) -> tuple[Series, Paired]:
        """A series with the fewest rounds (`factor` None) or all of them, from scratch where the
        anchor has died meanwhile."""
        for _ in range(2):
            try:
                if series is None:
                    chance = random.SystemRandom()
                    desk = TimedCalls(trial, self.anchor.slot, workload, chance)
                    series = Series(trial, self.anchor, desk, workload)
                if factor is None:
                    series.fewest()
                else:
                    series.extend(self.budget_ms, self.samples, factor)
                if not self.trusted:
                    self._doubt(trial, workload, series)
            except AnchorRestarted:
                series = None
                continue
            return series, series.paired()
        raise CandidateFailed(Status.RUNTIME_ERROR, "the anchor died twice beside this candidate")

    def _doubt(self, trial: Trial, workload: int, series: Series) -> None:
        """Raise CandidateFailed when what it claims cannot be true."""
        device = "cpu" if trial.epoch.on_cpu else "cuda"
        paired = series.paired()
        cost = trial.epoch.cost(workload)
        below = plausible.below_floor(paired.candidate.median_ms, cost, self.ceiling)
        if below:
            raise trial.failed(workload, Status.IMPLAUSIBLE, below)
        for more in (True,) * DOUBTS + (False,):
            doubt = plausible.hidden(series.paired(), device, self.cores)
            if not doubt:
                return
            if more:  # a busy machine may have made it: in more rounds that gets rarer
                series.more(DOUBT_ROUNDS)
        raise trial.failed(workload, Status.IMPLAUSIBLE, doubt)

    def _result(
        self, trial: Trial, item: int, comparison: Comparison, paired: Paired
    ) -> WorkloadResult:
        workload = trial.epoch.workloads[item]
        speedup = paired.speedup(np.random.default_rng([trial.epoch.number, item]))
        return WorkloadResult(
            workload=workload.uuid,
            max_absolute_error=comparison.max_absolute_error,
            max_relative_error=comparison.max_relative_error,
            latency_ms=paired.candidate.median_ms,
            anchor_ms=paired.anchor.median_ms,
            speedup=speedup.value,
            speedup_low=speedup.low,
            speedup_high=speedup.high,
            weight=workload.weight,
            eager_ms=paired.candidate.mode_ms("eager"),
            graph_ms=paired.candidate.mode_ms("graph"),
        )
