"""The no-op evaluator, made to fail in one way each."""

from __future__ import annotations

import os
from typing import Any

import ray

from benchmarks.noop_evaluator import NoOpEvaluator
from evaluators.anchor import AnchorError
from evaluators.schema import Evaluation, Replays, Solution, Status, Workload


class Reliable(NoOpEvaluator):
    """Every program passes; `facts` say in which process."""

    def __init__(self, slots: int = 1, delay_s: float = 0.0) -> None:
        super().__init__(slots, delay_s, fail_every=10**6)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "pid": os.getpid()}

    def failed(self, log: str) -> Evaluation:
        return Evaluation(status=Status.RUNTIME_ERROR, epoch=self._epoch, log=log)


class FailsSeeds(Reliable):
    def evaluate(self, solution: Solution, **options: Any) -> Evaluation:
        if solution.name.startswith("seed"):
            return self.failed("first line\nthe seed divides by zero\n")
        return super().evaluate(solution, **options)


class FailsAnchor(Reliable):
    def open_epoch(self, epoch: int, workloads: list[Workload], anchor: Solution) -> None:
        raise AnchorError(f"anchor {anchor.name} fails: COMPILE_ERROR: no\nsuch\nheader")


class FailsVerification(Reliable):
    """The first `failures` programs measured on workloads that the search never saw fail there."""

    def __init__(self, slots: int = 1, delay_s: float = 0.0, failures: int = 1) -> None:
        super().__init__(slots, delay_s)
        self._failures = failures

    def evaluate(self, solution: Solution, **options: Any) -> Evaluation:
        unseen = any(w.uuid.startswith("verification") for w in self._workloads)
        if unseen and self._failures:
            self._failures -= 1
            return self.failed("wrong beyond 64 tokens")
        return super().evaluate(solution, **options)


class Unstable(Reliable):
    """The first `failures` programs that are replayed fail three calls."""

    def __init__(self, slots: int = 1, delay_s: float = 0.0, failures: int = 1) -> None:
        super().__init__(slots, delay_s)
        self._failures = failures

    def replay(self, solution: Solution, calls: int, trusted: bool = False) -> Replays:
        self._failures -= 1
        wrong = ("[B1 L17] output 'y' is off",) * 3 if self._failures >= 0 else ()
        return Replays(device="cpu", calls=calls, failures=wrong)


class DiesOf(Reliable):
    """Its process ends under programs with one value of a tunable."""

    def evaluate(self, solution: Solution, **options: Any) -> Evaluation:
        if "GROUP_M = 8" in solution.entry_source:
            os._exit(1)
        return super().evaluate(solution, **options)


def spawn(kind: type[Reliable], slots: int = 1, **how: Any) -> Any:
    """An evaluator of `kind` as a Ray actor."""
    return ray.remote(num_cpus=0, max_concurrency=slots + 1)(kind).remote(slots, **how)
