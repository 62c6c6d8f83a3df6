"""What all tables of a run's file share: records as compressed JSON, and transactions."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel

_R = TypeVar("_R", bound=BaseModel)


def pack(record: BaseModel) -> bytes:
    """A record as compressed JSON, without fields that have their default."""
    return zlib.compress(record.model_dump_json(exclude_defaults=True).encode(), 6)


def unpack(blob: bytes, kind: type[_R]) -> _R:
    """The record that `pack` made `blob` of. zlib.error, pydantic.ValidationError: it did not."""
    return kind.model_validate_json(zlib.decompress(blob))


def has_table(db: sqlite3.Connection, name: str) -> bool:
    """Whether the file has a table of that name; files of older versions lack some."""
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,))
    return found.fetchone() is not None


@contextmanager
def together(db: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside is kept, or none of it. Inside another such block: with it."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
