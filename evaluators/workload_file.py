"""The file `kernels/<operator>/workloads.toml`: what it may say, and how it is read.

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
[distribution.verification]      # variables that verification draws otherwise, so that a short
seq_len = { log_uniform = [900, 131072] }                               # list of choices is left

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

Choices are listed from small to large: samples are stratified by quantile, and lowering a quantile
is how a sample is made to fit into memory.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from evaluators.catalog import CatalogError, explain, fits, read_toml
from evaluators.schema import Definition, Record, Workload


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


class Block(Record):
    """What all blocks share: which definitions and devices they are for."""

    definitions: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ("cuda", "cpu")
    scalars: dict[str, bool | int | float] = Field(default_factory=dict)

    def fits(self, definition: Definition, device: str) -> bool:
        return device in self.devices and fits(definition.name, self.definitions)


class Distribution(Block):
    """A `[[distribution]]` block."""

    samples: int = Field(default=6, ge=1)
    variables: dict[str, Variable] = Field(min_length=1)
    verification: dict[str, Variable] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _overrides_known(self) -> Distribution:
        unknown = set(self.verification) - set(self.variables)
        if unknown:
            raise ValueError(f"verification has unknown variables {sorted(unknown)}")
        return self


class Report(Block):
    """A `[[report]]` block."""

    grid: dict[str, tuple[int | float | str, ...]] = Field(min_length=1)


class Trace(Block):
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


def load(folder: Path) -> WorkloadFile:
    """The operator folder's `workloads.toml`; CatalogError names the field that is wrong."""
    path = folder / "workloads.toml"
    try:
        return WorkloadFile.model_validate(read_toml(path))
    except ValidationError as error:
        raise CatalogError(f"{folder.name}/workloads.toml: {explain(error)}") from error
