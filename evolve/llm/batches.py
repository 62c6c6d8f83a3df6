"""Batches of exchanges: what an island asked under one plan, and what came of it.

A batch begins with the response to a plan consultation, whether it gave a plan or not, and ends
with the next one of that island. Everything here is a fold over the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.schema import Evaluation
from evolve.exchanges import ATTEMPTS, Exchange, Reply, Verdict
from evolve.llm.history import Attempt, History, beyond_noise
from evolve.notebook import Consultation, Kind, Response, Result
from evolve.store import Row

BEFORE = -1
"""Number of the batch of exchanges before an island's first plan."""


@dataclass(frozen=True)
class Outcome:
    """One answered exchange. `gain` is the best of its program and the tuner's settings of it.

    It is over the nearest ancestor that passed, in the latest epoch that measured both; None where
    no epoch did. `gained`: that gain exceeds the noise of both.
    """

    exchange: Exchange
    reply: Reply
    row: Row | None
    gain: float | None
    gained: bool

    @property
    def settled(self) -> bool:
        """Whether nothing more is to come of it."""
        if self.reply.verdict is Verdict.QUEUED:
            return self.row is not None
        return self.reply.attempt >= ATTEMPTS


@dataclass(frozen=True)
class Batch:
    """An island's exchanges of one plan. `size` counts those without an answer too."""

    number: int
    island: int
    size: int
    outcomes: tuple[Outcome, ...]

    @property
    def settled(self) -> int:
        return sum(outcome.settled for outcome in self.outcomes)

    @property
    def evaluated(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.row is not None]


def batches(
    history: History, consultations: Iterable[tuple[Consultation, Response | None]]
) -> dict[int, list[Batch]]:
    """Island -> its batches in order; every island has the one before its first plan."""
    starts: dict[int, list[tuple[int, int]]] = defaultdict(lambda: [(0, BEFORE)])
    for consultation, response in consultations:
        if consultation.kind is Kind.PLAN and response is not None:
            starts[consultation.island].append((response.start, consultation.number))
    asked: dict[tuple[int, int], int] = defaultdict(int)
    answered: dict[tuple[int, int], list[Outcome]] = defaultdict(list)
    attempts = {attempt.exchange.id: attempt for attempt in history.attempts()}
    gains = _Gains(history)
    for exchange in history.asked():
        number = max(s for s in starts[exchange.island] if s[0] <= exchange.number)[1]
        key = exchange.island, number
        asked[key] += 1
        if exchange.id in attempts:
            answered[key].append(gains.outcome(attempts[exchange.id]))
    return {
        island: [
            Batch(number, island, asked[island, number], tuple(answered[island, number]))
            for _, number in starts[island]
        ]
        for island in range(history.config.islands.count)
    }


def result(batch: Batch) -> Result:
    """What a batch came to so far."""
    gains = [o.gain for o in batch.outcomes if o.gain is not None]
    evaluated = batch.evaluated
    return Result(
        exchanges=batch.size,
        evaluated=len(evaluated),
        passed=sum(o.row.evaluation.passed for o in evaluated if o.row),
        gain=max(gains, default=None),
        gained=any(o.gained for o in batch.outcomes),
    )


class _Gains:
    """What programs and the tuner's settings of them gained over their bases."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._passed: dict[str, dict[int, Evaluation]] = defaultdict(dict)
        for row in history.rows:
            if row.evaluation.passed and row.evaluation.rung == "full":
                self._passed[row.program_id][row.epoch] = row.evaluation
        self._settings: dict[str, list[str]] = defaultdict(list)
        for program in history.programs.values():
            if program.emitter == "tuner" and program.parents:
                self._settings[program.parents[0]].append(program.id)

    def outcome(self, attempt: Attempt) -> Outcome:
        row = attempt.row
        gain, gained = self._best(row.program_id) if row is not None else (None, False)
        if gain is None and row is not None and row.evaluation.passed:
            gained = row.status_in_archive == "IMPROVED"
        return Outcome(attempt.exchange, attempt.reply, row, gain, gained)

    def _best(self, program_id: str) -> tuple[float | None, bool]:
        base = self._history.base(self._history.programs[program_id])
        if base is None:
            return None, False
        best, gained = None, False
        for member in self._family(program_id):
            pair = self._together(member, base.id)
            if pair is not None:
                gain = pair[0].score / pair[1].score
                best = gain if best is None else max(best, gain)
                gained = gained or beyond_noise(*pair)
        return best, gained

    def _family(self, program_id: str) -> list[str]:
        family = [program_id]
        for member in family:  # grows while it is read
            family += [child for child in self._settings.get(member, ()) if child not in family]
        return family

    def _together(self, mine: str, base: str) -> tuple[Evaluation, Evaluation] | None:
        """Evaluations of both in the latest epoch that measured both."""
        ours, theirs = self._passed.get(mine, {}), self._passed.get(base, {})
        common = ours.keys() & theirs.keys()
        return (ours[max(common)], theirs[max(common)]) if common else None
