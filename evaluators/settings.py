"""Limits and effort of an evaluation. Imported by the driver too: no heavy imports here."""

from __future__ import annotations

from pydantic import Field

from evaluators.schema import Record


class EvaluatorSettings(Record):
    """Deadlines in seconds, memory in bytes; None lets the device decide.

    `slots`: evaluations that may overlap on one device. `memory_bytes`: most host memory a
    candidate and its children may hold. `input_fraction`: share of the device's memory that one
    epoch's inputs may take. `samples`: paired latency samples per workload wanted at least,
    `latency_s`: wall time that the latency stage of one evaluation aims at, over all workloads.
    """

    slots: int | None = Field(default=None, ge=1)
    build_deadline_s: float = Field(default=90.0, gt=0)
    run_deadline_s: float = Field(default=10.0, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    input_fraction: float = Field(default=0.5, gt=0, le=0.9)
    samples: int = Field(default=20, ge=3)
    latency_s: float | None = Field(default=None, gt=0)
