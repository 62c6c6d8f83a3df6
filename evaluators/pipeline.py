"""The evaluator of one device: guard, build, correctness, latency, `Evaluation`.

The process that holds an `Evaluator` is the judge. It makes inputs and references, compares outputs
and does the sums; candidates run in processes forked from the nursery and see of the judge only
shared memory and a socket. What a candidate does never raises here: it becomes a status and a log.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from evaluators import catalog, devices, guard
from evaluators.anchor import Anchor
from evaluators.catalog import Operator
from evaluators.child import CandidateFailed, CandidateLost, EvaluatorError, Nursery
from evaluators.epoch import Blocks, Epoch
from evaluators.judging import judge
from evaluators.machine import Machine
from evaluators.replays import replay
from evaluators.rungs import Contends
from evaluators.schema import (
    BuildFacts,
    Definition,
    Evaluation,
    Replays,
    Solution,
    Status,
    Workload,
    WorkloadResult,
)
from evaluators.scoring import Rung, Scorer
from evaluators.settings import EvaluatorSettings
from evaluators.terms import How, Terms
from evaluators.trial import Clock, Trial
from evaluators.turns import DeviceLock, Gate

SWITCH_S = 5e-4
"""Seconds after which Python's interpreter lets another thread of the judge on, instead of 5 ms.

The thread that holds the device sleeps until a candidate answers; checks of other sources, which
run meanwhile in other threads, would hold it up for that long (and longer) each time it wakes.
"""


Found = TypeVar("Found")


class Evaluator:
    """Evaluates solutions of one definition on one device. `evaluate` is thread-safe.

    `secret` decides all input values; by default nobody knows it. Raises EvaluatorError when the
    evaluator itself cannot work, DeviceError and CatalogError from the constructor.
    """

    def __init__(
        self,
        device: str,
        definition: Definition,
        operator_dir: Path,
        settings: EvaluatorSettings | None = None,
        secret: bytes | None = None,
    ) -> None:
        self.reserve_bytes = 0
        """Device memory for inputs to take at once, where a later epoch will need as much."""
        self.guarded = True
        """False leaves everything to the judge: what tests of it alone need."""
        self._secret = secret or os.urandom(32)
        sys.setswitchinterval(SWITCH_S)
        self.device = devices.pick(device)
        self.definition = definition
        self.settings = settings or EvaluatorSettings()
        self.slots = self.settings.slots or devices.default_slots(self.device)
        self._terms = Terms(self.settings, self.device, self.slots)
        folder = Path(operator_dir)
        known = {definition.name: definition}
        self._operator = catalog.load_module(Operator(folder.name, folder, known))
        self._nursery = Nursery(self.device)
        self._nursery.start()
        self._machine = Machine(self.device, definition)
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
            measured = self._machine.facts()
        return {
            **measured,
            "versions": self._machine.versions,
            "slots": self.slots,
            "network": self.network or "isolated",
            "files": self.files or "isolated",
            **self._device.accounting(),
        }

    @property
    def files(self) -> str:
        """'' when candidates see no files but their own, else why they cannot be kept from them."""
        return self._anchor.files if self._anchor is not None else "no epoch is open"

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
            self._machine.ceiling()  # while nobody else has the device
            opened = Epoch(
                epoch, self.definition, self._operator, workloads, self.device, self._secret
            )
            blocks, self._blocks = self._blocks, None
            try:
                opened.fill(blocks, self.slots + 1, self.reserve_bytes)
            finally:
                self._blocks = opened.blocks if opened.laid_out else None
            limits = self._terms.limits(opened, trusted=True)
            started = Anchor(
                self._nursery, anchor, opened, self.slots, limits, self._terms.effort()
            )
            started.start()
            self._epoch, self._anchor = opened, started

    def evaluate(
        self,
        solution: Solution,
        *,
        trusted: bool = False,
        samples_factor: float = 1.0,
        skips: tuple[str, ...] = (),
        contends: Contends | None = None,
        twins: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Score one solution in the open epoch; `trusted` skips the guard and the operator's cases:
        at the edges libraries have conventions of their own, as for the logarithm of an empty sum.

        `samples_factor` multiplies the latency samples; `skips` names outputs that are not judged;
        `contends` is asked after a few timings whether the rest is worth it. `twins` names the
        program of each built code (`BuildFacts.binary`) that needs no second evaluation: DUPLICATE.
        Raises only EvaluatorError.
        """
        how = How(trusted, samples_factor, skips, contends, twins or {})
        clock, started = Clock(), time.time()
        evaluation = self._in_slot(clock, lambda slot: self._evaluate(solution, slot, clock, how))
        return evaluation.model_copy(update={"seconds": clock.seconds, "started": started})

    def replay(
        self,
        solution: Solution,
        calls: int,
        *,
        trusted: bool = False,
        skips: tuple[str, ...] = (),
    ) -> Replays:
        """`calls` judged calls of one solution over all workloads and cases, each on new values.

        Raises only EvaluatorError; what the solution does is among the failures.
        """
        how = How(trusted, skips=skips)
        return self._in_slot(Clock(), lambda slot: self._replay(solution, slot, calls, how))

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

    def _in_slot(self, clock: Clock, work: Callable[[int], Found]) -> Found:
        with self._gate.entered():
            if self._epoch is None:
                raise EvaluatorError("no epoch is open")
            with clock.stage("wait"):
                slot = self._free.get()
            try:
                return work(slot)
            finally:
                self._free.put(slot)

    def _guards(self, how: How) -> bool:
        return self.guarded and not how.trusted

    def _evaluate(self, solution: Solution, slot: int, clock: Clock, how: How) -> Evaluation:
        reasons = guard.check(solution, self.definition) if self._guards(how) else []
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
        facts: BuildFacts | None = None
        try:
            with self._built(solution, slot, clock, how) as trial:
                facts = trial.facts
                if facts is not None and (twin := how.twins.get(facts.binary)):
                    log = f"the built code equals that of program {twin}"
                    raise CandidateFailed(Status.DUPLICATE, log)
                rung, results = self._judge(trial, clock, how)
                self._look_at_cores()
        except CandidateFailed as error:
            if isinstance(error, CandidateLost) and not last:
                raise
            return self._failed(solution, error.status, error.log, facts)
        return Evaluation(
            status=Status.PASSED,
            epoch=self._epoch.number,
            results=results,
            rung=rung,
            build=facts,
            environment=self._machine.environment(solution),
        )

    def _look_at_cores(self) -> None:
        """Raise CandidateFailed when it changed which cores the judge or the anchor may use."""
        assert self._anchor is not None
        if self._anchor.displaced():
            raise CandidateFailed(Status.RUNTIME_ERROR, "it moved other processes to other cores")

    @contextmanager
    def _built(self, solution: Solution, slot: int, clock: Clock, how: How) -> Iterator[Trial]:
        """A candidate that is built, and the device for it. Raises CandidateFailed."""
        assert self._epoch is not None
        # On the CPU a build would take cores from what is timed: then it needs the device too.
        on_cpu = self.device == "cpu"
        with self._device.held(clock) if on_cpu else nullcontext():
            with clock.stage("build"):
                limits = self._terms.limits(self._epoch, how.trusted)
                effort = self._terms.effort(how.trusted)
                trial = Trial(
                    self._nursery,
                    solution,
                    self._epoch,
                    slot,
                    limits,
                    effort,
                    how.skips,
                    self._guards(how),
                    cases=not how.trusted,
                )
            try:
                with clock.stage("build"):
                    trial.build()
                with nullcontext() if on_cpu else self._device.held(clock):
                    yield trial
            finally:
                trial.close()

    def _judge(
        self, trial: Trial, clock: Clock, how: How
    ) -> tuple[Rung, tuple[WorkloadResult, ...]]:
        assert self._epoch is not None
        assert self._anchor is not None
        with clock.stage("correctness"):
            comparisons = judge(trial)
        scorer = Scorer(
            self._anchor,
            self._machine.ceiling(),
            len(os.sched_getaffinity(0)),
            self._terms.budget_ms(len(self._epoch.workloads)),
            self.settings.samples,
            how.trusted,
        )

        def contends(facts: BuildFacts | None, high: float, timed: tuple[str, ...]) -> bool:
            assert how.contends is not None
            with clock.stage("contest"):  # the answer comes from another process
                return how.contends(facts, high, timed)

        with clock.stage("latency"):
            asked = contends if how.contends else None
            return scorer.score(trial, comparisons, how.samples_factor, asked)

    def _replay(self, solution: Solution, slot: int, calls: int, how: How) -> Replays:
        reasons = guard.check(solution, self.definition) if self._guards(how) else []
        if reasons:
            refused = "\n".join([f"{Status.INVALID_SOURCE.value}: {reasons[0]}", *reasons[1:]])
            return Replays(device=self.device, calls=0, failures=(refused,))
        try:
            with self._built(solution, slot, Clock(), how) as trial:
                return replay(trial, calls, confirm=not how.trusted)
        except CandidateFailed as error:
            return Replays(device=self.device, calls=0, failures=(str(error),))

    def _failed(
        self, solution: Solution, status: Status, log: str, facts: BuildFacts | None
    ) -> Evaluation:
        assert self._epoch is not None
        return Evaluation(
            status=status,
            epoch=self._epoch.number,
            log=log,
            build=facts,
            environment=self._machine.environment(solution),
        )

    def _close_epoch(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
        self._epoch = self._anchor = None
