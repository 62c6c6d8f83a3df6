"""A report for people: lines on a terminal, a Markdown page, and the JSON document beside it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis import frames
from analysis.report import markdown_table, tables
from analysis.report import text as closing_text
from evolve.errors import UserError
from evolve.verification.record import Outcome, Report, Step, Table
from evolve.verification.subject import REPORT

PAGE = "report.md"


def make(folder: Path) -> None:
    """The report's folder, writable; UserError when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write the report to {folder}: permission denied; use --out")


def write(report: Report, folder: Path) -> None:
    """Write report.md and report.json."""
    (folder / REPORT).write_text(json.dumps(report.document(), indent=1) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(markdown(report), encoding="utf-8")


def line(step: Step) -> str:
    """A step on one line."""
    return f"{step.name:12s} {step.outcome.value:13s} {step.summary}".rstrip()


def text(report: Report, folder: Path, width: int = 140) -> str:
    """What a terminal shows at the end."""
    lines = [f"{report.verdict}  {report.solution} on {report.device}"]
    if report.reason:
        lines.append(report.reason)
    lines += [f"  {line(step)}" for step in report.steps]
    lines += [f"  note ({step.name}): {note}" for step in report.steps for note in step.notes]
    if report.entries:
        lines += ["", closing_text(_run(report), width=width).rstrip()]
    return "\n".join([*lines, f"report       {folder / PAGE}"])


def markdown(report: Report) -> str:
    """The page."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.started))
    parts = [
        f"# {report.verdict}: {report.solution} on {report.device}",
        _verdict(report),
        f"`{report.definition}`, {report.language}, entry point `{report.entry_point}`, "
        f"source digest `{report.digest}`; {when}, unseen workloads by seed {report.seed}.",
        _overview(report),
    ]
    for step in report.steps:
        if step.outcome is not Outcome.NOT_REACHED:
            parts += _section(step)
    others = [entry for entry in report.entries if entry["role"] != "champion"]
    if others:
        parts.append("## Beside others")
        parts += [f"### {head}\n\n{markdown_table(table)}" for head, table in tables(_run(report))]
    return "\n\n".join(parts) + "\n"


def _verdict(report: Report) -> str:
    if report.reason:
        return f"{report.reason}."
    return "Every step holds." if report.passed else "It ended before all steps were done."


def _overview(report: Report) -> str:
    rows = [
        {"step": step.name, "outcome": step.outcome.value, "what": step.summary, "s": step.seconds}
        for step in report.steps
    ]
    return _table(rows)


def _section(step: Step) -> Iterator[str]:
    yield f"## {step.name.capitalize()}: {step.outcome.value}"
    if step.summary:
        yield step.summary
    if step.notes:
        yield "\n".join(f"- **Note:** {note}" for note in step.notes)
    if step.facts:
        yield _table([{"fact": _words(k), "value": _plain(v)} for k, v in step.facts.items()])
    for table in step.tables:
        yield _titled(table)
    if step.log:
        yield f"```\n{step.log.strip()}\n```"


def _titled(table: Table) -> str:
    rows = [{_words(key): value for key, value in row.items()} for row in table.rows]
    return f"### {table.title}\n\n{_table(rows)}"


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown of rows with the same columns; numbers to the right."""
    if not rows:
        return "(no rows)"
    heads = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [all(isinstance(row.get(h), int | float | None) for row in rows) for h in heads]
    lines = [heads, ["---:" if n else "---" for n in numeric]]
    lines += [[_cell(row.get(h)) for h in heads] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> str:
    return _plain(value).replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


_UNITS = {"us": "(µs)", "ms": "(ms)", "percent": "(%)", "bytes": "(bytes)", "s": "(s)"}


def _words(key: str) -> str:
    """`latency_us` -> `latency (µs)`."""
    *words, last = key.split("_")
    return " ".join([*words, _UNITS.get(last, last)]) if words else key


def _run(report: Report) -> frames.Run:
    """The benchmark in the form of a run's closing tables."""
    return frames.Run(
        definition=report.definition,
        device=report.device,
        evaluations=frames.evaluations([]),
        entries=frames.entries(report.entries),
        ceilings={},
        champion=report.solution,
        verified=report.passed,
    )
