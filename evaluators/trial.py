"""One candidate on its way through an open epoch: build, correctness, latency.

A `Trial` owns a child process. Each step raises CandidateFailed for anything the candidate does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from evaluators.child import CandidateFailed, Child, Limits, Nursery
from evaluators.correctness import Comparison
from evaluators.epoch import Epoch
from evaluators.latency import Timed, checked
from evaluators.schema import BuildFacts, Solution, Status
from evaluators.stopwatch import Estimate, Mode


@dataclass(frozen=True)
class Effort:
    """Deadlines of the build and of one command, in seconds, and the least sample in ms."""

    build_deadline_s: float
    run_deadline_s: float
    min_time_ms: float


@dataclass
class Clock:
    """Wall time of the stages of one evaluation, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + elapsed, 4)


class Trial(Timed):
    """A child process with one solution. `slot` chooses the outputs it writes."""

    def __init__(
        self,
        nursery: Nursery,
        solution: Solution,
        epoch: Epoch,
        slot: int,
        limits: Limits,
        effort: Effort,
        skips: tuple[str, ...] = (),
    ) -> None:
        self._skips = skips
        self._solution = solution
        self._epoch = epoch
        self._slot = slot
        self._effort = effort
        self._child = Child(nursery, solution.spec.language, limits)
        self.network = ""
        self.facts: BuildFacts | None = None

    def build(self) -> None:
        """Build, and call every workload once, so that JIT languages compile now."""
        end = time.monotonic() + self._effort.build_deadline_s
        start = time.perf_counter()
        message, fds = self._epoch.attachment(self._slot)
        message["min_time_ms"] = self._effort.min_time_ms
        reply = self._child.ask(message, self._effort.build_deadline_s, fds)
        self.network = str(reply.get("network", ""))[:200]
        solution = self._solution.model_dump(mode="json")
        self._child.ask({"command": "build", "solution": solution}, _left(end))
        for workload in self._epoch.order:
            self._child.ask({"command": "warm", "workload": workload}, _left(end))
            reply = self._child.ask(
                {"command": "settle", "workload": workload}, self._effort.run_deadline_s
            )
        self.facts = _facts(reply.get("facts"), time.perf_counter() - start)

    def correct(self) -> list[Comparison]:
        """Judge one call of every workload, cheapest first; stops at the first that is wrong.

        Comparisons come in the order of the workloads.
        """
        found: dict[int, Comparison] = {}
        for workload in self._epoch.order:
            self._epoch.poison(workload, self._slot)
            message = {"command": "run", "workload": workload}
            self._child.ask(message, self._effort.run_deadline_s)
            found[workload] = self.check(workload)
        return [found[i] for i in range(len(found))]

    def check(self, workload: int) -> Comparison:
        """Compare what the outputs hold. Raises CandidateFailed when it is wrong."""
        comparison = self._epoch.compare(workload, self._slot, self._skips)
        if comparison.fault:
            label = self._epoch.workloads[workload].label
            raise CandidateFailed(Status.INCORRECT_NUMERICAL, f"[{label}] {comparison.fault}")
        return comparison

    def prepare(self, workload: int) -> Estimate:
        """First look at the latency. Poisons the outputs after it, for the check after timing."""
        message = {"command": "prepare", "workload": workload}
        estimate = _estimate(self._child.ask(message, self._effort.run_deadline_s))
        self._epoch.poison(workload, self._slot)
        return estimate

    def time(self, workload: int, mode: Mode, samples: int) -> list[float]:
        message = {"command": "time", "workload": workload, "mode": mode, "samples": samples}
        reply = self._child.ask(message, self._effort.run_deadline_s)
        return checked(reply.get("samples"), samples)

    def close(self) -> None:
        """End the child and all that it started."""
        self._child.close()


def _left(end: float) -> float:
    return max(0.01, round(end - time.monotonic(), 2))


def _facts(claimed: object, seconds: float) -> BuildFacts | None:
    """Build facts as the candidate's process reports them; None when they are malformed."""
    try:
        return BuildFacts.model_validate(claimed).model_copy(update={"seconds": round(seconds, 3)})
    except ValueError:
        return None


def _estimate(reply: dict[str, object]) -> Estimate:
    eager = checked([reply.get("eager_ms")], 1)[0]
    graph = reply.get("graph_ms")
    return Estimate(
        eager_ms=eager,
        graph_ms=None if graph is None else checked([graph], 1)[0],
        overhead_ms=max(0.0, checked([reply.get("overhead_ms") or 1e-9], 1)[0]),
        note=str(reply.get("note", ""))[:200],
    )
