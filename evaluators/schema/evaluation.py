"""How well it computes it: status, correctness and latency of a program in one epoch."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator, model_validator

from evaluators.schema.record import Record

LOG_LIMIT = 4096
"""Most characters of log kept with one evaluation."""


class Status(StrEnum):
    PASSED = "PASSED"
    INVALID_SOURCE = "INVALID_SOURCE"
    COMPILE_ERROR = "COMPILE_ERROR"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    INCORRECT_SHAPE = "INCORRECT_SHAPE"
    INCORRECT_DTYPE = "INCORRECT_DTYPE"
    INCORRECT_NUMERICAL = "INCORRECT_NUMERICAL"
    NONDETERMINISTIC = "NONDETERMINISTIC"  # equal inputs, outputs that differ beyond rounding
    IMPLAUSIBLE = "IMPLAUSIBLE"  # faster than the device can be, or than the judge's own clock says
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DUPLICATE = "DUPLICATE"  # built, and not run: its code is that of a program evaluated before


class WorkloadResult(Record):
    """Correctness and latency of one program on one workload.

    `latency_ms` is the lower of `eager_ms` and `graph_ms` medians (eager alone where graphs do not
    apply); `speedup` = anchor latency / candidate latency with a bootstrap 95% interval
    `[speedup_low, speedup_high]` from paired samples. Errors are maxima over the outputs.
    """

    workload: str
    max_absolute_error: float
    max_relative_error: float
    latency_ms: float = Field(gt=0)
    anchor_ms: float = Field(gt=0)
    speedup: float = Field(gt=0)
    speedup_low: float = Field(gt=0)
    speedup_high: float = Field(gt=0)
    weight: float = Field(default=1.0, gt=0)
    eager_ms: float | None = None
    graph_ms: float | None = None

    @model_validator(mode="after")
    def _interval(self) -> WorkloadResult:
        if not self.speedup_low <= self.speedup <= self.speedup_high:
            raise ValueError("speedup lies outside its interval")
        return self


class BuildFacts(Record):
    """What the compiler said. Zero or empty where it says nothing.

    `binary` is a hash of what was built, equal only for programs that do the same: host code and
    kernels.
    """

    seconds: float = 0.0
    kernels: tuple[str, ...] = ()
    shared_bytes: int = 0
    registers: int = 0
    spills: int = 0
    num_warps: int = 0
    num_stages: int = 0
    target: str = ""
    binary: str = ""


class Evaluation(Record):
    """Outcome of one program in one epoch.

    A PASSED evaluation has results, and only it has; `score` is the weighted geometric mean of the
    results' speedups, with `score_low` and `score_high` its 95% interval. `seconds` holds
    the wall time of each stage (`build`, `correctness`, `latency`, `contest`, `wait`). `started`:
    Unix time. `rung`: `screen` when it was timed on some of the workloads only, with few samples.
    """

    status: Status
    epoch: int = Field(ge=0)
    log: str = ""
    results: tuple[WorkloadResult, ...] = ()
    rung: Literal["screen", "full"] = "full"
    build: BuildFacts | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    started: float = 0.0

    @field_validator("log")
    @classmethod
    def _cap(cls, log: str) -> str:
        if len(log) <= LOG_LIMIT:
            return log
        half = (LOG_LIMIT - 20) // 2
        return f"{log[:half]}\n... cut ...\n{log[-half:]}"

    @model_validator(mode="after")
    def _results_iff_passed(self) -> Evaluation:
        if (self.status is Status.PASSED) != bool(self.results):
            raise ValueError("a PASSED evaluation has results, and only a PASSED one has")
        return self

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    def _mean(self, field: str) -> float:
        total = sum(r.weight for r in self.results)
        if not total:
            return 0.0
        return math.exp(sum(r.weight * math.log(getattr(r, field)) for r in self.results) / total)

    @property
    def score(self) -> float:
        """Weighted geometric mean of speedup over the anchor; 0.0 unless PASSED."""
        return self._mean("speedup")

    @property
    def score_low(self) -> float:
        """Lower end of the score's 95% interval (workloads' errors taken as independent)."""
        return self.score * math.exp(-self._half_width()) if self.results else 0.0

    @property
    def score_high(self) -> float:
        """Upper end of the score's 95% interval (workloads' errors taken as independent)."""
        return self.score * math.exp(self._half_width()) if self.results else 0.0

    def _half_width(self) -> float:
        total = sum(r.weight for r in self.results)
        squares = sum(
            (r.weight * math.log(r.speedup_high / r.speedup_low) / 2) ** 2 for r in self.results
        )
        return math.sqrt(squares) / total
