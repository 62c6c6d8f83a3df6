"""What became of every answer of a run: status, gain, what limits it, the end of its log.

python feedback.py RUN [--last N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from evolve.errors import UserError
from evolve.llm import background, facts
from evolve.llm.background import Background
from evolve.llm.history import Attempt, History, tail
from evolve.store import Row, Store

LOG = 600
"""Most characters of a failure's log."""


def feedback(run_dir: Path, last: int | None = None) -> list[dict[str, Any]]:
    """One record an answered prompt, the oldest first. UserError: there is no run."""
    store = Store.open(run_dir, readonly=True)
    try:
        history = History(store)
        about = background.load(history.meta, history.definition)
        attempts = history.attempts()[:last]
        return [_record(store, history, about, attempt) for attempt in reversed(attempts)]
    finally:
        store.close()


def _record(store: Store, history: History, about: Background, attempt: Attempt) -> dict[str, Any]:
    exchange, reply = attempt.exchange, attempt.reply
    found: dict[str, Any] = {
        "id": exchange.id,
        "mode": exchange.mode.value,
        "island": exchange.island,
        "note": reply.note,
        "program": reply.program,
        "status": reply.verdict.value,
    }
    if attempt.row is None:
        return found | ({"reason": reply.reason} if reply.reason else {})
    return found | _measured(store, history, about, attempt.row, exchange.parents[0])


def _measured(
    store: Store, history: History, about: Background, row: Row, parent: str
) -> dict[str, Any]:
    evaluation = row.evaluation
    found: dict[str, Any] = {"status": evaluation.status.value}
    if build := facts.build_line(evaluation.build):
        found["build"] = build
    if not evaluation.passed:
        return found | {"log": tail(evaluation.log, LOG)}
    workloads = {w.uuid: w for w in store.epochs().get(row.epoch, [])}
    costs = {u: about.cost(w) for u, w in workloads.items()} if about.cost else {}
    limits = facts.limiter_lines(evaluation, workloads, costs, history.meta["device"])
    table = facts.result_rows(evaluation, workloads, costs, history.meta["device"])
    return found | {
        "archive": row.status_in_archive,
        "niche": row.niche,
        "stopped_early": evaluation.rung == "screen",
        "gain": history.gain(row.program_id, parent),
        "limits": limits,
        "workloads": table,
    }


def lines(record: dict[str, Any]) -> list[str]:
    """One record for people."""
    head = f"{record['id']}  {record['mode']}, island {record['island']}: {record['status']}"
    if record.get("stopped_early"):
        head += ", clearly slower than its niche's elite: stopped after the first workloads"
    elif record.get("gain"):
        head += f", {record['gain']:.3f}x its parent, {record['archive']} in {record['niche']}"
    elif record.get("archive"):
        head += f", {record['archive']} in {record['niche']}"
    found = [head, f"  {record['note']}"]
    if record["program"]:
        found.append(f"  program {record['program']}")
    if "build" in record:
        found.append(f"  {record['build']}")
    found += [f"  {line}" for line in record.get("limits", ())]
    found += [f"  {line}" for line in record.get("workloads", ())]
    text = str(record.get("log") or record.get("reason") or "")
    return [*found, *(f"  > {line}" for line in text.strip().splitlines())]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--last", type=int, help="only so many answers, the latest")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    try:
        found = feedback(options.run, options.last)
    except UserError as error:
        print(f"feedback: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n\n".join("\n".join(lines(record)) for record in found) or "no answers yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
