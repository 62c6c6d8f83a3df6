"""The tuner: changes the values of one to three tunables of an elite.

It leans towards values that its template has not seen and towards values that did well, and away
from values and pairs of values that failed; of a few such mutations it takes the one of which a
draw from the template's main effects promises most. It never proposes an assignment twice, and goes
through what is left in order when chance finds nothing new. A new structure that gained is tuned at
once, ahead of its turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evaluators.schema import Evaluation
from evolve.emitters.experience import Experience
from evolve.emitters.rewrites import Rewrites
from evolve.emitters.space import Assignment, read, replaced
from islands.archive import AddStatus, Archive, Elite
from islands.emitter import Emitter, Proposal
from islands.program import Program, program_id
from islands.selection import ranked, select

PARENTS = 4
"""Elites tried by chance before what is left is gone through in order."""
CANDIDATES = 8
"""New mutations of one elite, of which the most promising is proposed."""
TRIES = 24
"""Mutations of one elite drawn to find them."""
CHANGES = (0.5, 0.3, 0.2)
"""Chances of changing one, two, three tunables."""
CACHE = 4096
"""Programs whose assignment is remembered, so that an elite is not read again."""


class Tuner(Emitter):
    """Mutates `# tune:` parameters. Nothing is left (None) once every elite's space was tried."""

    name = "tuner"

    def __init__(self) -> None:
        super().__init__()
        self._experiences: dict[str, Experience] = {}
        self._read: dict[str, tuple[Experience, Assignment] | None] = {}
        self._rewrites = Rewrites()

    def learn(self, program: Program, evaluation: Evaluation, status: AddStatus) -> None:
        super().learn(program, evaluation, status)
        read = self._read_program(program)
        if read is None:
            self._rewrites.learn(None, False, program, evaluation, status)
            return
        experience, values = read
        is_new = not experience.tried
        self._rewrites.learn(experience.space.key, is_new, program, evaluation, status)
        experience.tried.add(values)
        log_score = math.log(evaluation.score) if evaluation.passed else None
        experience.note(values, log_score, screened=evaluation.rung == "screen")

    def propose(self, archive: Archive, rng: np.random.Generator) -> Proposal | None:
        if not len(archive):
            return None
        for _ in range(PARENTS):
            proposal = self._by_chance(select(archive, rng), rng)
            if proposal is not None:
                return proposal
        for elite in ranked(archive):
            proposal = self._in_order(elite)
            if proposal is not None:
                return proposal
        return None

    def follow_up(self, archive: Archive, rng: np.random.Generator) -> Proposal | None:
        """A change of values of the best elite whose structure is new and gained."""
        for key in self._rewrites:
            elite = next((e for e in ranked(archive) if self._is_of(e, key)), None)
            proposal = elite and (self._by_chance(elite, rng) or self._in_order(elite))
            if proposal:
                return proposal
        return None

    def _is_of(self, elite: Elite, key: str) -> bool:
        read = self._read_program(elite.program)
        return read is not None and read[0].space.key == key

    def _by_chance(self, elite: Elite, rng: np.random.Generator) -> Proposal | None:
        read = self._read_program(elite.program)
        if read is None:
            return None
        experience, values = read
        for candidate in candidates(experience, values, rng):
            proposal = self._fresh(elite.program, experience, values, candidate)
            if proposal is not None:
                return proposal
        return None

    def _in_order(self, elite: Elite) -> Proposal | None:
        read = self._read_program(elite.program)
        if read is None:
            return None
        experience, values = read
        if experience.strangers(values) in experience.exhausted:
            return None
        for candidate in experience.space.near(values):
            proposal = self._fresh(elite.program, experience, values, candidate)
            if proposal is not None:
                return proposal
        experience.exhausted.add(experience.strangers(values))
        return None

    def _fresh(
        self, parent: Program, experience: Experience, values: Assignment, candidate: Assignment
    ) -> Proposal | None:
        """The proposal of an assignment, unless its program is known."""
        if candidate in experience.tried or candidate in experience.known:
            return None
        solution = parent.solution.with_entry_source(experience.space.render(candidate))
        if program_id(solution) in self._known:
            experience.known.add(candidate)
            return None
        note = ", ".join(
            f"{name} {old} -> {new}"
            for name, old, new in zip(experience.space.names, values, candidate, strict=True)
            if old != new
        )
        return Proposal(solution, (parent.id,), note)

    def _read_program(self, program: Program) -> tuple[Experience, Assignment] | None:
        if program.id not in self._read:
            if len(self._read) >= CACHE:
                self._read.clear()
            found = read(program.solution)
            if found is None:
                self._read[program.id] = None
            else:
                space, values = found
                experience = self._experiences.setdefault(space.key, Experience(space))
                self._read[program.id] = experience, values
        return self._read[program.id]


def candidates(
    experience: Experience, values: Assignment, rng: np.random.Generator
) -> list[Assignment]:
    """A few mutations of `values` not tried yet, the most promising first."""
    effects = experience.effects.draw(rng)
    found: dict[Assignment, float] = {}
    for _ in range(TRIES):
        candidate, changed = mutate(experience, values, rng)
        if candidate in found or candidate in experience.tried or not changed:
            continue
        if rng.random() < experience.trust(candidate, changed):
            found[candidate] = experience.effects.predict(effects, candidate)
            if len(found) == CANDIDATES:
                break
    return sorted(found, key=lambda candidate: -found[candidate])


def mutate(
    experience: Experience, values: Assignment, rng: np.random.Generator
) -> tuple[Assignment, list[int]]:
    """`values` with one to three changed by weight, and the places that changed."""
    places = [i for i, c in enumerate(experience.space.choices) if any(v != values[i] for v in c)]
    count = min(1 + pick(CHANGES, rng), len(places))
    changes: dict[int, str] = {}
    for _ in range(count):
        free = [i for i in places if i not in changes]
        weights = [1 + 2 * experience.unseen(i) / len(experience.space.choices[i]) for i in free]
        place = free[pick(weights, rng)]
        changes[place] = _value(experience, place, values[place], rng)
    return replaced(values, changes), list(changes)


def _value(experience: Experience, place: int, present: str, rng: np.random.Generator) -> str:
    """Another value for one tunable."""
    choices = experience.space.choices[place]
    options = [c for c in choices if c != present]
    at = choices.index(present) if present in choices else None
    near = () if at is None else choices[max(at - 1, 0) : at + 2]
    return options[pick([experience.weight(place, c, near) for c in options], rng)]


def pick(weights: Sequence[float], rng: np.random.Generator) -> int:
    """An index drawn by weight; weights are positive and need not add up to one."""
    rest = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        rest -= weight
        if rest < 0:
            return i
    return len(weights) - 1
