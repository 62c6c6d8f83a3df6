"""The evaluator of one device: guard, build, correctness, latency, `Evaluation`.

The process that holds an `Evaluator` is the judge. It makes inputs and references, compares outputs
and does the sums; candidates run in processes forked from the nursery and see of the judge only
shared memory and a socket. What a candidate does never raises here: it becomes a status and a log.
"""

from __future__ import annotations

import queue
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluators import catalog, devices, guard
from evaluators.anchor import Anchor, AnchorRestarted
from evaluators.catalog import Operator
from evaluators.child import CandidateFailed, CandidateLost, EvaluatorError, Limits, Nursery
from evaluators.confinement import FILE_BYTES, TRUSTED_FILE_BYTES
from evaluators.correctness import Comparison
from evaluators.epoch import Blocks, Epoch
from evaluators.latency import Paired, measure
from evaluators.schema import (
    Definition,
    Evaluation,
    Language,
    Solution,
    Status,
    Workload,
    WorkloadResult,
)
from evaluators.settings import EvaluatorSettings
from evaluators.trial import Clock, Effort, Trial
from evaluators.turns import DeviceLock, Gate

LATENCY_S = {"cuda": 0.4, "cpu": 1.2}
"""Wall time of one evaluation's latency stage where the settings do not say."""

PACKAGES = {
    Language.TRITON: "triton",
    Language.TILELANG: "tilelang",
    Language.CPP: "apache-tvm-ffi",
    Language.CUDA: "apache-tvm-ffi",
}
"""The package whose version an evaluation of the language records, beside torch's."""


TRUSTED_PATIENCE = 4
"""Trusted solutions get this many times the deadlines: libraries build kernels at first use."""


@dataclass(frozen=True)
class How:
    """Options of one evaluation, see `Evaluator.evaluate`."""

    trusted: bool = False
    samples_factor: float = 1.0
    skips: tuple[str, ...] = ()


class Evaluator:
    """Evaluates solutions of one definition on one device. `evaluate` is thread-safe.

    Raises EvaluatorError when the evaluator itself cannot work, DeviceError and CatalogError from
    the constructor.
    """

    def __init__(
        self,
        device: str,
        definition: Definition,
        operator_dir: Path,
        settings: EvaluatorSettings | None = None,
    ) -> None:
        self.device = devices.pick(device)
        self.definition = definition
        self.settings = settings or EvaluatorSettings()
        self.slots = self.settings.slots or devices.default_slots(self.device)
        folder = Path(operator_dir)
        known = {definition.name: definition}
        self._operator = catalog.load_module(Operator(folder.name, folder, known))
        self._nursery = Nursery()
        self._nursery.start()
        self._facts: dict[str, Any] | None = None
        self._versions = devices.versions()
        self._device_facts = devices.facts(self.device)
        self._epoch: Epoch | None = None
        self._anchor: Anchor | None = None
        self._blocks: Blocks | None = None
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.slots):
            self._free.put(slot)
        self._gate = Gate()
        self._device = DeviceLock()

    @property
    def input_bytes(self) -> int:
        """Bytes that the inputs of one epoch's workloads may take in all."""
        return devices.input_bytes(self.device, self.settings.input_fraction)

    def facts(self) -> dict[str, Any]:
        """Device, ceilings, versions, slots, and how the device's time was spent so far."""
        with self._device.held():
            if self._facts is None:
                dtypes = {s.dtype for s in self.definition.inputs.values()}
                found = devices.ceilings(self.device, tuple(sorted(dtypes & {*FLOATS})))
                self._facts = {**self._device_facts, "ceilings": found}
        return {
            **self._facts,
            "versions": self._versions,
            "slots": self.slots,
            "network": self.network or "isolated",
            **self._device.accounting(),
        }

    @property
    def network(self) -> str:
        """'' when candidates have no network, else why they cannot be kept from it."""
        return self._anchor.network if self._anchor is not None else "no epoch is open"

    def processes(self) -> list[int]:
        """Ids of all processes that the evaluator started, candidates included."""
        return self._nursery.processes()

    def open_epoch(self, epoch: int, workloads: list[Workload], anchor: Solution) -> None:
        """Make inputs and references of `workloads` and start the anchor; ends the epoch before.

        Waits for evaluations in flight. Raises AnchorError when the anchor fails on a workload.
        """
        with self._gate.alone():
            self._close_epoch()
            opened = Epoch(epoch, self.definition, self._operator, workloads, self.device)
            blocks, self._blocks = self._blocks, None
            try:
                opened.fill(blocks, self.slots + 1)
            finally:
                self._blocks = opened.blocks if opened.laid_out else None
            limits = self._limits(opened, trusted=True)
            started = Anchor(self._nursery, anchor, opened, self.slots, limits, self._effort())
            started.start()
            self._epoch, self._anchor = opened, started

    def evaluate(
        self,
        solution: Solution,
        *,
        trusted: bool = False,
        samples_factor: float = 1.0,
        skips: tuple[str, ...] = (),
    ) -> Evaluation:
        """Score one solution in the open epoch; `trusted` skips the guard.

        `samples_factor` multiplies the latency samples; `skips` names outputs that are not judged.
        Raises only EvaluatorError.
        """
        how = How(trusted, samples_factor, skips)
        clock, started = Clock(), time.time()
        with self._gate.entered():
            if self._epoch is None:
                raise EvaluatorError("no epoch is open")
            with clock.stage("wait"):
                slot = self._free.get()
            try:
                evaluation = self._evaluate(solution, slot, clock, how)
            finally:
                self._free.put(slot)
        return evaluation.model_copy(update={"seconds": clock.seconds, "started": started})

    def close(self) -> None:
        """End every process and free the shared memory."""
        with self._gate.alone():
            self._close_epoch()
            self._nursery.close()
            if self._blocks is not None:
                self._blocks.close()
                self._blocks = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _evaluate(self, solution: Solution, slot: int, clock: Clock, how: How) -> Evaluation:
        assert self._epoch is not None
        if not how.trusted:
            reasons = guard.check(solution, self.definition)
            if reasons:
                return self._failed(solution, Status.INVALID_SOURCE, "\n".join(reasons), None)
        try:
            return self._attempt(solution, slot, clock, how)
        except CandidateLost:
            # Another candidate took the nursery down with it; the second time it is this one.
            return self._attempt(solution, slot, clock, how, last=True)

    def _attempt(
        self, solution: Solution, slot: int, clock: Clock, how: How, last: bool = False
    ) -> Evaluation:
        assert self._epoch is not None
        trial: Trial | None = None
        # On the CPU a build would take cores from what is timed: then it needs the device too.
        whole = self._device.held(clock) if self.device == "cpu" else nullcontext()
        try:
            with whole:
                with clock.stage("build"):
                    limits, effort = (
                        self._limits(self._epoch, how.trusted),
                        self._effort(how.trusted),
                    )
                    trial = Trial(
                        self._nursery, solution, self._epoch, slot, limits, effort, how.skips
                    )
                    trial.build()
                part = nullcontext() if self.device == "cpu" else self._device.held(clock)
                results = self._judge(trial, clock, how.samples_factor, part)
        except CandidateFailed as error:
            if isinstance(error, CandidateLost) and not last:
                raise
            return self._failed(solution, error.status, error.log, trial)
        finally:
            if trial is not None:
                trial.close()
        return Evaluation(
            status=Status.PASSED,
            epoch=self._epoch.number,
            results=tuple(results),
            build=trial.facts,
            environment=self._environment(solution),
        )

    def _judge(
        self, trial: Trial, clock: Clock, factor: float, device: AbstractContextManager[None]
    ) -> list[WorkloadResult]:
        with device:
            with clock.stage("correctness"):
                comparisons = self._correct(trial)
            with clock.stage("latency"):
                return self._time(trial, comparisons, factor)

    def _correct(self, trial: Trial) -> list[Comparison]:
        """Correctness on unmodified inputs.

        Candidates that build meanwhile see the same inputs. So a modification counts against this
        one only when it happens twice in a row; whoever else did it will be caught in its own turn.
        """
        assert self._epoch is not None
        self._epoch.restore()
        for _ in range(2):
            failure: CandidateFailed | None = None
            try:
                comparisons = trial.correct()
            except CandidateFailed as error:
                failure = error
            if not self._epoch.restore():
                if failure is not None:
                    raise failure
                return comparisons
            if failure is not None and failure.status is not Status.INCORRECT_NUMERICAL:
                raise failure
        raise CandidateFailed(Status.RUNTIME_ERROR, "the inputs were modified")

    def _time(
        self, trial: Trial, comparisons: list[Comparison], factor: float
    ) -> list[WorkloadResult]:
        assert self._epoch is not None
        count = len(self._epoch.workloads)
        budget = self.settings.latency_s or LATENCY_S[self.device]
        budget_ms = budget * 1e3 / count
        results = []
        for workload in range(count):
            paired = self._measure(trial, workload, budget_ms, factor)
            # Timing left outputs behind: a graph that replays nothing, or calls that disturb one
            # another, show here.
            trial.check(workload)
            rng = np.random.default_rng([self._epoch.number, workload])
            results.append(
                _result(self._epoch.workloads[workload], comparisons[workload], paired, rng)
            )
        if self._epoch.restore():
            raise CandidateFailed(Status.RUNTIME_ERROR, "the inputs were modified while timed")
        return results

    def _measure(self, trial: Trial, workload: int, budget_ms: float, factor: float) -> Paired:
        assert self._anchor is not None
        samples = self.settings.samples
        for _ in range(2):
            try:
                return measure(trial, self._anchor, workload, budget_ms, samples, factor)
            except AnchorRestarted:
                continue
        raise CandidateFailed(Status.RUNTIME_ERROR, "the anchor died twice beside this candidate")

    def _failed(
        self, solution: Solution, status: Status, log: str, trial: Trial | None
    ) -> Evaluation:
        assert self._epoch is not None
        return Evaluation(
            status=status,
            epoch=self._epoch.number,
            log=log,
            build=trial.facts if trial is not None else None,
            environment=self._environment(solution),
        )

    def _environment(self, solution: Solution) -> dict[str, str]:
        found = {"device": str(self._device_facts["name"])}
        for package in ("torch", PACKAGES.get(solution.spec.language)):
            if package in self._versions:
                found[package] = self._versions[package]
        return found

    def _limits(self, epoch: Epoch, trusted: bool) -> Limits:
        memory = self.settings.memory_bytes or devices.default_memory_bytes(self.slots)
        # Address space is no measure of memory: compilers and thread stacks reserve much.
        address = 2 * memory + (8 << 30) + epoch.host_bytes
        return Limits(
            memory_bytes=memory + epoch.host_bytes,
            file_bytes=TRUSTED_FILE_BYTES if trusted else FILE_BYTES,
            address_bytes=address if self.device == "cpu" and not trusted else None,
        )

    def _effort(self, trusted: bool = False) -> Effort:
        settings, patience = self.settings, TRUSTED_PATIENCE if trusted else 1
        return Effort(
            patience * settings.build_deadline_s,
            patience * settings.run_deadline_s,
            settings.min_time_ms,
        )

    def _close_epoch(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
        self._epoch = self._anchor = None


FLOATS = ("float32", "float16", "bfloat16")
"""Dtypes whose matrix product is measured as a ceiling."""


def _result(
    workload: Workload, comparison: Comparison, paired: Paired, rng: np.random.Generator
) -> WorkloadResult:
    speedup = paired.speedup(rng)
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
