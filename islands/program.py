"""A program: a solution inside a population, with its identity and where it came from."""

from __future__ import annotations

import hashlib

from pydantic import Field

from evaluators.schema import Record, Solution
from islands.source import normalise

__all__ = ["Program", "normalise", "program_id"]


def program_id(solution: Solution) -> str:
    """32 hex characters over definition, language, entry point and normalised sources.

    Solutions that differ in comments, docstrings, layout, name or author share an id.
    """
    spec = solution.spec
    h = hashlib.sha256()
    for part in (solution.definition, spec.language.value, spec.entry_point):
        h.update(part.encode() + b"\0")
    for source in sorted(solution.sources, key=lambda s: s.path):
        text = normalise(spec.language, source.content, source.path)
        h.update(source.path.encode() + b"\0" + text.encode(errors="surrogatepass") + b"\0")
    return h.hexdigest()[:32]


class Program(Record):
    """A solution proposed by an emitter.

    `ordinal` is the number of the proposal on its island, `parents` the ids of the programs it was
    made from, `note` a line for people about what changed.
    """

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    solution: Solution
    parents: tuple[str, ...] = ()
    island: int = Field(default=0, ge=0)
    emitter: str = "seed"
    ordinal: int = Field(default=0, ge=0)
    note: str = ""

    @classmethod
    def of(
        cls,
        solution: Solution,
        *,
        parents: tuple[str, ...] = (),
        island: int = 0,
        emitter: str = "seed",
        ordinal: int = 0,
        note: str = "",
    ) -> Program:
        """Program of `solution`, with the id computed from it."""
        return cls(
            id=program_id(solution),
            solution=solution,
            parents=parents,
            island=island,
            emitter=emitter,
            ordinal=ordinal,
            note=note,
        )
