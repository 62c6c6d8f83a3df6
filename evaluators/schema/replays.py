"""How it stands many calls more: judged calls beyond an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evaluators.schema.record import Record


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
