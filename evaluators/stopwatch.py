"""Times a prepared call inside the candidate's process. Latencies are milliseconds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal, Protocol

Mode = Literal["eager", "graph"]

SLOW_MS = 5.0
"""Above it a launch costs nothing next to the work: no graph."""

QUICK_SAMPLES = 5
"""Samples of the first estimate."""

FLUSH_LIMIT = 256 << 20
FLUSH_L2_MULTIPLE = 4


@dataclass(frozen=True)
class Estimate:
    """First look at a call: latency of each mode."""

    eager_ms: float
    graph_ms: float | None = None
    note: str = ""


class HostStopwatch:
    """Wall time of single synchronous calls: every call has its own values, so none is repeated."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def prepare(self) -> Estimate:
        self._sample()  # whatever is left to do once
        return Estimate(eager_ms=self._sample())

    def time(self, mode: Mode, samples: int) -> list[float]:
        return [self._sample() for _ in range(samples)]

    def _sample(self) -> float:
        start = perf_counter_ns()
        self._call()
        return (perf_counter_ns() - start) / 1e6


class Ring(Protocol):
    """Draws that wait in device memory, for calls too short to have the judge between them."""

    def load(self, slot: int) -> None:
        """Copy the inputs of `slot` (from 1) to where the call reads them; clear the outputs."""

    def keep(self, slot: int) -> None:
        """Copy what the call wrote to the outputs of `slot`."""


class CudaStopwatch:
    """Device time between events, the L2 cache flushed before each sample.

    Eager mode calls the kernel as a user would; graph mode replays one captured call, which takes
    the launch cost of Python and of several kernels away. Several samples run through the ring;
    a single one runs on what the judge wrote in place.
    """

    def __init__(self, call: Callable[[], Any], flush: Callable[[], None], ring: Ring) -> None:
        self._call = call
        self._flush = flush
        self._ring = ring
        self._graph: Any = None

    def prepare(self) -> Estimate:
        import torch

        torch.cuda.synchronize()
        self._call()
        torch.cuda.synchronize()
        eager = self._quick("eager")
        if eager > SLOW_MS:
            return Estimate(eager_ms=eager, note="no graph: slow call")
        note = self._capture()
        graph = self._quick("graph") if self._graph else None
        return Estimate(eager, graph, note)

    def time(self, mode: Mode, samples: int) -> list[float]:
        import torch

        marks = [self._sample(mode, slot if samples > 1 else 0) for slot in range(1, samples + 1)]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in marks]

    def _quick(self, mode: Mode) -> float:
        return statistics.median(self.time(mode, 1)[0] for _ in range(QUICK_SAMPLES))

    def _sample(self, mode: Mode, slot: int) -> tuple[Any, Any]:
        """Launch one timed call; returns the events before and after it. Slot 0: in place."""
        import torch

        run = self._graph.replay if mode == "graph" else self._call
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if slot:
            self._ring.load(slot)
        # After the copies, which would leave inputs and outputs in the cache; what the change from
        # another process costs falls here too.
        self._flush()
        start.record()
        run()
        end.record()
        if slot:
            self._ring.keep(slot)
        return start, end

    def _capture(self) -> str:
        """Capture one call; returns '' or why that is impossible."""
        import torch

        stream = torch.cuda.current_stream()
        try:
            side = torch.cuda.Stream()
            side.wait_stream(stream)
            with torch.cuda.stream(side):
                self._call()
            stream.wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._call()
            graph.replay()
            torch.cuda.synchronize()
        except Exception as error:
            # A call that waits for the device or allocates cannot be captured; that is no fault.
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own stream current
            torch.cuda.synchronize()
            return f"no graph: {error}"
        self._graph = graph
        return ""


def l2_flush() -> Callable[[], None]:
    """A call that empties the device's L2 cache by reading a buffer several times as large.

    Reading, not writing: dirty lines left by a write would be written back while the timed kernel
    reads, and be charged to it (for a kernel that reads 30 MB that doubles the traffic).
    """
    import torch

    l2 = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) or (64 << 20)
    nbytes = min(FLUSH_LIMIT, FLUSH_L2_MULTIPLE * l2)
    buffer = torch.zeros(nbytes // 4, dtype=torch.int32, device="cuda")
    sink = torch.zeros((), dtype=torch.int64, device="cuda")

    def flush() -> None:
        torch.sum(buffer, dim=0, out=sink)

    return flush
