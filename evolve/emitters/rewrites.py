"""Rewrites that gained: new structures, still at the values that their author happened to write.

A rewrite's first values are seldom its best ones, so a structure that gained is tuned at once. What
is owed to it is counted in outcomes and not in proposals, since outcomes alone are what a resumed
search folds again; with many programs under way a few more are proposed than are owed.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluators.schema import Evaluation
from islands.archive import AddStatus
from islands.program import Program

OUTCOMES = 8
"""Outcomes of tuning that a structural improvement is owed."""
GIVEN = ("seed", "tuner")
"""Emitters whose programs are no rewrites: what the run began with, and changes of values."""


class Rewrites:
    """Templates that are owed tuning, newest first. State is a fold over the calls of `learn`."""

    def __init__(self) -> None:
        self._owed: dict[str, int] = {}
        self._scores: dict[str, float] = {}  # of the present epoch, by program
        self._epoch = -1

    def learn(
        self,
        key: str | None,
        is_new: bool,
        program: Program,
        evaluation: Evaluation,
        status: AddStatus,
    ) -> None:
        """Takes an evaluation; `key` is the program's template (None: nothing to tune).

        `is_new` says that no program of the template was told before.
        """
        if evaluation.epoch != self._epoch:
            self._epoch, self._scores = evaluation.epoch, {}
        if status is not AddStatus.REJECTED:
            self._scores[program.id] = evaluation.score
        if key is None:
            return
        if is_new and program.emitter not in GIVEN and self._gained(program, evaluation, status):
            self._owed[key] = OUTCOMES
        elif key in self._owed:
            self._owed[key] -= 1
            if not self._owed[key]:
                del self._owed[key]

    def _gained(self, program: Program, evaluation: Evaluation, status: AddStatus) -> bool:
        """Whether it replaced an elite, or filled a niche and beats the elites it was made from."""
        if status is AddStatus.NEW:
            parents = (self._scores.get(parent, 0.0) for parent in program.parents)
            return evaluation.score > max(parents, default=0.0)
        return status is AddStatus.IMPROVED

    def __iter__(self) -> Iterator[str]:
        """Keys of the templates that are owed tuning, the latest gain first."""
        return reversed(list(self._owed))
