"""Calls to authors, kept in the run's store: what was sent, what it may cost, what it did cost.

A call is recorded with its worst case before anything is sent and closed with its usage after. One
that a killed process left open is charged its worst case, so a resumed run never spends more than
its limits. The table is an addition to the store: a run made before it existed reads as without.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from evaluators.schema import Record
from evolve.llm.exchange import Answer, Reason, Refused, Usage
from evolve.rows import has_table, pack, unpack
from evolve.store import Store

SENDS = 3
"""How often one prompt is sent at most when services fail: then the exchange is given up."""
ANSWERED = "ANSWERED"
LOST = "LOST"
"""How a call ended that gave an answer, and one whose process was killed; else a `Reason`."""
FREE = frozenset({Reason.BUDGET, Reason.OUTAGE, Reason.CLOSED})
"""Ends that say nothing about the prompt: it may be sent again any number of times."""
PASSING = frozenset(
    {*FREE, Reason.DEADLINE, Reason.TIMEOUT, Reason.CONNECTION, Reason.RATE_LIMITED,
     Reason.SERVER_ERROR, Reason.WRONG_KEY}
)  # fmt: skip
"""Ends after which the same prompt may be answered another time."""
OWN = frozenset({Reason.EMPTY, Reason.TOO_LARGE, Reason.WRONG_ROLE})
"""Ends by what the model itself said."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    number INTEGER PRIMARY KEY, about TEXT NOT NULL, emitter TEXT NOT NULL, model TEXT NOT NULL,
    tokens INTEGER NOT NULL, cost REAL NOT NULL, record BLOB NOT NULL, at REAL NOT NULL,
    ended REAL);
CREATE INDEX IF NOT EXISTS calls_by_about ON calls (about);
"""


class Purpose(StrEnum):
    """What an answer is for."""

    WRITE = "write"
    PLAN = "plan"
    SUMMARY = "summary"


class Ending(Record):
    """How a call ended. `usage` in tokens and USD; `requests` counts HTTP requests."""

    how: str
    detail: str = ""
    usage: Usage = Usage()
    requests: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)


class Call(Record):
    """One prompt sent to one model. `about`: id of the exchange or consultation.

    `attempt` counts the answers wanted of an exchange from 1; `worst` is the most it can use.
    """

    about: str
    purpose: Purpose = Purpose.WRITE
    emitter: str
    model: str
    attempt: int = Field(default=1, ge=1)
    worst: Usage = Usage()
    end: Ending | None = None

    @property
    def usage(self) -> Usage:
        """What is charged for it."""
        return self.end.usage if self.end else self.worst


@dataclass(frozen=True)
class Total:
    """Calls to one model: how many, how many of them answered, tokens, USD."""

    emitter: str
    model: str
    calls: int
    answered: int
    tokens: int
    cost: float
    open: int
    ends: dict[str, int]


class Calls:
    """The calls of one store. Same owner and thread as the store's."""

    def __init__(self, store: Store) -> None:
        self._db = store.connection
        if not store.readonly:
            self._db.executescript(_SCHEMA)
        self._there = has_table(self._db, "calls")

    def open(self, call: Call) -> int:
        """Keep a call that is about to be sent; returns its number."""
        cursor = self._db.execute(
            "INSERT INTO calls (about, emitter, model, tokens, cost, record, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                call.about, call.emitter, call.model, call.usage.tokens, call.usage.cost,
                pack(call), time.time(),
            ),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close(self, number: int, call: Call, outcome: Answer | Refused) -> Call:
        """Keep how a call ended; returns the closed call."""
        end = Ending(
            how=ANSWERED if isinstance(outcome, Answer) else outcome.reason.value,
            detail=f"finish: {outcome.finish}" if isinstance(outcome, Answer) else outcome.detail,
            usage=outcome.usage,
            requests=outcome.attempts,
            seconds=outcome.seconds,
        )
        return self._end(number, call, end)

    def close_lost(self) -> int:
        """Charge calls that a killed process left open with their worst case; returns how many."""
        rows = self._db.execute("SELECT number, record FROM calls WHERE ended IS NULL").fetchall()
        for number, blob in rows:
            call = unpack(blob, Call)
            usage = call.worst.model_copy(update={"estimated": True})
            self._end(number, call, Ending(how=LOST, usage=usage))
        return len(rows)

    def _end(self, number: int, call: Call, end: Ending) -> Call:
        closed = call.model_copy(update={"end": end})
        self._db.execute(
            "UPDATE calls SET tokens = ?, cost = ?, record = ?, ended = ? WHERE number = ?",
            (end.usage.tokens, end.usage.cost, pack(closed), time.time(), number),
        )
        return closed

    def of(self, about: str) -> list[Call]:
        """Calls about one exchange or consultation, in the order sent."""
        if not self._there:
            return []
        rows = self._db.execute(
            "SELECT record FROM calls WHERE about = ? ORDER BY number", (about,)
        )
        return [unpack(blob, Call) for (blob,) in rows]

    def all(self) -> list[Call]:
        """All calls in the order sent."""
        if not self._there:
            return []
        rows = self._db.execute("SELECT record FROM calls ORDER BY number")
        return [unpack(blob, Call) for (blob,) in rows]

    def charged(self) -> dict[str, tuple[str, float]]:
        """Exchange or consultation -> (last model asked, USD charged for all its calls)."""
        if not self._there:
            return {}
        found: dict[str, tuple[str, float]] = {}
        for about, model, cost in self._db.execute(
            "SELECT about, model, cost FROM calls ORDER BY number"
        ):
            found[about] = (model, found.get(about, ("", 0.0))[1] + cost)
        return found

    def usages(self) -> list[Usage]:
        """What every call is charged; an open one its worst case."""
        return [call.usage for call in self.all()]

    def totals(self) -> list[Total]:
        """Sums by emitter and model, in the order first asked."""
        groups: dict[tuple[str, str], list[Call]] = {}
        for call in self.all():
            groups.setdefault((call.emitter, call.model), []).append(call)
        return [_total(emitter, model, calls) for (emitter, model), calls in groups.items()]


def _total(emitter: str, model: str, calls: list[Call]) -> Total:
    ends: dict[str, int] = {}
    for call in calls:
        if call.end is not None:
            ends[call.end.how] = ends.get(call.end.how, 0) + 1
    return Total(
        emitter=emitter,
        model=model,
        calls=len(calls),
        answered=ends.get(ANSWERED, 0),
        tokens=sum(call.usage.tokens for call in calls),
        cost=sum(call.usage.cost for call in calls),
        open=sum(call.end is None for call in calls),
        ends=ends,
    )


def may_be_sent_again(calls: list[Call]) -> bool:
    """Whether a prompt whose calls so far gave no answer may still be answered.

    `calls`: those of one attempt. An interruption, an outage or a full budget costs no try.
    """
    ends = [call.end.how for call in calls if call.end is not None]
    if any(how != LOST and (how == ANSWERED or Reason(how) not in PASSING) for how in ends):
        return False
    counted = [how for how in ends if how == LOST or Reason(how) not in FREE]
    return len(counted) < SENDS


def written_in_vain(calls: list[Call]) -> bool:
    """Whether one of `calls` ended by what the model said, not by its service or its process."""
    ends = [call.end.how for call in calls if call.end is not None]
    return any(how not in {ANSWERED, LOST} and Reason(how) in OWN for how in ends)
