"""Exchanges with whoever writes programs: every prompt and every answer, kept in the run's store.

An exchange is one prompt; it has at most `ATTEMPTS` replies, because an answer that could not be
used is returned once with the reason. The tables are additions to the store: a run made before they
existed has none, reads as having no exchanges, and gets them when it is opened for writing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import TypeVar

from pydantic import Field

from evaluators.schema import Language, Record
from evolve.rows import has_table, pack, unpack
from evolve.store import Store

ATTEMPTS = 2
"""Answers accepted for one prompt: the first, and one more after a rejection."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS exchanges (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS replies (
    exchange TEXT NOT NULL, attempt INTEGER NOT NULL, record BLOB NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (exchange, attempt)) WITHOUT ROWID;
"""

_R = TypeVar("_R", bound=Record)


class Mode(StrEnum):
    """What a prompt asks for."""

    DIFF = "diff"  # a few edits of one program
    REWRITE = "rewrite"  # one program written anew
    CROSSOVER = "crossover"  # one program out of two elites of different niches
    TRANSLATE = "translate"  # the same algorithm in another language
    REPAIR = "repair"  # a failed program made right
    SIMPLIFY = "simplify"  # the same speed with less code


class Exchange(Record):
    """One prompt. `number` counts the run's exchanges from 0; `parents` are program ids.

    `told`: evaluations of its island's programs that were known when it was made.
    """

    id: str = Field(pattern=r"^[0-9]{4,}-[a-z]+-[0-9a-f]{6}$")
    number: int = Field(ge=0)
    emitter: str
    mode: Mode
    island: int = Field(ge=0)
    language: Language
    parents: tuple[str, ...] = Field(min_length=1)
    prompt: str = Field(min_length=1)
    told: int = Field(default=0, ge=0)


class Verdict(StrEnum):
    """What became of an answer before any evaluation."""

    QUEUED = "QUEUED"  # applied; its program is in the store
    UNREADABLE = "UNREADABLE"  # the answer does not apply
    UNCHANGED = "UNCHANGED"  # it applies and changes nothing but comments or layout
    DUPLICATE = "DUPLICATE"  # the program is in the store already
    REFUSED = "REFUSED"  # the guard does not let it be built


class Reply(Record):
    """One answer. `program` is the id of the program that it gave, if it gave one.

    `model`: who answered, where that is known. `staleness`: how many more evaluations the island
    had when the program was queued than when the prompt was made.
    """

    exchange: str
    attempt: int = Field(ge=1, le=ATTEMPTS)
    answer: str
    verdict: Verdict
    reason: str = ""
    note: str = ""
    program: str | None = None
    model: str = ""
    staleness: int | None = Field(default=None, ge=0)


class Exchanges:
    """The exchanges of one store. Same owner and thread as the store's."""

    def __init__(self, store: Store) -> None:
        self._db = store.connection
        if not store.readonly:
            self._db.executescript(_SCHEMA)
        self._there = has_table(self._db, "exchanges")

    def next_number(self) -> int:
        """The number that the next exchange gets."""
        if not self._there:
            return 0
        (latest,) = self._db.execute("SELECT MAX(number) FROM exchanges").fetchone()
        return 0 if latest is None else int(latest) + 1

    def add(self, exchange: Exchange) -> None:
        """Keep a prompt before it is shown. sqlite3.IntegrityError: its number or id is taken."""
        self._db.execute(
            "INSERT INTO exchanges VALUES (?, ?, ?, ?)",
            (exchange.number, exchange.id, pack(exchange), time.time()),
        )

    def get(self, exchange_id: str) -> Exchange | None:
        """The exchange, or None when this run has not asked it."""
        rows = self._read("SELECT record FROM exchanges WHERE id = ?", Exchange, exchange_id)
        return next(rows, None)

    def all(self, after: int = -1) -> list[Exchange]:
        """Exchanges whose number is greater than `after`, in the order asked."""
        sql = "SELECT record FROM exchanges WHERE number > ? ORDER BY number"
        return list(self._read(sql, Exchange, after))

    def by_mode(self, mode: Mode) -> list[Exchange]:
        """The exchanges of one mode in the order asked."""
        sql = "SELECT record FROM exchanges WHERE id LIKE ? ORDER BY number"
        return list(self._read(sql, Exchange, f"%-{mode.value}-%"))

    def reply(self, reply: Reply) -> None:
        """Keep an answer and its verdict. sqlite3.IntegrityError: this attempt is there already."""
        self._db.execute(
            "INSERT INTO replies VALUES (?, ?, ?, ?)",
            (reply.exchange, reply.attempt, pack(reply), time.time()),
        )

    def replies(self, exchange_id: str) -> list[Reply]:
        """Answers to one exchange in the order told."""
        sql = "SELECT record FROM replies WHERE exchange = ? ORDER BY attempt"
        return list(self._read(sql, Reply, exchange_id))

    def answered(self) -> dict[str, int]:
        """Exchange -> how many answers it has, where it has any."""
        if not self._there:
            return {}
        sql = "SELECT exchange, COUNT(*) FROM replies GROUP BY exchange"
        return dict(self._db.execute(sql))

    def _read(self, sql: str, kind: type[_R], *values: str | int) -> Iterator[_R]:
        if self._there:
            for (blob,) in self._db.execute(sql, values):
                yield unpack(blob, kind)
