"""The kernel that every candidate is timed beside: a trusted solution in a process of its own."""

from __future__ import annotations

import os

from evaluators.child import CandidateFailed, EvaluatorError, Limits, Nursery
from evaluators.cores import Cores
from evaluators.epoch import Epoch
from evaluators.judging import judge
from evaluators.latency import Batch, Timed
from evaluators.schema import Solution
from evaluators.stopwatch import Estimate, Mode
from evaluators.trial import Effort, Trial


class AnchorError(EvaluatorError):
    """The anchor does not build or run, or its outputs are wrong; the text says why."""


class AnchorRestarted(Exception):
    """The anchor's process died and runs again; samples taken so far have lost their partner."""


class Anchor(Timed):
    """Lives as long as its epoch; started again when its process dies."""

    def __init__(
        self,
        nursery: Nursery,
        solution: Solution,
        epoch: Epoch,
        slot: int,
        limits: Limits,
        effort: Effort,
    ) -> None:
        self._arguments = (nursery, solution, epoch, slot, limits, effort)
        self._name = solution.name
        self._trial: Trial | None = None
        self._estimates: dict[int, Estimate] = {}
        self._cores = Cores()

    @property
    def slot(self) -> int:
        """Where its outputs are."""
        return int(self._arguments[3])

    @property
    def files(self) -> str:
        """'' when its process, as every other, sees no files but its own; else why."""
        return self._trial.files if self._trial is not None else ""

    @property
    def network(self) -> str:
        """'' when its process, as every other, has no network; else why."""
        return self._trial.network if self._trial is not None else ""

    def start(self) -> None:
        """Build the anchor and judge it on everything. Raises AnchorError.

        Needs the device. What is right for the first draws is computed here, for all candidates.
        """
        self._trial = Trial(*self._arguments)
        self._estimates = {}
        try:
            self._trial.build()
            judge(self._trial)
        except CandidateFailed as error:
            self.close()
            raise AnchorError(
                f"anchor {self._name} fails: {error.status.value}: {error.log}"
            ) from error
        self._cores.note([os.getpid(), self._arguments[0].pid, *self._trial.processes()])

    def displaced(self) -> bool:
        """Whether somebody changed the cores of the judge's or the anchor's threads; undone now."""
        return self._cores.changed() > 0

    def prepare(self, workload: int) -> Estimate:
        """First look, once per workload and process."""
        if workload not in self._estimates:
            trial = self._running()
            try:
                self._estimates[workload] = trial.prepare(workload)
            except CandidateFailed as error:
                raise self._restart() from error
        return self._estimates[workload]

    def time(self, workload: int, mode: Mode, samples: int) -> Batch:
        trial = self._running()
        try:
            return trial.time(workload, mode, samples)
        except CandidateFailed as error:
            raise self._restart() from error

    def close(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _running(self) -> Trial:
        if self._trial is None:
            self.start()
        assert self._trial is not None
        return self._trial

    def _restart(self) -> AnchorRestarted:
        self.close()
        self.start()
        return AnchorRestarted(f"anchor {self._name} was started again")
