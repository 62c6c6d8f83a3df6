"""The tuner: changes the values of one to three tunables of an elite.

It leans towards values that its template has not seen and towards values that did well, and away
from values and pairs of values that failed; of a few such mutations it takes the one of which a
draw from the template's main effects promises most. It never proposes an assignment twice, and goes
through what is left in order when chance finds nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluators.schema import Evaluation
from evolve.emitters.effects import Effects
from evolve.emitters.space import Assignment, Space, read, replaced
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
UNSEEN = 1.5
"""Weight of a value never evaluated; the best value so far weighs 1."""
NEIGHBOUR = 2.0
"""Factor for a value that stands next to the parent's in the declared order."""
SHARPNESS = 6.0
"""How fast a value's weight falls with its best log score's distance from the template's best."""
FLOOR = 0.05
"""Least chance of anything that failed before: nothing is given up for good."""
CACHE = 4096
"""Programs whose assignment is remembered, so that an elite is not read again."""


@dataclass
class Tally:
    """Outcomes of the assignments that hold a value (or a pair of values)."""

    passed: int = 0
    failed: int = 0
    best: float = -math.inf  # log score

    def note(self, log_score: float | None) -> None:
        if log_score is None:
            self.failed += 1
        else:
            self.passed += 1
            self.best = max(self.best, log_score)

    @property
    def seen(self) -> bool:
        return self.passed + self.failed > 0

    @property
    def trust(self) -> float:
        """Chance that another assignment passes, by Laplace's rule with a prior of 2 passes."""
        return max(FLOOR, (self.passed + 2) / (self.passed + self.failed + 2))


@dataclass
class Record:
    """What is known of one template: outcomes by value and by pair, and the assignments tried."""

    space: Space
    values: dict[tuple[int, str], Tally] = field(default_factory=dict)
    pairs: dict[tuple[int, str, int, str], Tally] = field(default_factory=dict)
    best: float = -math.inf
    effects: Effects = field(init=False)
    tried: set[Assignment] = field(default_factory=set)
    exhausted: set[Assignment] = field(default_factory=set)  # see `strangers`

    def __post_init__(self) -> None:
        self.effects = Effects(self.space)

    def note(self, values: Assignment, log_score: float | None) -> None:
        """Takes one outcome; `log_score` None is a failure."""
        if log_score is not None:
            self.best = max(self.best, log_score)
            self.effects.note(values, log_score)
        for i, value in enumerate(values):
            self.values.setdefault((i, value), Tally()).note(log_score)
            for j in range(i):
                self.pairs.setdefault((j, values[j], i, value), Tally()).note(log_score)

    def trust(self, values: Assignment, changed: Sequence[int]) -> float:
        """Chance that an assignment passes: that of its worst pair with a changed value."""
        worst = 1.0
        for i in changed:
            for j in range(len(values)):
                a, b = (i, j) if i < j else (j, i)
                tally = self.pairs.get((a, values[a], b, values[b])) if a != b else None
                if tally is not None:
                    worst = min(worst, tally.trust)
        return worst

    def weight(self, place: int, value: str, neighbours: Sequence[str]) -> float:
        """How much a value is worth trying."""
        tally = self.values.get((place, value))
        if tally is None or not tally.seen:
            weight = UNSEEN
        elif tally.passed == 0:
            weight = tally.trust
        else:
            weight = max(FLOOR, math.exp(SHARPNESS * (tally.best - self.best))) * tally.trust
        return weight * NEIGHBOUR if value in neighbours else weight

    def strangers(self, values: Assignment) -> Assignment:
        """`values` with those that are among their choices blanked.

        Assignments that agree in this have the same others within reach, so one exhausts all.
        """
        choices = self.space.choices
        return tuple("" if v in c else v for v, c in zip(values, choices, strict=True))

    def unseen(self, place: int) -> int:
        """Number of a tunable's values never evaluated."""
        return sum((place, choice) not in self.values for choice in self.space.choices[place])


class Tuner(Emitter):
    """Mutates `# tune:` parameters. Nothing is left (None) once every elite's space was tried."""

    name = "tuner"

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, Record] = {}
        self._read: dict[str, tuple[Record, Assignment] | None] = {}

    def learn(self, program: Program, evaluation: Evaluation, status: AddStatus) -> None:
        super().learn(program, evaluation, status)
        read = self._read_program(program)
        if read is not None:
            record, values = read
            record.tried.add(values)
            record.note(values, math.log(evaluation.score) if evaluation.passed else None)

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

    def _by_chance(self, elite: Elite, rng: np.random.Generator) -> Proposal | None:
        read = self._read_program(elite.program)
        if read is None:
            return None
        record, values = read
        if record.strangers(values) in record.exhausted:
            return None
        for candidate in candidates(record, values, rng):
            proposal = self._fresh(elite.program, record, values, candidate)
            if proposal is not None:
                return proposal
        return None

    def _in_order(self, elite: Elite) -> Proposal | None:
        read = self._read_program(elite.program)
        if read is None:
            return None
        record, values = read
        if record.strangers(values) in record.exhausted:
            return None
        for candidate in record.space.near(values):
            proposal = self._fresh(elite.program, record, values, candidate)
            if proposal is not None:
                return proposal
        # Only what was tried is missing from `near`, and what was tried stays tried.
        record.exhausted.add(record.strangers(values))
        return None

    def _fresh(
        self, parent: Program, record: Record, values: Assignment, candidate: Assignment
    ) -> Proposal | None:
        """The proposal of an assignment, unless its program is known."""
        if candidate in record.tried:
            return None
        solution = parent.solution.with_entry_source(record.space.render(candidate))
        if program_id(solution) in self._known:
            record.tried.add(candidate)  # a cache of `_known`, which cannot be asked by assignment
            return None
        note = ", ".join(
            f"{name} {old} -> {new}"
            for name, old, new in zip(record.space.names, values, candidate, strict=True)
            if old != new
        )
        return Proposal(solution, (parent.id,), note)

    def _read_program(self, program: Program) -> tuple[Record, Assignment] | None:
        if program.id not in self._read:
            if len(self._read) >= CACHE:
                self._read.clear()
            found = read(program.solution)
            if found is None:
                self._read[program.id] = None
            else:
                space, values = found
                record = self._records.setdefault(space.key, Record(space))
                self._read[program.id] = record, values
        return self._read[program.id]


def candidates(record: Record, values: Assignment, rng: np.random.Generator) -> list[Assignment]:
    """A few mutations of `values` not tried yet, the most promising first."""
    effects = record.effects.draw(rng)
    found: dict[Assignment, float] = {}
    for _ in range(TRIES):
        candidate, changed = mutate(record, values, rng)
        if candidate in found or candidate in record.tried or not changed:
            continue
        if rng.random() < record.trust(candidate, changed):
            found[candidate] = record.effects.predict(effects, candidate)
            if len(found) == CANDIDATES:
                break
    return sorted(found, key=lambda candidate: -found[candidate])


def mutate(
    record: Record, values: Assignment, rng: np.random.Generator
) -> tuple[Assignment, list[int]]:
    """`values` with one to three changed by weight, and the places that changed."""
    places = [i for i, c in enumerate(record.space.choices) if any(v != values[i] for v in c)]
    count = min(1 + pick(CHANGES, rng), len(places))
    changes: dict[int, str] = {}
    for _ in range(count):
        free = [i for i in places if i not in changes]
        weights = [1 + 2 * record.unseen(i) / len(record.space.choices[i]) for i in free]
        place = free[pick(weights, rng)]
        changes[place] = _value(record, place, values[place], rng)
    return replaced(values, changes), list(changes)


def _value(record: Record, place: int, present: str, rng: np.random.Generator) -> str:
    """Another value for one tunable."""
    choices = record.space.choices[place]
    options = [c for c in choices if c != present]
    at = choices.index(present) if present in choices else None
    near = () if at is None else choices[max(at - 1, 0) : at + 2]
    return options[pick([record.weight(place, c, near) for c in options], rng)]


def pick(weights: Sequence[float], rng: np.random.Generator) -> int:
    """An index drawn by weight; weights are positive and need not add up to one."""
    rest = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        rest -= weight
        if rest < 0:
            return i
    return len(weights) - 1
