"""Who gained what, in both runs: by emitter, and by mode of the prompts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd

from analysis import gains
from evolve.comparison.runs import Side
from evolve.exchanges import Exchange, Exchanges, Reply, Verdict
from evolve.phrases import gist

REASON = 120
"""Most characters of a reason under which refusals are counted."""


def by_emitter(side: Side) -> list[dict[str, Any]]:
    """`analysis.gains.by` over who made the programs, as plain rows; the most gain first."""
    table = side.course
    found = gains.by(table, table["maker"])
    return _plain(found.sort_values("gain", ascending=False, kind="stable"), "emitter")


def by_mode(side: Side) -> list[dict[str, Any]]:
    """The same over emitter and mode of the prompts, with what became of the answers."""
    exchanges = Exchanges(side.store)
    asked = exchanges.all()
    if not asked:
        return []
    replies = {e.id: exchanges.replies(e.id) for e in asked}
    table = side.course
    modes = {
        reply.program: f"{exchange.emitter}: {exchange.mode.value}"
        for exchange in asked
        for reply in replies[exchange.id]
        if reply.verdict is Verdict.QUEUED
    }
    labels = table["program"].map(modes)
    gained = {row["mode"]: row for row in _plain(gains.by(table, labels), "mode")}
    rows = []
    for mode in sorted({f"{e.emitter}: {e.mode.value}" for e in asked}):
        own = [e for e in asked if f"{e.emitter}: {e.mode.value}" == mode]
        rows.append({"mode": mode, **_answers(own, replies), **(gained.get(mode) or _NOTHING)})
    return rows


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(gains.COLUMNS, 0), "best": None, "gain": 0.0, "last_improvement": None
}  # fmt: skip


def _answers(asked: list[Exchange], replies: dict[str, list[Reply]]) -> dict[str, Any]:
    """Prompts, those answered, answers applied, and refused ones by verdict and by reason."""
    told = [reply for exchange in asked for reply in replies[exchange.id]]
    refused = [reply for reply in told if reply.verdict is not Verdict.QUEUED]
    reasons = Counter(f"{r.verdict.value}: {gist(r.reason, REASON)}" for r in refused)
    return {
        "asked": len(asked),
        "answered": sum(bool(replies[exchange.id]) for exchange in asked),
        "applied": len(told) - len(refused),
        "refused": dict(Counter(r.verdict.value for r in refused)),
        "reasons": dict(reasons.most_common()),
    }


def _plain(table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """Rows with the index under `name`; NaN becomes None."""
    rows = json.loads(table.to_json(orient="index", double_precision=10))
    return [{name: key, **row} for key, row in rows.items()]
