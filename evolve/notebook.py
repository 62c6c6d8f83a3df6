"""Plans and insights of a run, kept in its store, with the questions that gave them.

A consultation is one question about the search itself: a plan for an island's next exchanges, or a
summary of its last ones. It has one response, readable or not. The tables are additions to the
store: a run made before they existed has none, reads as having no plans and no insights, and gets
them when it is opened for writing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import TypeVar

from pydantic import Field, field_validator

from evaluators.schema import Record
from evolve.rows import has_table, pack, together, unpack
from evolve.store import Store

LINE = 240
"""Most characters of a line that a model or an author tells: bottleneck, direction, insight."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS consultations (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record BLOB NOT NULL, response BLOB,
    at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS plans (
    number INTEGER PRIMARY KEY, record BLOB NOT NULL, result BLOB, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS insights (
    number INTEGER PRIMARY KEY, record BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS recalled (
    number INTEGER PRIMARY KEY, record BLOB NOT NULL, at REAL NOT NULL);
"""

_R = TypeVar("_R", bound=Record)


def one_line(text: str, limit: int = LINE) -> str:
    """`text` as one printable line of at most `limit` characters, without code fences."""
    plain = "".join(c if c.isprintable() else " " for c in text.replace("```", " "))
    line = " ".join(plain.split())
    return line if len(line) <= limit else line[: limit - 4].rstrip() + " ..."


class Kind(StrEnum):
    """What a consultation asks for."""

    PLAN = "plan"
    SUMMARY = "summary"


class Reading(StrEnum):
    """What became of a consultation's answer."""

    READ = "READ"
    MALFORMED = "MALFORMED"  # not the form asked for
    REPEATED = "REPEATED"  # a plan whose direction is exhausted
    REFUSED = "REFUSED"  # there is no answer


class Consultation(Record):
    """One question about the search. `number` counts the run's consultations from 0.

    A summary's `batch` is the number of the plan consultation that began the batch; -1: the
    exchanges before the first.
    """

    id: str = Field(pattern=r"^(plan|summary)-[0-9]{4,}$")
    number: int = Field(ge=0)
    kind: Kind
    emitter: str
    island: int = Field(ge=0)
    prompt: str = Field(min_length=1)
    batch: int = Field(default=-1, ge=-1)


class Response(Record):
    """What came back. The exchanges from number `start` on follow a plan, or go without one."""

    consultation: int = Field(ge=0)
    reading: Reading
    start: int = Field(ge=0)
    answer: str = ""
    reason: str = ""
    model: str = ""


class Plan(Record):
    """What limits an island's programs, what to try against it and what to leave alone.

    `number` is that of its consultation; `start` the first exchange's that follows it.
    """

    number: int = Field(ge=0)
    island: int = Field(ge=0)
    start: int = Field(ge=0)
    bottleneck: str = Field(min_length=1, max_length=LINE)
    direction: str = Field(min_length=1, max_length=LINE)
    avoid: str = Field(default="", max_length=LINE)


class Result(Record):
    """What a batch of exchanges came to. `gain`: the best over a program's base, where any passed.

    `gained`: some program beat its base by more than the noise of both.
    """

    exchanges: int = Field(ge=0)
    evaluated: int = Field(ge=0)
    passed: int = Field(ge=0)
    gain: float | None = Field(default=None, gt=0)
    gained: bool = False


class Evidence(Record):
    """A program that an insight rests on. `gain` over its base as measured when it was told."""

    program: str
    gain: float | None = None
    status: str = ""


class Insight(Record):
    """One line that was learned. `repeats` counts how often it was told again."""

    text: str = Field(min_length=1, max_length=LINE)
    island: int = Field(ge=0)
    author: str
    evidence: tuple[Evidence, ...] = ()
    exchange: int = Field(default=0, ge=0)
    repeats: int = Field(default=0, ge=0)

    @property
    def gain(self) -> float | None:
        """The gain furthest from none among its evidence."""
        found = [e.gain for e in self.evidence if e.gain]
        return max(found, key=lambda gain: max(gain, 1 / gain), default=None)


class Recalled(Record):
    """An insight or a step of an earlier run. `near` says what it shares with this run.

    `rank` is the score that chose it (`evolve.llm.recall`); `at`: Unix time in seconds.
    """

    text: str = Field(min_length=1)
    run: str
    definition: str
    device: str
    language: str = ""
    near: str
    gain: float | None = None
    rank: float = 0.0
    at: float = 0.0

    @field_validator("text", "run", "definition", "device", mode="before")
    @classmethod
    def _plain(cls, text: object) -> object:
        return one_line(text) if isinstance(text, str) else text


class Notebook:
    """Consultations, plans and insights of one store. Same owner and thread as the store's."""

    def __init__(self, store: Store) -> None:
        self._db = store.connection
        if not store.readonly:
            self._db.executescript(_SCHEMA)
        self._there = has_table(self._db, "recalled")

    # -- consultations ------------------------------------------------------------------------

    def next_number(self) -> int:
        """The number that the next consultation gets."""
        if not self._there:
            return 0
        (latest,) = self._db.execute("SELECT MAX(number) FROM consultations").fetchone()
        return 0 if latest is None else int(latest) + 1

    def ask(self, consultation: Consultation) -> None:
        """Keep a question before it is sent. sqlite3.IntegrityError: its number is taken."""
        self._db.execute(
            "INSERT INTO consultations VALUES (?, ?, ?, NULL, ?)",
            (consultation.number, consultation.id, pack(consultation), time.time()),
        )

    def consultations(self) -> list[tuple[Consultation, Response | None]]:
        """All questions in the order asked, with what came back."""
        if not self._there:
            return []
        rows = self._db.execute("SELECT record, response FROM consultations ORDER BY number")
        return [(unpack(q, Consultation), unpack(r, Response) if r else None) for q, r in rows]

    def consultation(self, name: str) -> Consultation | None:
        """The question of that id, or None when this run has not asked it."""
        sql = "SELECT record FROM consultations WHERE id = ?"
        return next(self._read(sql, Consultation, name), None)

    def respond(self, response: Response) -> bool:
        """Keep what came back. False when the question has its response already, or is unknown."""
        cursor = self._db.execute(
            "UPDATE consultations SET response = ? WHERE number = ? AND response IS NULL",
            (pack(response), response.consultation),
        )
        return cursor.rowcount == 1

    # -- plans --------------------------------------------------------------------------------

    def add_plan(self, plan: Plan) -> None:
        """Keep a plan. sqlite3.IntegrityError: its consultation gave one already."""
        self._db.execute(
            "INSERT INTO plans VALUES (?, ?, NULL, ?)", (plan.number, pack(plan), time.time())
        )

    def set_result(self, number: int, result: Result) -> None:
        """What became of plan `number`; a later result replaces an earlier one."""
        self._db.execute("UPDATE plans SET result = ? WHERE number = ?", (pack(result), number))

    def plans(self) -> list[tuple[Plan, Result | None]]:
        """All plans in the order made, with their results so far."""
        if not self._there:
            return []
        rows = self._db.execute("SELECT record, result FROM plans ORDER BY number")
        return [(unpack(p, Plan), unpack(r, Result) if r else None) for p, r in rows]

    # -- insights -----------------------------------------------------------------------------

    def add_insight(self, insight: Insight) -> int:
        """Keep an insight, return its number."""
        cursor = self._db.execute(
            "INSERT INTO insights (record, at) VALUES (?, ?)", (pack(insight), time.time())
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def replace_insight(self, number: int, insight: Insight) -> None:
        """Put a merged insight in the place of the one that it was merged with."""
        self._db.execute(
            "UPDATE insights SET record = ?, at = ? WHERE number = ?",
            (pack(insight), time.time(), number),
        )

    def insights(self) -> dict[int, Insight]:
        """Number -> insight, in the order first told."""
        if not self._there:
            return {}
        rows = self._db.execute("SELECT number, record FROM insights ORDER BY number")
        return {number: unpack(blob, Insight) for number, blob in rows}

    # -- what earlier runs know ---------------------------------------------------------------

    def set_recalled(self, items: list[Recalled]) -> None:
        """Replace what is known of earlier runs."""
        with together(self._db):
            self._db.execute("DELETE FROM recalled")
            rows = [(pack(item), time.time()) for item in items]
            self._db.executemany("INSERT INTO recalled (record, at) VALUES (?, ?)", rows)

    def recalled(self) -> list[Recalled]:
        """What earlier runs know, the most useful first."""
        return list(self._read("SELECT record FROM recalled ORDER BY number", Recalled))

    def _read(self, sql: str, kind: type[_R], *values: str) -> Iterator[_R]:
        if self._there:
            for (blob,) in self._db.execute(sql, values):
                yield unpack(blob, kind)
