"""The contract of an emitter: it proposes new programs and learns from their outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evaluators.schema import Evaluation, Solution
from islands.archive import AddStatus, Archive
from islands.program import Program


@dataclass(frozen=True)
class Proposal:
    """A new solution, the ids of the programs it was made from, and a line about what changed."""

    solution: Solution
    parents: tuple[str, ...]
    note: str = ""


class Emitter(ABC):
    """Proposes programs from an archive's elites.

    Contract:

    - State is a fold over the calls of `learn` and `known`: an emitter that gets the same calls in
      the same order proposes the same programs. `propose` changes nothing but caches.
    - All randomness comes from the generator passed to `propose`.
    - A proposal is never a program of which the emitter was told by `learn` or `known`.
    - `propose` never raises on any source that an archive can hold, and leaves the archive alone.
    - All of this holds for `follow_up` as well.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self._known: set[str] = set()

    @abstractmethod
    def propose(self, archive: Archive, rng: np.random.Generator) -> Proposal | None:
        """A new program made from elites of `archive`; None when there is nothing left to try."""

    def follow_up(self, archive: Archive, rng: np.random.Generator) -> Proposal | None:
        """A proposal that a recent gain asks for and that waits for no turn; None as a rule."""
        return None

    def learn(self, program: Program, evaluation: Evaluation, status: AddStatus) -> None:
        """Told of every evaluation on the island, whoever proposed the program."""
        self._known.add(program.id)

    def known(self, program_id: str) -> None:
        """Told of a program that is under way or was evaluated elsewhere: not to be proposed."""
        self._known.add(program_id)
