"""A population that proposes what another run proposed, in that run's order.

Everything else is as in a search: archives, migration, epochs, the budget, resume.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import ray

from evaluators.schema import Definition
from evolve.config import RunConfig
from evolve.population import Population
from evolve.recording import kept
from evolve.store import Store
from islands.program import Program


class Player(Population):
    """Proposes the programs of a recording that the run's store does not have yet."""

    def __init__(self, config: RunConfig, definition: Definition, programs: list[Program]) -> None:
        super().__init__(config, definition)
        self._programs = deque(programs)

    def ask(self, island: int) -> Any:
        """Reference to the recording's next Program, whichever island it is of; None at its end."""
        return ray.put(self._programs.popleft() if self._programs else None)


def population(store: Store, config: RunConfig, definition: Definition) -> Population:
    """The population of a run: a player where it repeats another."""
    recording = kept(store)
    if recording is None:
        return Population(config, definition)
    left = [program for program in recording.programs if not store.has(program.id)]
    return Player(config, definition, left)
