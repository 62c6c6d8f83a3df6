'''Workloads of a definition: which shapes the search sees, which it never sees, which tables show.

They are declared in `kernels/<operator>/workloads.toml`:

```toml
[default]                        # the definition of a run that names none, per device
cuda = "gqa_paged_decode_h32_kv8_d128_ps16"
cpu = "gqa_paged_decode_f32_h8_kv2_d64_ps16"

[[distribution]]                 # the first block that fits (definition, device) is used
definitions = ["*_d128_*"]       # globs; default: all
devices = ["cuda"]               # default: cuda and cpu
samples = 6                      # workloads per epoch
scalars = { sm_scale = 0.0884 }  # values of scalar inputs, optional
[distribution.variables]         # random variables; `axes_of(definition, sample)` turns a sample of
batch_size = { choice = [1, 4, 16, 64], weights = [2, 1, 1, 1] }        # them into axes and make
seq_len = { log_uniform = [1024, 184320] }                              # integer, ends included
tail = { percentiles = [[1, 894], [50, 6909], [99, 85000]] }            # piecewise log-linear
shuffle = { uniform = [0, 2147483647] }                                 # integer, ends included

[[report]]                       # cartesian grid of published tables; never part of the search
definitions = ["*"]
devices = ["cuda"]
grid = { batch_size = [1, 16, 64], seq_len = [1024, 16384, 131072] }

[[trace]]                        # real workloads: JSON lines with uuid, axes, scalars
definitions = ["*_ps1"]
file = "workloads_ps1.jsonl"     # in the operator's folder
search_share = 0.5               # share (by a hash of uuid) that the search may see
samples = 2                      # how many of those an epoch draws
verify = 8                       # how many of the others a verification draws
```

A sample is a Latin hypercube: of n samples, number i takes its quantile of the first variable from
[i/n, (i+1)/n), so every epoch covers small and large; the other variables are stratified likewise,
in random order. Choices are listed from small to large for that reason. A sample whose tensors
exceed `max_bytes` has the quantiles of its later variables, then of all, lowered until it fits.
A trace row reaches `axes_of` as the sample `{"trace_axes": {...}}`.

Everything is a function of (definition, seed, epoch). `axes_of` comes from `operator.py`, which
imports torch: call these functions in processes that evaluate.
'''

from __future__ import annotations

import hashlib
import itertools
import json
import math
import uuid
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from evaluators.catalog import CatalogError, Operator, explain, fits, load_module, read_toml
from evaluators.schema import (
    Definition,
    Dtype,
    InputSpec,
    RandomInput,
    Record,
    ScalarInput,
    TensorSpec,
    Workload,
)

ITEM_BYTES: dict[Dtype, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

CLIPS = tuple(k / 16 for k in range(16, -1, -1))
"""Factors on a sample's quantiles that are tried, in turn, until its tensors fit."""

SEARCH, VERIFICATION = 0, 1
"""Independent random streams of one seed."""


class Variable(Record):
    """One random variable; exactly one kind of distribution is set. Values are integers, except
    that choices are taken as they are."""

    choice: tuple[int | float | str, ...] | None = Field(default=None, min_length=1)
    weights: tuple[float, ...] | None = None
    uniform: tuple[int, int] | None = None
    log_uniform: tuple[int, int] | None = None
    percentiles: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=2)

    @model_validator(mode="after")
    def _one_kind(self) -> Variable:
        kinds = (self.choice, self.uniform, self.log_uniform, self.percentiles)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("set exactly one of choice, uniform, log_uniform, percentiles")
        if self.weights is not None and len(self.weights) != len(self.choice or ()):
            raise ValueError("weights and choice differ in length")
        if self.weights is not None and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError("weights must not be negative and not all zero")
        for low, high in filter(None, (self.uniform, self.log_uniform)):
            if low > high or (self.log_uniform and low < 1):
                raise ValueError(f"[{low}, {high}] is not a range")
        points = self.percentiles or ()
        if any(a[0] >= b[0] or a[1] > b[1] for a, b in itertools.pairwise(points)):
            raise ValueError("percentiles must rise")
        if points and (points[0][1] <= 0 or points[0][0] < 0 or points[-1][0] > 100):
            raise ValueError("percentiles are [percent, positive value]")
        return self

    def quantile(self, q: float) -> Any:
        """The value below which a share `q` in [0, 1) of the distribution lies."""
        if self.choice is not None:
            weights = self.weights or (1.0,) * len(self.choice)
            edges = list(itertools.accumulate(weights))
            place = next((i for i, e in enumerate(edges) if q * edges[-1] < e), len(edges) - 1)
            return self.choice[place]
        if self.uniform is not None:
            low, high = self.uniform
            return min(high, low + int(q * (high - low + 1)))
        if self.log_uniform is not None:
            low, high = self.log_uniform
            return min(high, int(low * ((high + 1) / low) ** q))
        points = np.array(self.percentiles, dtype=float)
        return round(float(np.exp(np.interp(100 * q, points[:, 0], np.log(points[:, 1])))))


class _Block(Record):
    definitions: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ("cuda", "cpu")
    scalars: dict[str, bool | int | float] = Field(default_factory=dict)

    def fits(self, definition: Definition, device: str) -> bool:
        return device in self.devices and fits(definition.name, self.definitions)


class Distribution(_Block):
    """A `[[distribution]]` block."""

    samples: int = Field(default=6, ge=1)
    variables: dict[str, Variable] = Field(min_length=1)


class Report(_Block):
    """A `[[report]]` block."""

    grid: dict[str, tuple[int | float | str, ...]] = Field(min_length=1)


class Trace(_Block):
    """A `[[trace]]` block."""

    file: str
    search_share: float = Field(default=0.5, ge=0, le=1)
    samples: int = Field(default=2, ge=0)
    verify: int = Field(default=8, ge=0)

    def searchable(self, workload: Workload) -> bool:
        """Whether the search may see this workload; a fixed property of its uuid."""
        digest = hashlib.sha256(workload.uuid.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.search_share * 2**64


class WorkloadFile(Record):
    """All of `workloads.toml`."""

    default: dict[str, str] = Field(default_factory=dict)
    distribution: tuple[Distribution, ...] = ()
    report: tuple[Report, ...] = ()
    trace: tuple[Trace, ...] = ()


def search_sample(
    operator: Operator,
    definition: Definition,
    device: str,
    epoch: int,
    seed: int,
    max_bytes: int,
    count: int | None = None,
) -> list[Workload]:
    """The workloads of one epoch: `count` in all (default: as declared), real ones among them.

    At most a third of an explicit `count` are real workloads. Inputs and outputs of each fit into
    `max_bytes`. Equal workloads are merged into one of greater weight. Raises CatalogError.
    """
    rng = _rng(definition, SEARCH, seed, epoch)
    real = _draw_real(operator, definition, device, max_bytes, rng, searched=True)
    if count is not None:
        real = real[: count // 3]
        count -= len(real)
    return _merge(_sampled(operator, definition, device, max_bytes, rng, count) + real)


def verification_sample(
    operator: Operator,
    definition: Definition,
    device: str,
    seed: int,
    max_bytes: int,
    count: int | None = None,
) -> list[Workload]:
    """Workloads the search never saw: a random stream of its own and the withheld real ones.

    `count` is the number of sampled ones, default as declared. Raises CatalogError.
    """
    rng = _rng(definition, VERIFICATION, seed, 0)
    real = _draw_real(operator, definition, device, max_bytes, rng, searched=False)
    return _merge(_sampled(operator, definition, device, max_bytes, rng, count) + real)


def report_grid(
    operator: Operator, definition: Definition, device: str, max_bytes: int | None = None
) -> list[Workload]:
    """The fixed grid of published tables, without points that exceed `max_bytes`. CatalogError."""
    points: list[Workload] = []
    for block in _load(operator).report:
        if block.fits(definition, device):
            for values in itertools.product(*block.grid.values()):
                sample = dict(zip(block.grid, values, strict=True))
                points.append(_workload(operator, definition, sample, block.scalars, 0, "fixed"))
    if not points:
        raise CatalogError(f"{operator.name}/workloads.toml: no report fits {definition.name}")
    return [w for w in points if max_bytes is None or _bytes(definition, w.axes) <= max_bytes]


def input_bytes(definition: Definition, axes: Mapping[str, int]) -> int:
    """Bytes of all input tensors of a workload with these var axes."""
    return _total(definition, definition.inputs.values(), axes)


def output_bytes(definition: Definition, axes: Mapping[str, int]) -> int:
    """Bytes of all output tensors of a workload with these var axes."""
    return _total(definition, definition.outputs.values(), axes)


def _total(definition: Definition, specs: Iterable[TensorSpec], axes: Mapping[str, int]) -> int:
    return sum(
        math.prod(definition.shape_of(spec, dict(axes))) * ITEM_BYTES[spec.dtype]
        for spec in specs
        if spec.shape is not None
    )


def _bytes(definition: Definition, axes: Mapping[str, int]) -> int:
    return input_bytes(definition, axes) + output_bytes(definition, axes)


def _load(operator: Operator) -> WorkloadFile:
    content = read_toml(operator.folder / "workloads.toml")
    try:
        return WorkloadFile.model_validate(content)
    except ValidationError as error:
        raise CatalogError(f"{operator.name}/workloads.toml: {explain(error)}") from error


def _rng(definition: Definition, stream: int, seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, epoch, zlib.crc32(definition.name.encode())])


def _sampled(
    operator: Operator,
    definition: Definition,
    device: str,
    max_bytes: int,
    rng: np.random.Generator,
    count: int | None,
) -> list[Workload]:
    blocks = [b for b in _load(operator).distribution if b.fits(definition, device)]
    if not blocks:
        where = f"{operator.name}/workloads.toml"
        raise CatalogError(f"{where}: no distribution fits {definition.name} on {device}")
    block = blocks[0]
    n = block.samples if count is None else count
    seeds = rng.integers(2**31, size=n)
    return [
        _fitted(operator, definition, block, quantiles, int(seeds[i]), max_bytes)
        for i, quantiles in enumerate(_hypercube(n, len(block.variables), rng))
    ]


def _hypercube(n: int, dimensions: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Latin hypercube sample: float64 [n, dimensions] in [0, 1); the first column rises with row."""
    columns = [np.arange(n), *(rng.permutation(n) for _ in range(dimensions - 1))]
    return (np.stack(columns, axis=1) + rng.random((n, dimensions))) / max(n, 1)


def _fitted(
    operator: Operator,
    definition: Definition,
    block: Distribution,
    quantiles: np.ndarray[Any, Any],
    seed: int,
    max_bytes: int,
) -> Workload:
    """The workload at these quantiles, lowered as far as `max_bytes` demands."""
    later = [(1.0, clip) for clip in CLIPS]
    for first, rest in (*later, *((clip, 0.0) for clip in CLIPS[1:])):
        factors = np.array([first] + [rest] * (len(quantiles) - 1))
        sample = {
            name: variable.quantile(float(q))
            for (name, variable), q in zip(
                block.variables.items(), quantiles * factors, strict=True
            )
        }
        workload = _workload(operator, definition, sample, block.scalars, seed, "sampled")
        needed = _bytes(definition, workload.axes)
        if needed <= max_bytes:
            return workload
    raise CatalogError(
        f"the smallest workload of {definition.name} needs {needed:,} bytes, "
        f"and {max_bytes:,} are allowed"
    )


def _draw_real(
    operator: Operator,
    definition: Definition,
    device: str,
    max_bytes: int,
    rng: np.random.Generator,
    *,
    searched: bool,
) -> list[Workload]:
    drawn: list[Workload] = []
    for block in _load(operator).trace:
        if not block.fits(definition, device):
            continue
        pool = [
            workload
            for workload in _read_trace(operator, definition, block)
            if block.searchable(workload) == searched
            and _bytes(definition, workload.axes) <= max_bytes
        ]
        wanted = min(block.samples if searched else block.verify, len(pool))
        picks = sorted(rng.permutation(len(pool))[:wanted])
        drawn.extend(pool[i] for i in picks)
    return drawn


def _read_trace(operator: Operator, definition: Definition, block: Trace) -> list[Workload]:
    path = operator.folder / block.file
    where = f"{operator.name}/{block.file}"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{where} cannot be read: {error}") from error
    workloads = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            scalars = {**block.scalars, **row.get("scalars", {})}
            sample = {"trace_axes": dict(row["axes"])}
            seed = zlib.crc32(row["uuid"].encode()) & 0x7FFFFFFF
            made = _workload(operator, definition, sample, scalars, seed, block.file)
            workloads.append(made.model_copy(update={"uuid": str(row["uuid"])}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CatalogError(f"{where} line {number} is not a workload: {error!r}") from error
    return workloads


def _workload(
    operator: Operator,
    definition: Definition,
    sample: dict[str, Any],
    scalars: Mapping[str, bool | int | float],
    seed: int,
    source: str,
) -> Workload:
    axes, make = load_module(operator).axes_of(definition.model_dump(mode="json"), sample)
    wanted = {name for name, axis in definition.axes.items() if axis.type == "var"}
    if set(axes) != wanted:
        raise CatalogError(
            f"{operator.name}/operator.py: axes_of gave axes {sorted(axes)} for "
            f"{definition.name}, which has {sorted(wanted)}"
        )
    inputs: dict[str, InputSpec] = {
        name: ScalarInput(value=scalars[name]) if name in scalars else RandomInput()
        for name in definition.inputs
    }
    identity = json.dumps([definition.name, axes, make, dict(scalars), seed, source], sort_keys=True)
    name = str(uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16]))
    return Workload(uuid=name, axes=axes, inputs=inputs, make=make, seed=seed, source=source)


def _merge(workloads: list[Workload]) -> list[Workload]:
    """One workload for those that are equal but for their input values; weights add up."""
    merged: dict[str, Workload] = {}
    for workload in workloads:
        key = json.dumps([workload.axes, workload.make, workload.source], sort_keys=True)
        if key in merged:
            weight = merged[key].weight + workload.weight
            workload = merged[key].model_copy(update={"weight": weight})
        merged[key] = workload
    return list(merged.values())
