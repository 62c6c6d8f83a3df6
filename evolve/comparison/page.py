"""A comparison for people: lines on a terminal, a Markdown page, the figure, and JSON beside it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import comparison as figure
from analysis.report import GEOMEAN, markdown_table
from evolve.authors import table as authors
from evolve.comparison.compare import Comparison
from evolve.comparison.duel import BASE, RUN, Duel
from evolve.comparison.runs import Pair
from evolve.phrases import counted
from evolve.recording import Measured
from evolve.verification.page import make

__all__ = ["make", "markdown", "text", "write"]

STEM = "comparison"
_SHOWN = 12
"""Most reasons of refusals that the page shows for one mode."""


def write(found: Comparison, pair: Pair, folder: Path) -> list[Path]:
    """Writes comparison.md, .json and .png, and RUN's exchanges where it has some."""
    files = [folder / f"{STEM}.{kind}" for kind in ("md", "json", "png")]
    files[1].write_text(json.dumps(found.document(), indent=1) + "\n", encoding="utf-8")
    files[0].write_text(markdown(found), encoding="utf-8")
    figure.draw(
        [
            figure.Course(side.name, side.course, side.seeds, side.entries)
            for side in (pair.run, pair.base)
        ],
        files[2],
        title=f"{found.definition} on {pair.run.device}",
        note=f"{headline(found)} {found.heights}",
        pooled=found.same_workloads,
    )
    return [*files, *authors.write(pair.run.store, folder)]


def headline(found: Comparison) -> str:
    """What the measurement says, in a sentence."""
    run, base = (found.runs[name]["name"] for name in (RUN, BASE))
    if found.duel is None:
        return "The champions were not measured against each other."
    if found.duel.mean is None:
        return f"No measurement: {found.duel.failure}."
    mean = found.duel.mean
    beyond = "" if found.duel.verdict != "ALIKE" else ", which tells them not apart"
    return (
        f"Champion of {run}: {mean.speedup:.3f}x as fast as that of {base} (95% interval "
        f"{mean.low:.3f} to {mean.high:.3f}{beyond}), geometric mean over the "
        f"{len(found.duel.workloads)} shapes of the report grid, measured in pairs."
    )


# -- terminal ---------------------------------------------------------------------------------


def text(found: Comparison, written: Sequence[Path]) -> str:
    """What a terminal shows at the end."""
    lines = [f"{found.verdict}  {found.definition}: {_names(found)}", headline(found)]
    lines += [f"  note: {note}" for note in found.notes]
    for head, table in _tables(found):
        lines += ["", head, table.to_string(index=False)]
    return "\n".join([*lines, "", *(str(path) for path in written)])


def _names(found: Comparison) -> str:
    return f"{found.runs[RUN]['name']} against {found.runs[BASE]['name']}"


def _tables(found: Comparison) -> Iterator[tuple[str, pd.DataFrame]]:
    if found.duel is not None and found.duel.workloads:
        yield "Champions head to head", _head_to_head(found.duel)
    for side in (RUN, BASE):
        name = found.runs[side]["name"]
        if found.emitters[side]:
            yield f"Gain per emitter: {name}", _gains(found.emitters[side], "emitter")
        if found.modes[side]:
            yield f"Prompts and gain per mode: {name}", _modes(found.modes[side])


def _head_to_head(duel: Duel) -> pd.DataFrame:
    rows = []
    for met in duel.workloads:
        row: dict[str, Any] = {"workload": met.label}
        row |= {"run µs": _us(met.run_us), "base µs": _us(met.base_us)}
        if met.run_copy is not None and met.base_copy is not None:
            row |= {"run of copy": f"{met.run_copy:.0%}", "base of copy": f"{met.base_copy:.0%}"}
        row |= {"run over base": _x(met.ratio)}
        row |= {"run second": f"{met.as_candidate:.3f}", "run first": f"{met.as_anchor:.3f}"}
        rows.append(row)
    if duel.mean is not None:
        rows.append({"workload": GEOMEAN, "run over base": _x(duel.mean)})
    return pd.DataFrame(rows).fillna("")


def _gains(rows: Sequence[Mapping[str, Any]], name: str) -> pd.DataFrame:
    return pd.DataFrame([{name: row[name], **_gained(row)} for row in rows])


def _gained(row: Mapping[str, Any]) -> dict[str, Any]:
    last = row["last_improvement"]
    return {
        "evaluated": row["evaluated"],
        "passed": row["passed"],
        "new elites": row["new"],
        "improved": row["improved"],
        "best": f"{row['best']:.3f}x" if row["best"] is not None else "",
        "gain": f"{math.exp(row['gain']):.3f}x",
        "last gain at": str(round(last)) if last is not None else "",
    }


def _modes(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "mode": row["mode"],
                **{key: row[key] for key in ("asked", "answered", "applied")},
                "refused": counted(row["refused"]),
                **_gained(row),
            }
            for row in rows
        ]
    )


def _x(found: Measured) -> str:
    return f"{found.speedup:.3f}x [{found.low:.3f}, {found.high:.3f}]"


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


# -- page -------------------------------------------------------------------------------------


def markdown(found: Comparison) -> str:
    """The page."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.started))
    parts = [
        f"# {found.definition}: {_names(found)}",
        f"**{found.verdict}.** {headline(found)}",
        *(f"**Note:** {note}." for note in found.notes),
        f"![both trajectories]({STEM}.png)",
        f"## The runs\n\n{markdown_table(_runs(found))}\n\n{found.heights} {when}.",
    ]
    if found.settings:
        rows = [{k: _plain(v) for k, v in row.items()} for row in found.settings]
        parts.append(f"### Settings that differ\n\n{markdown_table(pd.DataFrame(rows))}")
    for head, table in _tables(found):
        parts.append(f"## {head}\n\n{markdown_table(table)}")
        if head.startswith("Champions"):
            parts.append(_ORDERS)
    parts += [part for side in (RUN, BASE) for part in _refusals(found, side)]
    parts += [_lineage(found, side) for side in (RUN, BASE)]
    if found.environment:
        facts = [{"fact": k, "value": _plain(v)} for k, v in found.environment.items()]
        parts.append(f"## Measured on\n\n{markdown_table(pd.DataFrame(facts))}")
    return "\n\n".join(parts) + "\n"


_ORDERS = (
    "*Run over base* above 1: RUN's champion is faster; 95% interval in brackets. It is the mean "
    "of both orders: RUN's champion as the candidate beside BASE's (*run second*), and the other "
    "way round (*run first*)."
)


def _runs(found: Comparison) -> pd.DataFrame:
    rows = []
    for fact, show in _FACTS.items():
        values = {found.runs[side]["name"]: show(found.runs[side]) for side in (RUN, BASE)}
        rows.append({"": fact, **values})
    if found.duel is not None and found.duel.over_anchor:
        head = f"champion over `{found.duel.anchor}`, here"
        over = found.duel.over_anchor
        rows.append({"": head, **{found.runs[s]["name"]: _x(over[s]) for s in (RUN, BASE)}})
    return pd.DataFrame(rows)


_FACTS: dict[str, Any] = {
    "device of the run": lambda facts: facts["device"],
    "evaluations": lambda facts: str(facts["evaluations"]),
    "epochs": lambda facts: str(facts["epochs"]),
    "seed": lambda facts: str(facts["seed"]),
    "hours from first to last evaluation": lambda facts: f"{facts['hours']:.2f}",
    "emitters": lambda facts: _plain(facts["emitters"]),
    "exchanges": lambda facts: _spent(facts["authors"]),
    "champion": lambda facts: (
        f"`{facts['champion'][:8]}`, {facts['champion_language']}, by {facts['champion_made_by']}"
    ),
    "champion over the anchor, as the run closed": lambda facts: (
        f"{facts['champion_score']:.3f}x" if facts["champion_score"] else "not measured"
    ),
}


def _spent(authors_: Mapping[str, Any] | None) -> str:
    if not authors_:
        return "none"
    tokens = f"; {authors_['tokens']:,} tokens, ${authors_['cost']:.2f}"
    return counted(authors_["exchanges"]) + (tokens if authors_["tokens"] else "")


def _refusals(found: Comparison, side: str) -> Iterator[str]:
    rows = [
        {"mode": row["mode"], "answers": count, "reason": reason}
        for row in found.modes[side]
        for reason, count in list(row["reasons"].items())[:_SHOWN]
    ]
    if rows:
        head = f"## Answers refused: {found.runs[side]['name']}"
        yield f"{head}\n\n{markdown_table(pd.DataFrame(rows))}"


def _lineage(found: Comparison, side: str) -> str:
    facts = found.runs[side]
    lines = [f"## How the champion of {facts['name']} came about"]
    for number, step in enumerate(facts["lineage"], 1):
        gain = f" ({step['gain']:.3f}x its parent)" if step["gain"] else ""
        change = " ".join(step["change"].split())
        lines.append(f"{number}. `{step['program'][:8]}` {step['emitter']}: {change}{gain}")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return counted(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "not set" if value is None else str(value)
