"""Times a prepared call inside the candidate's process. Latencies are milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["eager", "graph"]

SLOW_MS = 5.0
"""Above it a launch costs nothing next to the work: no graph, no discarded first sample."""

QUICK_SAMPLES = 5
"""Samples of the first estimate."""

FLUSH_LIMIT = 256 << 20
FLUSH_L2_MULTIPLE = 4


@dataclass(frozen=True)
class Estimate:
    """First look at a call: median latency of each mode, and wall time a sample costs besides."""

    eager_ms: float
    graph_ms: float | None = None
    overhead_ms: float = 0.0
    note: str = ""


class HostStopwatch:
    """Wall time of synchronous calls; a sample repeats the call until it is long enough to time."""

    def __init__(self, call: Callable[[], Any], min_time_ms: float) -> None:
        self._call = call
        self._min_time_ms = min_time_ms
        self._repeats = 1

    def prepare(self) -> Estimate:
        self._call()
        quick = self._sample()
        while self._repeats * quick < self._min_time_ms:
            self._repeats = min(10 * self._repeats, 1 + int(self._min_time_ms / max(quick, 1e-6)))
            quick = self._sample()
        if quick < SLOW_MS:
            quick = statistics.median(self.time("eager", 3))
        return Estimate(eager_ms=quick, overhead_ms=(self._repeats - 1) * quick)

    def time(self, mode: Mode, samples: int) -> list[float]:
        if self._repeats > 1:
            self._call()  # the caches are another process's: a call that is not counted
        return [self._sample() for _ in range(samples)]

    def _sample(self) -> float:
        start = time.perf_counter()
        for _ in range(self._repeats):
            self._call()
        return (time.perf_counter() - start) * 1e3 / self._repeats


class CudaStopwatch:
    """Device time between events, the L2 cache flushed before each sample.

    Eager mode calls the kernel as a user would; graph mode replays one captured call, which takes
    the launch cost of Python and of several kernels away.
    """

    def __init__(self, call: Callable[[], Any], flush: Callable[[], None]) -> None:
        self._call = call
        self._flush = flush
        self._graph: Any = None

    def prepare(self) -> Estimate:
        import torch

        torch.cuda.synchronize()
        self._call()
        torch.cuda.synchronize()
        eager = statistics.median(self.time("eager", QUICK_SAMPLES))
        if eager > SLOW_MS:
            return Estimate(
                eager_ms=eager, overhead_ms=self._flush_ms(), note="no graph: slow call"
            )
        note = self._capture()
        graph = statistics.median(self.time("graph", QUICK_SAMPLES)) if self._graph else None
        return Estimate(eager, graph, self._flush_ms(), note)

    def time(self, mode: Mode, samples: int) -> list[float]:
        import torch

        run = self._graph.replay if mode == "graph" else self._call
        # The first sample after another process had the device pays for the switch: drop it.
        extra = 0 if samples == 1 else 1
        marks = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(samples + extra)
        ]
        for start, end in marks:
            self._flush()
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in marks[extra:]]

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

    def _flush_ms(self) -> float:
        import torch

        start = time.perf_counter()
        self._flush()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3


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
