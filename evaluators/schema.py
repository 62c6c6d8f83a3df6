"""Records that every part of the project speaks: definition, workload, solution, evaluation.

Field names follow FlashInfer Trace (https://github.com/flashinfer-ai/flashinfer-bench), so that
definitions, workloads and solutions travel in and out unchanged. All records are frozen, refuse
unknown fields and cannot be built in a contradictory state.
"""

from __future__ import annotations

import hashlib
import math
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LOG_LIMIT = 4096
"""Most characters of log kept with one evaluation."""

Dtype = Literal[
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint8", "bool",
]  # fmt: skip


class Record(BaseModel):
    """Base of all records: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Axis(Record):
    """One axis of a definition: fixed (`const`, with a value) or set by the workload (`var`)."""

    type: Literal["const", "var"]
    value: int | None = Field(default=None, ge=0)
    description: str | None = None

    @model_validator(mode="after")
    def _value_iff_const(self) -> Axis:
        if (self.type == "const") != (self.value is not None):
            raise ValueError("a const axis needs a value and a var axis takes none")
        return self


class TensorSpec(Record):
    """Shape (axis names; `None` for a scalar) and dtype of one input or output."""

    shape: tuple[str, ...] | None
    dtype: Dtype
    description: str | None = None


class Definition(Record):
    """One exact operator spec. The order of inputs, then outputs, is a kernel's ABI."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    op_type: str = Field(min_length=1)
    axes: dict[str, Axis]
    inputs: dict[str, TensorSpec] = Field(min_length=1)
    outputs: dict[str, TensorSpec] = Field(min_length=1)
    constraints: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str | None = None
    reference: str | None = None
    custom_inputs_entrypoint: str | None = None

    @model_validator(mode="after")
    def _shapes_use_known_axes(self) -> Definition:
        for name, spec in (*self.inputs.items(), *self.outputs.items()):
            for axis in spec.shape or ():
                if axis not in self.axes:
                    raise ValueError(f"{name!r} uses axis {axis!r}, which axes does not declare")
        return self

    @property
    def const_axes(self) -> dict[str, int]:
        """Names and values of the const axes."""
        return {k: a.value for k, a in self.axes.items() if a.value is not None}

    def shape_of(self, spec: TensorSpec, axes: dict[str, int]) -> tuple[int, ...]:
        """Concrete shape of `spec` for a workload's var `axes`. KeyError: an axis is missing."""
        known = {**self.const_axes, **axes}
        return tuple(known[axis] for axis in spec.shape or ())


class RandomInput(Record):
    type: Literal["random"] = "random"


class ScalarInput(Record):
    type: Literal["scalar"] = "scalar"
    value: bool | int | float


class SafetensorsInput(Record):
    type: Literal["safetensors"] = "safetensors"
    path: str
    tensor_key: str


InputSpec = Annotated[RandomInput | ScalarInput | SafetensorsInput, Field(discriminator="type")]


class Workload(Record):
    """Concrete values for a definition's var axes, and how the inputs are made.

    `make` holds what the operator's `make_inputs` needs beyond the axes (for example the sequence
    lengths of a ragged batch); `weight` is the workload's share in a score; `source` says where the
    workload is from (`sampled`, `fixed`, a trace file's name).
    """

    uuid: str = Field(min_length=1)
    axes: dict[str, Annotated[int, Field(ge=0)]]
    inputs: dict[str, InputSpec] = Field(default_factory=dict)
    make: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    weight: float = Field(default=1.0, gt=0)
    source: str = "sampled"

    @property
    def label(self) -> str:
        """Short human-readable name, such as `batch_size=16 seq_len=1024`."""
        shown = self.make.get("label")
        return str(shown) if shown else " ".join(f"{k}={v}" for k, v in self.axes.items())


class Language(StrEnum):
    TRITON = "triton"
    TILELANG = "tilelang"
    CUDA = "cuda"
    CPP = "cpp"
    PYTHON = "python"  # peers only: plain torch or a library call


class SourceFile(Record):
    path: str = Field(min_length=1)
    content: str = Field(min_length=1)

    @field_validator("path")
    @classmethod
    def _relative(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"source path must be relative without '..': {path}")
        return path


class BuildSpec(Record):
    """How a solution is built. `entry_point` is `file::function`."""

    language: Language
    target_hardware: tuple[str, ...] = Field(min_length=1)
    entry_point: str
    dependencies: tuple[str, ...] = ()
    destination_passing_style: bool = True
    binding: Literal["tvm-ffi", "torch"] | None = None

    @field_validator("entry_point")
    @classmethod
    def _file_and_function(cls, entry: str) -> str:
        file, _, function = entry.partition("::")
        if not file or not function.isidentifier():
            raise ValueError(f"entry_point must be '<file>::<function>', got {entry!r}")
        return entry

    @property
    def entry_file(self) -> str:
        return self.entry_point.partition("::")[0]

    @property
    def entry_function(self) -> str:
        return self.entry_point.partition("::")[2]


class Solution(Record):
    """Source files and build spec of one kernel; valid as a FlashInfer-Bench solution."""

    name: str = Field(min_length=1)
    definition: str = Field(min_length=1)
    author: str = Field(min_length=1)
    spec: BuildSpec
    sources: tuple[SourceFile, ...] = Field(min_length=1)
    description: str | None = None

    @model_validator(mode="after")
    def _entry_file_present_once(self) -> Solution:
        paths = [s.path for s in self.sources]
        if len(set(paths)) != len(paths):
            raise ValueError("two sources have the same path")
        if self.spec.entry_file not in paths:
            raise ValueError(f"entry file {self.spec.entry_file!r} is not among the sources")
        return self

    @property
    def entry_source(self) -> str:
        """Text of the file that holds the entry point."""
        return next(s.content for s in self.sources if s.path == self.spec.entry_file)

    def with_entry_source(self, content: str) -> Solution:
        """Copy with the entry file's text replaced."""
        sources = tuple(
            SourceFile(path=s.path, content=content) if s.path == self.spec.entry_file else s
            for s in self.sources
        )
        return self.model_copy(update={"sources": sources})

    def digest(self) -> str:
        """Hex SHA-256 over language, entry point and exact sources (32 characters)."""
        h = hashlib.sha256()
        for part in (self.definition, self.spec.language.value, self.spec.entry_point):
            h.update(part.encode() + b"\0")
        for source in self.sources:
            h.update(source.path.encode() + b"\0" + source.content.encode() + b"\0")
        return h.hexdigest()[:32]


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
    the wall time of each stage (`build`, `correctness`, `latency`, `wait`). `started`: Unix time.
    `rung`: `screen` when it was timed on some of the workloads only, with few samples.
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


class Judged(Record):
    """What all judged calls of one workload or case came to.

    `budget_used`: the largest error over all calls and outputs as a part of what is allowed
    (1.0: as much as that).
    """

    workload: str
    label: str
    kind: Literal["workload", "case"] = "workload"
    calls: int = Field(default=0, ge=0)
    failures: int = Field(default=0, ge=0)
    budget_used: float = 0.0


class Replays(Record):
    """Judged calls of one solution beyond its evaluation, each on values of its own.

    `calls` were made, `failures` says which of them were wrong and how. Bytes: memory of the
    candidate's process (RAM on the CPU, torch's on CUDA) before most calls, after the last one, and
    at its peak. `launches`: '' when its own kernels did the work (on the CPU: not asked),
    else which did, or why that is not available (see evaluators.launches).
    """

    device: Literal["cpu", "cuda"]
    calls: int = Field(ge=0)
    failures: tuple[str, ...] = ()
    judged: tuple[Judged, ...] = ()
    launches: str = ""
    start_bytes: int = Field(default=0, ge=0)
    final_bytes: int = Field(default=0, ge=0)
    peak_bytes: int = Field(default=0, ge=0)
