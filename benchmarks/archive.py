"""What the archive costs as programs add up: medians of adding and of sampling an elite."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from evaluators.schema import (
    BuildSpec,
    Evaluation,
    Language,
    Solution,
    SourceFile,
    Status,
    WorkloadResult,
)
from islands.archive import Archive
from islands.niche import AXES, Niche
from islands.program import Program
from islands.selection import select

SIZES = (1_000, 10_000, 100_000)
WINDOW = 1_000
"""Calls timed at each size: the last adds before it is reached, and the samples after."""


@dataclass(frozen=True)
class Cost:
    """Medians at one number of programs added: microseconds a call; `niches` are filled."""

    programs: int
    niches: int
    add_us: float
    sample_us: float
    select_us: float


def measure(sizes: tuple[int, ...] = SIZES, seed: int = 0, workloads: int = 8) -> list[Cost]:
    """Fills one archive up to each of `sizes` in turn.

    Programs fall into all niches of the grid; log scores are normal with a noise of 1% on each of
    `workloads` workloads. Making programs and evaluations is not timed.
    """
    rng = np.random.default_rng(seed)
    niches = [Niche(*values) for values in itertools.product(*AXES.values())]
    program, archive, added = _program(), Archive(), 0
    costs = []
    for size in sorted(sizes):
        adds = []
        for number in range(added, size):
            candidate = program.model_copy(update={"id": f"{number:032x}"})
            evaluation = _evaluation(math.exp(rng.normal(0, 0.3)), workloads)
            niche = niches[int(rng.integers(len(niches)))]
            start = time.perf_counter()
            archive.add(candidate, evaluation, niche)
            adds.append(time.perf_counter() - start)
        added = size
        samples = _timed(lambda: archive.sample(rng))
        selects = _timed(lambda: select(archive, rng))
        costs.append(
            Cost(size, len(archive), *(1e6 * median(t) for t in (adds[-WINDOW:], samples, selects)))
        )
    return costs


def _timed(call: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(WINDOW):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _program() -> Program:
    spec = BuildSpec(
        language=Language.TRITON, target_hardware=("cuda",), entry_point="kernel.py::run"
    )
    source = SourceFile(path="kernel.py", content="def run(x, y):\n    y.copy_(x)\n")
    solution = Solution(name="a", definition="a", author="a", spec=spec, sources=(source,))
    return Program.of(solution)


def _evaluation(score: float, workloads: int) -> Evaluation:
    result = WorkloadResult(
        workload="w",
        max_absolute_error=0.0,
        max_relative_error=0.0,
        latency_ms=1.0 / score,
        anchor_ms=1.0,
        speedup=score,
        speedup_low=score * 0.99,
        speedup_high=score * 1.01,
    )
    return Evaluation(status=Status.PASSED, epoch=0, results=(result,) * workloads)


if __name__ == "__main__":
    for cost in measure():
        print(
            f"{cost.programs:7,} programs, {cost.niches:6,} niches: add {cost.add_us:.2f} µs, "
            f"elite sampling {cost.sample_us:.2f} µs, parent selection {cost.select_us:.2f} µs"
        )
