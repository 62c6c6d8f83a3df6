"""What is computed: a definition with its axes, inputs and outputs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from evaluators.schema.record import Record

Dtype = Literal[
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint8", "bool",
]  # fmt: skip


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
