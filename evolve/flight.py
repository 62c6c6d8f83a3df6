"""What a search has under way: jobs, and the references that will bring their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evolve.store import Kind
from islands.program import Program


@dataclass
class Job:
    """A program to be evaluated; `tries` counts evaluators that died under it."""

    program: Program
    kind: Kind
    tries: int = 0


@dataclass
class Flight:
    """Everything that has been started and not come back.

    By reference: the island asked, the job evaluated, the seq whose outcome an island will tell.
    """

    asks: dict[Any, int] = field(default_factory=dict)
    evaluations: dict[Any, Job] = field(default_factory=dict)
    outcomes: dict[Any, int] = field(default_factory=dict)

    def refs(self) -> list[Any]:
        return [*self.asks, *self.evaluations, *self.outcomes]
