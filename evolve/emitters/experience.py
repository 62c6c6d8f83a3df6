"""Experience: what a template's outcomes say about its values, and what was tried of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from evolve.emitters.effects import Effects
from evolve.emitters.space import Assignment, Space

UNSEEN = 1.5
"""Weight of a value never evaluated; the best value so far weighs 1."""
NEIGHBOUR = 2.0
"""Factor for a value that stands next to the parent's in the declared order."""
SHARPNESS = 6.0
"""How fast a value's weight falls with its best log score's distance from the template's best."""
FLOOR = 0.05
"""Least chance of anything that failed before: nothing is given up for good."""


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
    def trust(self) -> float:
        """Chance that another assignment passes: the share so far, as if two had passed before."""
        return max(FLOOR, (self.passed + 2) / (self.passed + self.failed + 2))


@dataclass
class Experience:
    """What is known of one template: outcomes by value and by pair, and the assignments tried."""

    space: Space
    values: dict[tuple[int, str], Tally] = field(default_factory=dict)
    pairs: dict[tuple[int, str, int, str], Tally] = field(default_factory=dict)
    best: float = -math.inf
    effects: Effects = field(init=False)
    tried: set[Assignment] = field(default_factory=set)
    # Caches, filled while proposing: they spare work and decide nothing.
    known: set[Assignment] = field(default_factory=set)
    exhausted: set[Assignment] = field(default_factory=set)  # see `strangers`

    def __post_init__(self) -> None:
        self.effects = Effects(self.space)

    def note(self, values: Assignment, log_score: float | None, screened: bool = False) -> None:
        """Takes one outcome; `log_score` None is a failure.

        A `screened` score comes from few workloads, on which scores may lie higher than on all. The
        program is known to be no gain, so its score counts as the best so far at most.
        """
        if log_score is not None and screened and self.best > -math.inf:
            log_score = min(log_score, self.best)
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
        if tally is None:
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
