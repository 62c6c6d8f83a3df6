"""Workloads of a definition: which shapes the search sees, which it never sees, which tables show.

They are declared in `kernels/<operator>/workloads.toml` (see `evaluators/workload_file.py`).

A sample is a Latin hypercube: of n samples, number i takes its quantile of the first variable from
[i/n, (i+1)/n), so every epoch covers small and large; the other variables are stratified likewise,
in random order. A sample whose tensors exceed `max_bytes` has the quantiles of its later variables,
then of all, lowered until it fits. A trace row reaches `axes_of` as the sample
`{"trace_axes": {...}}`.

Everything is a function of (definition, seed, epoch). `axes_of` comes from `operator.py`, which
imports torch: call these functions in processes that evaluate.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.catalog import CatalogError, Operator, load_module
from evaluators.schema import (
    Definition,
    Dtype,
    InputSpec,
    RandomInput,
    ScalarInput,
    TensorSpec,
    Workload,
)
from evaluators.workload_file import Trace, Variable, load

Scalar = bool | int | float
Floats = np.ndarray[Any, np.dtype[np.float64]]

ITEM_BYTES: dict[Dtype, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

CLIPS = tuple(k / 16 for k in range(16, -1, -1))
"""Factors on a sample's quantiles that are tried, in turn, until its tensors fit."""

SEARCH, VERIFICATION = 0, 1
"""Independent random streams of one seed."""


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
    draw = _Draw(operator, definition, device, max_bytes, _rng(definition, SEARCH, seed, epoch))
    real = draw.real(searched=True)
    if count is not None:
        real = real[: count // 3]
        count -= len(real)
    return _merge(draw.sampled(count, verification=False) + real)


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
    draw = _Draw(operator, definition, device, max_bytes, _rng(definition, VERIFICATION, seed, 0))
    return _merge(draw.sampled(count, verification=True) + draw.real(searched=False))


def report_grid(
    operator: Operator, definition: Definition, device: str, max_bytes: int | None = None
) -> list[Workload]:
    """The fixed grid of published tables, without points that exceed `max_bytes`. CatalogError."""
    points: list[Workload] = []
    for block in load(operator.folder).report:
        if block.fits(definition, device):
            for values in itertools.product(*block.grid.values()):
                sample = dict(zip(block.grid, values, strict=True))
                points.append(_workload(operator, definition, sample, block.scalars, 0, "fixed"))
    if not points:
        where = f"{operator.name}/workloads.toml"
        raise CatalogError(f"{where}: no report fits {definition.name} on {device}")
    return [w for w in points if max_bytes is None or tensor_bytes(definition, w.axes) <= max_bytes]


def input_bytes(definition: Definition, axes: Mapping[str, int]) -> int:
    """Bytes of all input tensors of a workload with these var axes."""
    return _total(definition, definition.inputs.values(), axes)


def tensor_bytes(definition: Definition, axes: Mapping[str, int]) -> int:
    """Bytes of all input and output tensors of a workload with these var axes."""
    return input_bytes(definition, axes) + _total(definition, definition.outputs.values(), axes)


def _total(definition: Definition, specs: Iterable[TensorSpec], axes: Mapping[str, int]) -> int:
    return sum(
        math.prod(definition.shape_of(spec, dict(axes))) * ITEM_BYTES[spec.dtype]
        for spec in specs
        if spec.shape is not None
    )


def _rng(definition: Definition, stream: int, seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, epoch, zlib.crc32(definition.name.encode())])


@dataclass(frozen=True)
class _Draw:
    """One drawing of workloads from an operator's file with one random generator."""

    operator: Operator
    definition: Definition
    device: str
    max_bytes: int
    rng: np.random.Generator

    def sampled(self, count: int | None, *, verification: bool) -> list[Workload]:
        """`count` workloads of the first distribution that fits, in rising first variable."""
        blocks = [
            b
            for b in load(self.operator.folder).distribution
            if b.fits(self.definition, self.device)
        ]
        if not blocks:
            where = f"{self.operator.name}/workloads.toml"
            what = f"{self.definition.name} on {self.device}"
            raise CatalogError(f"{where}: no distribution fits {what}")
        block = blocks[0]
        variables = {**block.variables, **(block.verification if verification else {})}
        n = block.samples if count is None else count
        seeds = self.rng.integers(2**31, size=n)
        points = _hypercube(n, len(variables), self.rng)
        return [
            self._fitted(variables, block.scalars, point, int(seed))
            for point, seed in zip(points, seeds, strict=True)
        ]

    def _fitted(
        self,
        variables: Mapping[str, Variable],
        scalars: Mapping[str, Scalar],
        quantiles: Floats,
        seed: int,
    ) -> Workload:
        """The workload at these quantiles, lowered as far as `max_bytes` demands."""
        needed = 0
        for first, rest in [(1.0, c) for c in CLIPS] + [(c, 0.0) for c in CLIPS[1:]]:
            lowered = quantiles * [first, *[rest] * (len(quantiles) - 1)]
            sample = {
                name: variable.quantile(float(q))
                for (name, variable), q in zip(variables.items(), lowered, strict=True)
            }
            made = _workload(self.operator, self.definition, sample, scalars, seed, "sampled")
            needed = tensor_bytes(self.definition, made.axes)
            if needed <= self.max_bytes:
                return made
        raise CatalogError(
            f"the smallest workload of {self.definition.name} needs {needed:,} bytes, "
            f"and {self.max_bytes:,} are allowed"
        )

    def real(self, *, searched: bool) -> list[Workload]:
        """Some of the trace workloads that the search may see, or of those that it may not."""
        drawn: list[Workload] = []
        for block in load(self.operator.folder).trace:
            if not block.fits(self.definition, self.device):
                continue
            pool = [
                workload
                for workload in _read_trace(self.operator, self.definition, block)
                if block.searchable(workload) == searched
                and tensor_bytes(self.definition, workload.axes) <= self.max_bytes
            ]
            wanted = min(block.samples if searched else block.verify, len(pool))
            drawn.extend(pool[i] for i in sorted(self.rng.permutation(len(pool))[:wanted]))
        return drawn


def _hypercube(n: int, dimensions: int, rng: np.random.Generator) -> Floats:
    """Latin hypercube: float64 [n, dimensions] in [0, 1); the first column rises with the row."""
    columns = [np.arange(n), *(rng.permutation(n) for _ in range(dimensions - 1))]
    return (np.stack(columns, axis=1) + rng.random((n, dimensions))) / max(n, 1)


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
    scalars: Mapping[str, Scalar],
    seed: int,
    source: str,
) -> Workload:
    axes_of = load_module(operator).axes_of
    try:
        axes, make = axes_of(definition.model_dump(mode="json"), sample)
    except (KeyError, TypeError, ValueError) as error:
        where = f"{operator.name}/operator.py"
        raise CatalogError(f"{where}: axes_of failed for {sample}: {error!r}") from error
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
    facts = [definition.name, axes, make, dict(scalars), seed, source]
    identity = json.dumps(facts, sort_keys=True)
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
