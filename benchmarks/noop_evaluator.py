"""An evaluator that measures nothing: the engine's own cost, and deterministic runs for tests.

Scores are a fixed function of the program's tunables, so that archives, migration and emitters do
real work. It has the methods of `evaluators.worker`'s actor.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import ray

from evaluators import tunables
from evaluators.sanitizer import Sanitized
from evaluators.schema import (
    BuildFacts,
    Evaluation,
    Replays,
    Solution,
    Status,
    Workload,
    WorkloadResult,
)


class NoOpEvaluator:
    """`delay_s` is slept per evaluation; one program in `fail_every` gets a failing status."""

    def __init__(self, slots: int = 1, delay_s: float = 0.0, fail_every: int = 7) -> None:
        self._slots, self._delay, self._fail_every = slots, delay_s, fail_every
        self._epoch = 0
        self._workloads: list[Workload] = []
        self._anchor = ""

    def facts(self) -> dict[str, Any]:
        return {"name": "no-op", "slots": self._slots, "type": "cpu"}

    def sample(self, kind: str, epoch: int, seed: int, count: int | None) -> list[Workload]:
        return [
            Workload(uuid=f"{kind}-{epoch}-{i}", axes={"num_tokens": 2**i}, seed=seed)
            for i in range(count or 4)
        ]

    def costs(self, workloads: list[Workload]) -> list[tuple[float, float]]:
        return [(1.0, 1.0)] * len(workloads)

    def open_epoch(self, epoch: int, workloads: list[Workload], anchor: Solution) -> None:
        self._epoch, self._workloads, self._anchor = epoch, workloads, anchor.digest()

    def evaluate(
        self,
        solution: Solution,
        contends: Callable[[BuildFacts | None, float, tuple[str, ...]], bool] | None = None,
        **options: Any,
    ) -> Evaluation:
        """Like an evaluator's: what does not contend stops after the first third of workloads."""
        if self._delay:
            time.sleep(self._delay)
        digest = hashlib.sha256(f"{solution.entry_source}".encode()).digest()
        anchor = solution.digest() == self._anchor
        if digest[0] % self._fail_every == 0 and not anchor:
            return Evaluation(status=Status.RUNTIME_ERROR, epoch=self._epoch, log="no-op failure")
        speedup = 1.0 if anchor else _quality(solution.entry_source)
        results = tuple(_result(w, speedup) for w in self._workloads)
        screen = results[: max(1, len(results) // 3)]
        whole = Evaluation(status=Status.PASSED, epoch=self._epoch, results=results)
        part = whole.model_copy(update={"results": screen, "rung": "screen"})
        names = tuple(r.workload for r in screen)
        return part if contends and not contends(None, part.score_high, names) else whole

    def replay(self, solution: Solution, calls: int, trusted: bool = False) -> Replays:
        return Replays(device="cpu", calls=calls)

    def sanitize(self, solution: Solution, workloads: list[Workload]) -> list[Sanitized]:
        return []

    def close(self) -> None:
        pass


def _quality(source: str) -> float:
    """Higher for later choices of each tunable: a landscape that can be climbed."""
    score = 1.0
    for tunable in tunables.find(source).values():
        score *= 1.0 + 0.1 * tunable.choices.index(tunable.value) / len(tunable.choices)
    return score


def _result(workload: Workload, speedup: float) -> WorkloadResult:
    return WorkloadResult(
        workload=workload.uuid,
        max_absolute_error=0.0,
        max_relative_error=0.0,
        latency_ms=1.0 / speedup,
        anchor_ms=1.0,
        speedup=speedup,
        speedup_low=speedup * 0.999,
        speedup_high=speedup * 1.001,
    )


def spawn(slots: int = 1, delay_s: float = 0.0) -> Any:
    """A NoOpEvaluator as a Ray actor."""
    actor = ray.remote(num_cpus=0, max_concurrency=slots)(NoOpEvaluator)
    return actor.remote(slots, delay_s)
