"""What commands print: JSON documents, and how a run ended."""

from __future__ import annotations

import json
from typing import Any

import typer


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str))


def finish(outcome: Any, as_json: bool) -> None:
    replayed = _replayed(outcome)
    if as_json:
        facts = {"run": str(outcome.run_dir), "ended": outcome.reason, "report": outcome.report}
        print_json(facts | ({"replay": replayed} if replayed else {}))
    elif outcome.report is not None:
        from evolve.output import closing_table

        print(closing_table(outcome.run_dir))
    if replayed and not as_json:
        from evolve.replay import conclusion_lines

        print("\n".join(["", *conclusion_lines(replayed)]))
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _replayed(outcome: Any) -> dict[str, Any] | None:
    """How a closed replay went, kept beside its tables; None for other runs."""
    if outcome.report is None:
        return None
    from evolve import replay as again

    facts = again.conclusion(outcome.run_dir)
    if facts is not None:
        again.write(outcome.run_dir, facts)
    return facts
