"""On what it is computed: values of the var axes, and how inputs are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from evaluators.schema.record import Record


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
