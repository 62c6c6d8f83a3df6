"""The evaluators of a run: one Ray actor per device, restarted when its process dies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from evaluators.child import EvaluatorError
from evaluators.sanitizer import Sanitized
from evaluators.schema import Evaluation, Replays, Solution, Status, Workload
from evolve.errors import UserError
from evolve.phrases import gist

Spawn = Callable[[], Any]
"""Makes one evaluator actor (see evaluators.worker.EvaluatorWorker for its methods)."""


class EvaluatorPool:
    """Evaluator actors with their open epoch. `capacity`: how many evaluations may be in flight."""

    def __init__(self, spawns: list[Spawn]) -> None:
        self._spawns = spawns
        self._actors = [spawn() for spawn in spawns]
        self._epoch: tuple[int, list[Workload], Solution] | None = None
        self._load = [0] * len(spawns)
        self._running: dict[Any, int] = {}
        self._costs: dict[str, tuple[float, float]] = {}
        self.facts: dict[str, Any] = ray.get(self._actors[0].facts.remote())
        self._slots = int(self.facts.get("slots", 1))

    @property
    def capacity(self) -> int:
        return self._slots * len(self._actors)

    def sample(self, kind: str, epoch: int, seed: int, count: int | None) -> list[Workload]:
        """Workloads of `kind` (search, verification, report) that fit the device."""
        found: list[Workload] = self._asked("sample", kind, epoch, seed, count)
        return found

    def costs(self, workloads: list[Workload]) -> list[tuple[float, float]]:
        """(flops, least bytes) of each workload."""
        found: list[tuple[float, float]] = self._asked("costs", workloads)
        return found

    def cost(self, workload: Workload) -> tuple[float, float]:
        """The same of one workload, asked once."""
        if workload.uuid not in self._costs:
            (self._costs[workload.uuid],) = self.costs([workload])
        return self._costs[workload.uuid]

    def open_epoch(self, epoch: int, workloads: list[Workload], anchor: Solution) -> None:
        """Make inputs, references and the anchor on every device. Nothing may be in flight.

        UserError when the anchor fails on a workload.
        """
        self._epoch = (epoch, workloads, anchor)
        opened = [actor.open_epoch.remote(epoch, workloads, anchor) for actor in self._actors]
        try:
            ray.get(opened)
        except EvaluatorError as error:
            raise UserError(gist(str(getattr(error, "cause", error)))) from None

    def submit(self, solution: Solution, **options: Any) -> Any:
        """Start an evaluation on the least loaded device; returns its reference.

        `options` are those of `evaluators.pipeline.Evaluator.evaluate`.
        """
        device = min(range(len(self._actors)), key=self._load.__getitem__)
        ref = self._actors[device].evaluate.remote(solution, **options)
        self._load[device] += 1
        self._running[ref] = device
        return ref

    def result(self, ref: Any) -> Evaluation | None:
        """Evaluation of a finished reference; None when the evaluator's process died under it.

        A dead evaluator is replaced and its epoch opened again; the caller decides whether the
        program is tried once more.
        """
        device = self._running.pop(ref)
        self._load[device] -= 1
        try:
            evaluation: Evaluation = ray.get(ref)
            return evaluation
        except RayActorError:
            self._replace(device)
            return None

    def evaluate(self, solution: Solution, **options: Any) -> Evaluation:
        """Evaluate one solution and wait for it."""
        for _ in range(2):
            evaluation = self.result(self.submit(solution, **options))
            if evaluation is not None:
                return evaluation
        return self.lost()

    def evaluate_all(self, jobs: list[tuple[Solution, dict[str, Any]]]) -> list[Evaluation]:
        """Evaluate solutions, each with its options, together; outcomes in the order given."""
        refs = [self.submit(solution, **options) for solution, options in jobs]
        found = [self.result(ref) for ref in refs]
        return [
            evaluation if evaluation is not None else self.evaluate(solution, **options)
            for evaluation, (solution, options) in zip(found, jobs, strict=True)
        ]

    def replay(self, solution: Solution, calls: int, trusted: bool = False) -> Replays:
        """`calls` judged calls in the open epoch, see `evaluators.pipeline.Evaluator.replay`.

        An evaluator whose process dies under it is replaced; that counts as a failure.
        """
        try:
            found: Replays = ray.get(self._actors[0].replay.remote(solution, calls, trusted))
            return found
        except RayActorError:
            self._replace(0)
            lost = ("the evaluator's process died while it replayed this program",)
            cpu = self.facts.get("kind") == "cpu"
            return Replays(device="cpu" if cpu else "cuda", calls=0, failures=lost)

    def sanitize(self, solution: Solution, workloads: list[Workload]) -> list[Sanitized]:
        """What memory and race checkers say, see `evaluators.sanitizer.check`."""
        found: list[Sanitized] = ray.get(self._actors[0].sanitize.remote(solution, workloads))
        return found

    def lost(self) -> Evaluation:
        """The evaluation of a program under which the evaluator's own process died twice."""
        assert self._epoch is not None
        return Evaluation(
            status=Status.RUNTIME_ERROR,
            epoch=self._epoch[0],
            log="the evaluator's process died twice while it measured this program",
        )

    def accounting(self) -> list[dict[str, Any]]:
        """Each device's facts now, with its busy and idle seconds."""
        found: list[dict[str, Any]] = ray.get([actor.facts.remote() for actor in self._actors])
        return found

    def close(self, wait: bool = True) -> None:
        """End the evaluators and every process of theirs."""
        if wait:
            # An actor that does not answer is killed below.
            with suppress(RayActorError, RayTaskError, ray.exceptions.GetTimeoutError):
                ray.get([actor.close.remote() for actor in self._actors], timeout=10)
        for actor in self._actors:
            ray.kill(actor)

    def _asked(self, method: str, *arguments: Any) -> Any:
        """What the first evaluator says; one that died is replaced and its successor asked."""
        try:
            return ray.get(getattr(self._actors[0], method).remote(*arguments))
        except RayActorError:
            self._replace(0)
            return ray.get(getattr(self._actors[0], method).remote(*arguments))

    def _replace(self, device: int) -> None:
        try:
            ray.get(self._actors[device].facts.remote(), timeout=60)
            return  # another reference of the same death has replaced it already
        except (RayActorError, ray.exceptions.GetTimeoutError):
            self._actors[device] = self._spawns[device]()
        if self._epoch is not None:
            ray.get(self._actors[device].open_epoch.remote(*self._epoch))
