"""What earlier runs know: their insights and the steps that gained most, ranked for this run.

Stored runs are read where they lie, read-only and without their sources being compiled or imported;
what is chosen is copied into this run's store, so that its prompts stay the same wherever its
directory goes and whatever becomes of the others.

    rank = definition x device x (0.5 + gain + 0.5 relevance) x age

definition: 1 the same, 0.7 a sibling of the operator, 0.3 another operator in a language that this
run writes. device: 1 the same, 0.8 the same capability or type, 0.5 another. gain: |log gain| over
log 1.2, at most 1 (a loss teaches too). relevance: of the text to what the run is about (BM25, 0 to
1). age: halves every 90 days behind the newest. Alike texts are kept once.
"""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evolve.llm.history import languages
from evolve.llm.likeness import likeness, relevance
from evolve.notebook import Insight, Notebook, Recalled, one_line
from evolve.store import FILE, VERSION, Store
from islands.program import Program

KEPT = 16
"""Most items that a run takes over."""
STEPS, INSIGHTS = 40, 60
"""Most steps and insights read of one run."""
PLAIN = 1.02
"""Gain of a step below which it teaches nothing."""
SAME = 0.6
"""Likeness from which on two items are one."""
HALF_LIFE_DAYS = 90.0
BIG = math.log(1.2)
LONGEST = 16 << 20
"""Bytes of a record; what unpacks to more is not ours."""

_PROBLEMS = (sqlite3.Error, zlib.error, ValidationError, ValueError, KeyError, TypeError, OSError)
"""What a damaged or foreign file can raise while it is read."""


@dataclass(frozen=True)
class Gathered:
    """Items copied, runs read, and a line for every file that could not be."""

    kept: int
    runs: int
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """One item of one run before it is ranked."""

    text: str
    run: str
    meta: Mapping[str, Any]
    language: str
    gain: float | None
    at: float


def gather(
    store: Store, folders: Iterable[Path], *, about: str = "", limit: int = KEPT
) -> Gathered:
    """Copies what helps from the runs in `folders` (runs themselves, or folders of runs).

    `about` is text that says what the run is about, such as the operator's notes; without it the
    definition's description is taken. Replaces what was gathered before; the run's own file is left
    out.
    """
    own = (store.run_dir / FILE).resolve()
    found: list[_Found] = []
    skipped: list[str] = []
    runs = 0
    for file in _files(folders):
        if file.resolve() == own:
            continue
        try:
            found += _read(file)
            runs += 1
        except _PROBLEMS as error:
            skipped.append(f"{file.parent.name}: not a readable run ({one_line(str(error), 80)})")
    meta = store.meta
    about = about or str(meta.get("definition_record", {}).get("description") or "")
    items = ranked(found, meta, about)[:limit]
    Notebook(store).set_recalled(items)
    return Gathered(len(items), runs, skipped)


def _files(folders: Iterable[Path]) -> list[Path]:
    files = {
        file
        for folder in folders
        for file in (folder / FILE, *(folder.glob(f"*/{FILE}") if folder.is_dir() else ()))
        if file.is_file()
    }
    return sorted(files)


# -- reading ----------------------------------------------------------------------------------


def _read(file: Path) -> list[_Found]:
    with closing(_open(file)) as db:
        meta = {k: json.loads(v) for k, v in db.execute("SELECT key, value FROM meta")}
        version = meta.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise ValueError(f"format {version}, known: {VERSION}")
        if not isinstance(meta["device"], dict) or not {"operator", "definition"} <= meta.keys():
            raise ValueError("its device or definition is not told")
        scores = _Scores(db)
        name = file.parent.name
        return [*_insights(db, name, meta, scores), *_steps(db, name, meta, scores)]


def _open(file: Path) -> sqlite3.Connection:
    """A connection that writes nothing, not even where SQLite would keep its locks."""
    mode = "mode=ro"
    if not file.with_name(f"{FILE}-wal").exists():
        mode += "&immutable=1"  # no writer is there: readable on a read-only file system too
    db = sqlite3.connect(f"{file.resolve().as_uri()}?{mode}", uri=True, timeout=2.0)
    db.execute("PRAGMA query_only=1")
    return db


class _Scores:
    """Scores by program and epoch, from columns alone: no record is parsed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._by_program: dict[str, dict[int, float]] = {}
        rows = db.execute(
            "SELECT program, epoch, score FROM evaluations WHERE status = 'PASSED' AND score > 0"
        )
        for program, epoch, score in rows:
            self._by_program.setdefault(program, {})[epoch] = score

    def gain(self, program: str, base: str) -> float | None:
        """Ratio of the scores in the latest epoch that measured both."""
        mine, theirs = self._by_program.get(program, {}), self._by_program.get(base, {})
        common = [epoch for epoch in mine.keys() & theirs.keys() if theirs[epoch] > 0]
        return mine[max(common)] / theirs[max(common)] if common else None


def _insights(
    db: sqlite3.Connection, run: str, meta: Mapping[str, Any], scores: _Scores
) -> Iterator[_Found]:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'insights'").fetchone():
        return
    sql = "SELECT record, at FROM insights ORDER BY number DESC LIMIT ?"
    for blob, at in db.execute(sql, (INSIGHTS,)):
        insight = Insight.model_validate_json(_unpacked(blob))
        gains = [insight.gain]
        language = ""
        for evidence in insight.evidence:
            program = _program(db, evidence.program)
            if program is None:
                continue
            language = language or program.solution.spec.language.value
            if not insight.gain and program.parents:
                gains.append(scores.gain(program.id, program.parents[0]))
        known = [g for g in gains if g]
        gain = max(known, key=lambda g: max(g, 1 / g), default=None)
        yield _Found(insight.text, run, meta, language, gain, at)


def _steps(
    db: sqlite3.Connection, run: str, meta: Mapping[str, Any], scores: _Scores
) -> Iterator[_Found]:
    """Steps of structure that gained: notes of elites, the tuner's numbers left out."""
    sql = """
        SELECT p.record, MAX(e.at) FROM evaluations e JOIN programs p ON p.id = e.program
        WHERE e.outcome IN ('NEW', 'IMPROVED') AND p.emitter NOT IN ('seed', 'tuner')
        GROUP BY p.id ORDER BY MAX(e.score) DESC, p.number LIMIT ?"""
    for blob, at in db.execute(sql, (STEPS,)):
        program = Program.model_validate_json(_unpacked(blob))
        gain = scores.gain(program.id, program.parents[0]) if program.parents else None
        if program.note and gain is not None and gain >= PLAIN:
            language = program.solution.spec.language.value
            yield _Found(one_line(program.note), run, meta, language, gain, at)


def _unpacked(blob: bytes) -> bytes:
    # What is cut off at the limit is no JSON any more, and fails as such.
    return zlib.decompressobj().decompress(blob, LONGEST)


def _program(db: sqlite3.Connection, program_id: str) -> Program | None:
    row = db.execute("SELECT record FROM programs WHERE id = ?", (program_id,)).fetchone()
    return Program.model_validate_json(_unpacked(row[0])) if row else None


# -- ranking ----------------------------------------------------------------------------------


def ranked(found: list[_Found], meta: Mapping[str, Any], about: str) -> list[Recalled]:
    """Items worth something here, best first, alike ones once. See the module for the score."""
    newest = max((item.at for item in found), default=0.0)
    fits = relevance(about, [item.text for item in found]) if about else [0.0] * len(found)
    scored: list[tuple[float, str, _Found]] = []
    for item, fit in zip(found, fits, strict=True):
        same, near = _definition(item, meta)
        device, where = _device(item.meta["device"], meta["device"])
        gain = min(1.0, abs(math.log(item.gain)) / BIG) if item.gain else 0.0
        age = 0.5 ** ((newest - item.at) / 86400 / HALF_LIFE_DAYS)
        rank = same * device * (0.5 + gain + 0.5 * fit) * age
        if rank > 0:
            scored.append((rank, f"{near}, {where}", item))
    scored.sort(key=lambda entry: (-entry[0], entry[2].run, entry[2].text))
    kept: list[Recalled] = []
    for rank, near, item in scored:
        if all(likeness(item.text, other.text) < SAME for other in kept):
            kept.append(_recalled(item, near, rank))
    return kept


def _recalled(item: _Found, near: str, rank: float) -> Recalled:
    gain = f"{item.gain:.3f}x its parent; " if item.gain else ""
    return Recalled(
        text=item.text,
        run=item.run,
        definition=str(item.meta["definition"]),
        device=str(item.meta["device"].get("name", "")),
        language=item.language,
        near=f"{gain}{near}",
        gain=item.gain,
        rank=round(rank, 4),
        at=item.at,
    )


def _definition(item: _Found, meta: Mapping[str, Any]) -> tuple[float, str]:
    if item.meta["definition"] == meta["definition"]:
        return 1.0, "the same definition"
    if item.meta["operator"] == meta["operator"]:
        return 0.7, one_line(str(item.meta["definition"]), 80)
    if item.language and item.language in languages(
        meta["device"], meta.get("config", {}).get("languages") or ()
    ):
        return 0.3, f"another operator, {one_line(str(item.meta['operator']), 60)}"
    return 0.0, ""


def _device(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[float, str]:
    name = one_line(str(theirs.get("name", "an unknown device")), 60)
    if theirs.get("name") == ours.get("name"):
        return 1.0, "the same device"
    for key in ("capability", "type"):
        if theirs.get(key) and theirs.get(key) == ours.get(key):
            return 0.8, f"on {name}"
    return 0.5, f"on {name}"
