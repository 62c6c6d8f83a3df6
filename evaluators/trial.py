"""One candidate in an open epoch: its process, and what can be asked of it.

A `Trial` owns a child process. Each step raises CandidateFailed for anything the candidate does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from evaluators import launches, processes
from evaluators.child import CandidateFailed, CandidateLost, Child, Limits, Nursery
from evaluators.epoch import Epoch
from evaluators.latency import Batch, Timed, checked
from evaluators.schema import BuildFacts, Solution, Status
from evaluators.stopwatch import Estimate, Mode


@dataclass(frozen=True)
class Effort:
    """Deadlines of the build and of one command, in seconds."""

    build_deadline_s: float
    run_deadline_s: float


@dataclass
class Clock:
    """Wall time of the stages of one evaluation, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is spent in a stage inside this one counts there alone."""
        start, before = time.perf_counter(), self._inside
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - (self._inside - before)
            self._inside = before + elapsed
            self.seconds[name] = round(self.seconds.get(name, 0.0) + own, 4)


class Trial(Timed):
    """A child process with one solution. `slot` chooses the outputs it writes; `guarded`: what its
    source comes to is looked at before it is loaded. `items`: what it is called and judged on, in
    the order of the epoch; without `cases` the workloads alone.

    `planned`: the solution plans outside its calls on what the inputs hold (trusted ones only), so
    that all its calls get the same values.
    """

    def __init__(
        self,
        nursery: Nursery,
        solution: Solution,
        epoch: Epoch,
        slot: int,
        limits: Limits,
        effort: Effort,
        skips: tuple[str, ...] = (),
        guarded: bool = False,
        cases: bool = True,
    ) -> None:
        self.skips = skips
        self.epoch = epoch
        self.slot = slot
        self._solution = solution
        self._guarded = guarded
        self.items = tuple(i for i in epoch.order if cases or not epoch.is_case(i))
        self._effort = effort
        self._child = Child(nursery, solution.spec.language, limits)
        self._pids: list[int] = []
        self._left_at_ms = math.nan
        self.planned = False
        self.network = ""
        self.files = ""
        self.facts: BuildFacts | None = None

    def build(self) -> None:
        """Build, and call it once on each of `items`, so that JIT languages compile now."""
        end = time.monotonic() + self._effort.build_deadline_s
        start = time.perf_counter()
        message, fds = self.epoch.attachment(self.slot)
        reply = self._child.ask(message, self._effort.build_deadline_s, fds)
        self.network = str(reply.get("network", ""))[:200]
        self.files = str(reply.get("files", ""))[:200]
        solution = self._solution.model_dump(mode="json")
        reply = self._child.ask(
            {"command": "build", "solution": solution, "guarded": self._guarded}, _left(end)
        )
        self.planned = reply.get("planned") is True
        for item in self.items:
            try:
                self._child.ask({"command": "warm", "workload": item}, _left(end))
                self.ask({"command": "settle", "workload": item})
            except CandidateFailed as error:
                if error.status == Status.RUNTIME_ERROR and self.epoch.mend(item):
                    # Perhaps another candidate's doing; the second time it is this one's.
                    raise CandidateLost(error.status, error.log) from error
                raise
        reply = self.ask({"command": "facts"})
        self.facts = _facts(reply.get("facts"), time.perf_counter() - start)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """A command within the deadline of one command. Raises CandidateFailed."""
        reply = self._child.ask(message, self._effort.run_deadline_s)
        self._left_at_ms = self._cpu_ms()
        return reply

    def call(self, item: int) -> tuple[Any, ...]:
        """One judged call on what live memory holds; returns the outputs, poisoned before it."""
        self.epoch.poison(item, self.slot)
        self.epoch.wait()
        self.ask({"command": "run", "workload": item})
        outside = self.epoch.trespass(item, self.slot)
        if outside:
            raise self.failed(item, Status.RUNTIME_ERROR, f"the kernel wrote {outside}")
        return self.epoch.outputs(item, self.slot)

    def prepare(self, workload: int) -> Estimate:
        """First look at the latency, on what live memory holds."""
        return _estimate(self.ask({"command": "prepare", "workload": workload}))

    def time(self, workload: int, mode: Mode, samples: int) -> Batch:
        message = {"command": "time", "workload": workload, "mode": mode, "samples": samples}
        left, begin, before = self._left_at_ms, self._cpu_ms(), self._queued_ms()
        start = time.perf_counter()
        reply = self.ask(message)
        wall_ms = (time.perf_counter() - start) * 1e3
        spent = self._left_at_ms - begin
        judge, queued = (after - b for after, b in zip(self._queued_ms(), before, strict=True))
        claims = checked(reply.get("samples"), samples)
        return Batch(claims, wall_ms, spent, begin - left, judge, queued)

    def failed(self, item: int, status: Status, text: str) -> CandidateFailed:
        """A failure on one item, for the author."""
        return CandidateFailed(status, f"[{self.epoch.label(item)}] {text}")

    def held(self) -> tuple[int, int]:
        """Bytes that the process says it holds, now and at its peak."""
        reply = self.ask({"command": "memory"})
        found = (reply.get("held"), reply.get("peak"))
        now, peak = (v if isinstance(v, int) and v >= 0 else 0 for v in found)
        return now, peak

    def launches(self, item: int) -> str:
        """'' when the solution's own kernels do the work of a call, see `evaluators.launches`."""
        message = {"command": "launches", "workload": item}
        reply = self._child.ask(message, self._effort.build_deadline_s)
        return launches.fault(reply.get("launches"), self._solution)

    def _cpu_ms(self) -> float:
        """Processor time of all threads of the candidate so far; NaN on CUDA, where hosts wait."""
        if not self._pids:
            self._pids = self._child.processes()
        if not self.epoch.on_cpu:
            return math.nan
        return sum(map(processes.cpu_seconds, self._pids)) * 1e3

    def _queued_ms(self) -> tuple[float, float]:
        """How long the judge and the candidate have waited for a processor so far."""
        theirs = sum(map(processes.queued_seconds, self._pids))
        return processes.queued_seconds() * 1e3, theirs * 1e3

    def processes(self) -> list[int]:
        """Ids of the candidate's processes."""
        return self._child.processes()

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
        note=str(reply.get("note", ""))[:200],
    )
