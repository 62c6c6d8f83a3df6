"""The run's one record: a SQLite file (WAL) in the run directory, written by one process.

Contract: everything a run learns is here and nowhere else. `propose` and `record` are durable
against the death of the process when they return. A program is stored once (its id is the hash of
its normalised source) and evaluated at most once per epoch; the database refuses a second row.
Archives, emitters' memories and plots are folds over `evaluations()` in `seq` order.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evaluators.schema import Evaluation, Workload
from evolve.errors import UserError
from evolve.rows import pack, together, unpack
from islands.program import Program

VERSION = 1
FILE = "run.sqlite"
Kind = Literal["seed", "search", "remeasure", "duplicate"]
"""Why an evaluation was made; a `duplicate` was built and not run, and no budget counts it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS programs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, island INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, emitter TEXT NOT NULL, record BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (
    epoch INTEGER PRIMARY KEY, workloads BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (
    seq INTEGER PRIMARY KEY, program TEXT NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL,
    status TEXT NOT NULL, score REAL NOT NULL, record BLOB NOT NULL, at REAL NOT NULL,
    niche TEXT NOT NULL DEFAULT '', outcome TEXT NOT NULL DEFAULT '',
    UNIQUE (program, epoch));
CREATE INDEX IF NOT EXISTS evaluations_by_epoch ON evaluations (epoch, kind);
"""


@dataclass(frozen=True)
class Row:
    """One recorded evaluation with what is known of its program. `at` is a Unix time in seconds."""

    seq: int
    program_id: str
    epoch: int
    kind: Kind
    island: int
    emitter: str
    evaluation: Evaluation
    niche: str
    status_in_archive: str
    at: float


class Store:
    """See the module's contract. Not thread-safe: one owner, one thread."""

    def __init__(self, db: sqlite3.Connection, run_dir: Path, readonly: bool = False) -> None:
        self._db = db
        self._readonly = readonly
        self._counts: dict[str, int] | None = None
        self.run_dir = run_dir

    @classmethod
    def create(cls, run_dir: Path, meta: dict[str, Any]) -> Store:
        """New store in `run_dir` (made if absent). UserError: not writable, or exists."""
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            if (run_dir / FILE).exists():
                raise UserError(f"{run_dir} already holds a run; resume it or choose another name")
            db = sqlite3.connect(run_dir / FILE, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(f"cannot write a run to {run_dir}: {error}") from None
        store = cls(db, run_dir)
        store.set_meta({"version": VERSION, "created": time.time(), **meta})
        return store

    @classmethod
    def open(cls, run_dir: Path, readonly: bool = False) -> Store:
        """Existing store. UserError when there is none, or a newer version wrote it."""
        file = run_dir / FILE
        if not file.is_file():
            raise UserError(f"no run at {run_dir} ({FILE} is not there)")
        try:
            uri = file.resolve().as_uri() + ("?mode=ro" if readonly else "")
            db = sqlite3.connect(uri, uri=True, isolation_level=None)
            db.execute("PRAGMA busy_timeout=5000")
            if not readonly:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
            store = cls(db, run_dir, readonly)
            version = store.meta.get("version")
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file} is not a readable run: {error}") from None
        if not isinstance(version, int) or version > VERSION:
            raise UserError(
                f"{run_dir} was written by a newer version (format {version}, known: {VERSION})"
            )
        return store

    def close(self) -> None:
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """For tables that others keep in the same file (`evolve.exchanges`)."""
        return self._db

    @property
    def readonly(self) -> bool:
        return self._readonly

    # -- meta ---------------------------------------------------------------------------------

    @property
    def meta(self) -> dict[str, Any]:
        """The run's facts: operator, definition, device, config, seed, version, created, report."""
        return {k: json.loads(v) for k, v in self._db.execute("SELECT key, value FROM meta")}

    def set_meta(self, values: dict[str, Any]) -> None:
        rows = [(k, json.dumps(v)) for k, v in values.items()]
        with together(self._db):
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def report(self) -> dict[str, Any] | None:
        """The closing report, or None while the run has none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'report'").fetchone()
        return json.loads(row[0]) if row else None

    # -- programs -----------------------------------------------------------------------------

    def propose(self, program: Program) -> bool:
        """Store a program as pending. False when it is already there (by normalised source)."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO programs (id, island, ordinal, emitter, record, at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (program.id, program.island, program.ordinal, program.emitter, pack(program), _now()),
        )
        return cursor.rowcount == 1

    def has(self, program_id: str) -> bool:
        found = self._db.execute("SELECT 1 FROM programs WHERE id = ?", (program_id,)).fetchone()
        return found is not None

    def program(self, program_id: str) -> Program:
        """The stored program; KeyError when there is none."""
        row = self._db.execute("SELECT record FROM programs WHERE id = ?", (program_id,)).fetchone()
        if row is None:
            raise KeyError(program_id)
        return unpack(row[0], Program)

    def programs(self, skip: int = 0) -> Iterator[Program]:
        """All programs in the order proposed, without the first `skip`."""
        rows = self._db.execute(
            "SELECT record FROM programs ORDER BY number LIMIT -1 OFFSET ?", (skip,)
        )
        for (blob,) in rows:
            yield unpack(blob, Program)

    def pending(self) -> list[Program]:
        """Programs proposed and never evaluated, in the order proposed."""
        rows = self._db.execute(
            "SELECT record FROM programs WHERE id NOT IN (SELECT program FROM evaluations)"
            " ORDER BY number"
        )
        return [unpack(blob, Program) for (blob,) in rows]

    def proposed_by_island(self) -> dict[int, tuple[int, int]]:
        """Island -> (programs proposed by it, seeds excepted; its next ordinal)."""
        rows = self._db.execute(
            "SELECT island, COUNT(*), MAX(ordinal) + 1 FROM programs WHERE emitter != 'seed'"
            " GROUP BY island"
        )
        return {island: (count, ordinal) for island, count, ordinal in rows}

    def evaluated_of(self, island: int) -> int:
        """Evaluations of programs that the island proposed, seeds excepted."""
        (count,) = self._db.execute(
            "SELECT COUNT(*) FROM evaluations e JOIN programs p ON p.id = e.program"
            " WHERE p.island = ? AND p.emitter != 'seed'",
            (island,),
        ).fetchone()
        return int(count)

    def evaluated(self, program_id: str, epoch: int | None = None) -> bool:
        """Whether the program has an evaluation of `epoch`, or of any."""
        row = self._db.execute(
            "SELECT 1 FROM evaluations WHERE program = ?1 AND (?2 IS NULL OR epoch = ?2) LIMIT 1",
            (program_id, epoch),
        ).fetchone()
        return row is not None

    # -- epochs -------------------------------------------------------------------------------

    def open_epoch(self, epoch: int, workloads: list[Workload]) -> None:
        """Record an epoch's workloads; every evaluation of that epoch uses exactly these."""
        blob = zlib.compress(json.dumps([w.model_dump(mode="json") for w in workloads]).encode())
        self._db.execute("INSERT INTO epochs VALUES (?, ?, ?)", (epoch, blob, _now()))
        self._counts = None

    def epochs(self) -> dict[int, list[Workload]]:
        """Epoch -> its workloads."""
        rows = self._db.execute("SELECT epoch, workloads FROM epochs ORDER BY epoch")
        return {
            epoch: [Workload.model_validate(w) for w in json.loads(zlib.decompress(blob))]
            for epoch, blob in rows
        }

    # -- evaluations --------------------------------------------------------------------------

    def record(self, program_id: str, kind: Kind, evaluation: Evaluation) -> int:
        """Store an evaluation, return its seq. sqlite3.IntegrityError for an epoch's second.

        The column `score` holds what compares within an epoch: 0 for a program that only few
        workloads screened.
        """
        cursor = self._db.execute(
            "INSERT INTO evaluations (program, epoch, kind, status, score, record, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                program_id, evaluation.epoch, kind, evaluation.status.value,
                evaluation.score if evaluation.rung == "full" else 0.0, pack(evaluation), _now(),
            ),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        if self._counts is not None:
            self._counts[kind] += 1
            if evaluation.epoch == self._counts["epoch"] and kind in ("search", "remeasure"):
                self._counts["searched" if kind == "search" else "remeasured"] += 1
        return cursor.lastrowid

    def set_outcome(self, seq: int, niche: str, outcome: str) -> None:
        """What the island's archive made of evaluation `seq` (derived; kept for readers)."""
        self._db.execute(
            "UPDATE evaluations SET niche = ?, outcome = ? WHERE seq = ?", (niche, outcome, seq)
        )

    def evaluations(self, after: int = 0) -> Iterator[Row]:
        """Evaluations whose seq is greater than `after`, in the order recorded."""
        rows = self._db.execute(
            "SELECT e.seq, e.program, e.epoch, e.kind, p.island, p.emitter, e.record, e.niche,"
            " e.outcome, e.at FROM evaluations e JOIN programs p ON p.id = e.program"
            " WHERE e.seq > ? ORDER BY e.seq",
            (after,),
        )
        for seq, program, epoch, kind, island, emitter, blob, niche, outcome, at in rows:
            evaluation = unpack(blob, Evaluation)
            yield Row(seq, program, epoch, kind, island, emitter, evaluation, niche, outcome, at)

    def counts(self) -> dict[str, int]:
        """Evaluations by kind; `epoch` (latest or -1); `searched` and `remeasured` in it.

        The writer keeps them up to date itself: counting all rows grows with the run.
        """
        if self._counts is not None:
            return dict(self._counts)
        found: dict[str, int] = {"seed": 0, "search": 0, "remeasure": 0, "duplicate": 0}
        found.update(self._db.execute("SELECT kind, COUNT(*) FROM evaluations GROUP BY kind"))
        (epoch,) = self._db.execute("SELECT COALESCE(MAX(epoch), -1) FROM epochs").fetchone()
        inside = dict(
            self._db.execute(
                "SELECT kind, COUNT(*) FROM evaluations WHERE epoch = ? GROUP BY kind", (epoch,)
            )
        )
        found |= {"epoch": epoch, "searched": inside.get("search", 0)}
        found["remeasured"] = inside.get("remeasure", 0)
        if not self._readonly:
            self._counts = dict(found)
        return found

    def best_seed(self) -> str | None:
        """Id of the seed with the best score when the seeds were measured; None before that."""
        row = self._db.execute(
            "SELECT program FROM evaluations WHERE kind = 'seed' ORDER BY score DESC, seq LIMIT 1"
        ).fetchone()
        return row[0] if row else None

    def standing(self, epoch: int) -> tuple[float, float, int]:
        """(best score, best seed's score, niches filled) of an epoch; 0 for none."""
        best, niches = self._db.execute(
            "SELECT COALESCE(MAX(score), 0), COUNT(DISTINCT NULLIF(niche, '')) FROM evaluations"
            " WHERE epoch = ?",
            (epoch,),
        ).fetchone()
        (seed,) = self._db.execute(
            "SELECT COALESCE(MAX(e.score), 0) FROM evaluations e JOIN programs p ON"
            " p.id = e.program WHERE e.epoch = ? AND p.emitter = 'seed'",
            (epoch,),
        ).fetchone()
        return best, seed, niches

    def by(self, column: Literal["status", "emitter"]) -> dict[str, int]:
        """Evaluations counted by status, or by emitter of their program."""
        table = {
            "status": "SELECT status, COUNT(*) FROM evaluations GROUP BY status",
            "emitter": "SELECT p.emitter, COUNT(*) FROM evaluations e JOIN programs p"
            " ON p.id = e.program WHERE e.kind != 'remeasure' GROUP BY p.emitter",
        }
        return dict(self._db.execute(table[column]))

    def by_rung(self) -> dict[str, int]:
        """Passed evaluations counted by the rung that they reached."""
        rows = self._db.execute("SELECT record FROM evaluations WHERE status = 'PASSED'")
        return dict(
            Counter(json.loads(zlib.decompress(blob)).get("rung", "full") for (blob,) in rows)
        )


def _now() -> float:
    return time.time()
