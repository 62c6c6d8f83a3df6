"""Every exchange of a run with what became of it, as a table for people and programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from evolve.authors.calls import Calls
from evolve.authors.report import summarise
from evolve.exchanges import Exchange, Exchanges
from evolve.llm.history import History
from evolve.store import Store

COLUMNS = (
    "number", "id", "emitter", "model", "mode", "island", "language", "parent", "attempts",
    "verdict",
    "program", "status", "rung", "score", "gain", "archive", "niche", "staleness", "tokens", "cost",
    "note", "reason",
)  # fmt: skip
"""`verdict` and `reason` are of the last answer; `gain` is the ratio of the scores of program and
parent where one epoch measured both in full; `tokens` and `cost` (USD) are of all calls."""


def write(store: Store, folder: Path, texts: bool = False) -> list[Path]:
    """Writes exchanges.csv and authors.json; nothing for a run without exchanges.

    `texts`: also every prompt and answer as files of their own, in `exchanges/`.
    """
    found, facts = rows(store), summarise(store)
    if not found:
        return []
    file = folder / "exchanges.csv"
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(found)
    (folder / "authors.json").write_text(json.dumps(facts, indent=1) + "\n")
    written = [file, folder / "authors.json"]
    return [*written, _texts(store, folder / "exchanges")] if texts else written


def _texts(store: Store, folder: Path) -> Path:
    """`<exchange>.md` and `<exchange>.answer.md`; an answer given once more has a number."""
    folder.mkdir(exist_ok=True)
    exchanges = Exchanges(store)
    for exchange in exchanges.all():
        (folder / f"{exchange.id}.md").write_text(exchange.prompt)
        for reply in exchanges.replies(exchange.id):
            number = "" if reply.attempt == 1 else f"-{reply.attempt}"
            (folder / f"{exchange.id}.answer{number}.md").write_text(reply.answer)
    return folder


def rows(store: Store) -> list[dict[str, Any]]:
    """One row an exchange, in the order asked; keys are `COLUMNS`, absent ones empty."""
    history, calls = History(store), Calls(store)
    return [_row(history, calls, exchange) for exchange in history.asked()]


def _row(history: History, calls: Calls, exchange: Exchange) -> dict[str, Any]:
    made = calls.of(exchange.id)
    replies = history.replies(exchange.id)
    row: dict[str, Any] = {
        "number": exchange.number,
        "id": exchange.id,
        "emitter": exchange.emitter,
        "model": made[-1].model if made else "",
        "mode": exchange.mode.value,
        "island": exchange.island,
        "language": exchange.language.value,
        "parent": exchange.parents[0],
        "attempts": len(replies),
        "verdict": "NO_ANSWER",
        "tokens": sum(call.usage.tokens for call in made),
        "cost": sum(call.usage.cost for call in made),
    }
    if not replies:
        return row
    last = replies[-1]
    row |= {"verdict": last.verdict.value, "note": last.note, "reason": last.reason}
    row |= {"program": last.program, "staleness": last.staleness}
    evaluated = history.last(last.program) if last.program else None
    if evaluated is not None:
        row |= {
            "status": evaluated.evaluation.status.value,
            "rung": evaluated.evaluation.rung,
            "archive": evaluated.status_in_archive,
            "niche": evaluated.niche,
            "gain": history.gain(evaluated.program_id, exchange.parents[0]),
        }
        full = evaluated.evaluation.passed and evaluated.evaluation.rung == "full"
        row["score"] = evaluated.evaluation.score if full else None
    return row
