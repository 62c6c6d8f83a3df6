"""Insights: short lines that a run has learned, from summaries of batches and from authors.

A model writes the line; which programs it rests on and what they gained is attached from the store.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from evolve.exchanges import Verdict
from evolve.llm import facts, listing, wording
from evolve.llm.answer import prose
from evolve.llm.batches import Batch, Outcome
from evolve.llm.fit import REQUIRED, Item, Section, fit
from evolve.llm.history import History, tail
from evolve.llm.likeness import likeness
from evolve.notebook import Evidence, Insight, Plan, Recalled, one_line
from evolve.store import Row

MOST = 3
"""Insights read from one summary."""
TOLD = 2
"""Insights read from one ordinary answer."""
SHORT = 15
"""Characters below which a line says nothing."""
SAME = 0.6
"""Likeness from which on two insights are one."""
SHOWN, EVIDENCE = 8, 8
"""Most insights in a prompt, and most programs kept with one."""
HALF_LIFE = 16
"""Exchanges after which an insight counts half as recent."""
BIG = math.log(1.2)
"""Log of a gain (or loss) that counts in full."""
DIFF = 1500
"""Most characters of a difference in the prompt of a summary."""

ASK = """\
Do not write code now. Below are the outcomes of the last programs that were written for island \
{island} of this search. Say what whoever writes the next programs should know and could not have \
known before: what helped or hurt and why, in which case. Not a list of what was done, nothing \
that the interface or the device says already, and nothing that one measurement within the noise \
suggests."""

FORM = f"""\
Answer with at most {MOST} lines of this form and nothing else, or with the one word NOTHING:

INSIGHT <numbers of the outcomes that show it>: <what was learned, at most 200 characters>

For example `INSIGHT 1, 3: ...` rests on outcomes 1 and 3.
"""

_TAG = re.compile(
    r"^[ \t>*_#-]*INSIGHT(?P<numbers>[\d,\[\]and \t]*)(?:[*_][ \t*_]*)?:(?P<text>.*)$", re.MULTILINE
)


# -- asking for a summary ---------------------------------------------------------------------


def page(
    history: History, batch: Batch, plan: Plan | None, known: Mapping[int, Insight], tokens: int
) -> str:
    """The prompt of a batch's summary. UserError: `tokens` too small."""
    title = f"# {history.meta['operator']}: what island {batch.island} learned"
    under = f"They were written under this plan: {plan.direction}" if plan else ""
    opening = "\n\n".join(part for part in (title, ASK.format(island=batch.island), under) if part)
    device = ("\n".join(facts.device_lines(history.meta["device"])),)
    items = tuple(_item(history, at, o) for at, o in enumerate(batch.outcomes, 1))
    return fit(
        [
            Section("", REQUIRED, ((opening,),)),
            Section("Device", 3, (device,)),
            Section("Outcomes", 1, items),
            section(history, known, 2, "What is known already"),
            Section("Answer", REQUIRED, ((FORM.strip(),),)),
        ],
        tokens,
    )


def _item(history: History, number: int, outcome: Outcome) -> Item:
    """An outcome with its difference, and without."""
    exchange, reply, row = outcome.exchange, outcome.reply, outcome.row
    language = wording.NAMES[exchange.language]
    head = f"### {number}. {exchange.mode.value}, {language}: {reply.note or 'no note'}"
    if reply.verdict is not Verdict.QUEUED:
        return (f"{head}\n\nNot usable: {reply.verdict.value}. {one_line(reply.reason)}",)
    if row is None:
        return (f"{head}\n\nNot evaluated.",)
    text = f"{head}\n\n{_measured(history, outcome, row)}"
    change = _change(history, row)
    return (f"{text}\n\n{change}", text) if change else (text,)


def _measured(history: History, outcome: Outcome, row: Row) -> str:
    evaluation = row.evaluation
    if not evaluation.passed:
        log = listing.fenced(tail(evaluation.log, 400), "text")
        return f"{evaluation.status.value}:\n\n{log}"
    text = f"PASSED, {evaluation.score:.3f}x the anchor"
    if evaluation.rung == "screen":
        text = "PASSED, stopped early: clearly slower than the best of its kind"
    if outcome.gain is not None:
        noise = "beyond the noise" if outcome.gained else "within the noise"
        text += f"; with the tuner's best settings {outcome.gain:.3f}x its parent ({noise})"
    base = history.base(history.programs[row.program_id])
    before = history.last(base.id) if base else None
    builds = [facts.build_line(r.evaluation.build) for r in (before, row) if r]
    if len(builds) == 2 and builds[1] and builds[0] != builds[1]:
        text += f".\nBuild before: {builds[0] or 'unknown'}.\nBuild now: {builds[1]}"
    return f"{text}.{_workloads(history, before, row)}"


def _workloads(history: History, before: Row | None, row: Row) -> str:
    """Where it gained and where it lost, workload by workload."""
    if before is None or before.epoch != row.epoch or not before.evaluation.passed:
        return ""
    old = {r.workload: r.speedup for r in before.evaluation.results}
    ratios = sorted(
        (r.speedup / old[r.workload], history.workloads[r.workload].label)
        for r in row.evaluation.results
        if r.workload in old and r.workload in history.workloads
    )
    if len(ratios) < 2:
        return ""
    (low, worst), (high, best) = ratios[0], ratios[-1]
    return f" Over its parent from {low:.2f}x on {worst} to {high:.2f}x on {best}."


def _change(history: History, row: Row) -> str:
    program = history.programs[row.program_id]
    base = history.base(program)
    if base is None or base.solution.spec.language is not program.solution.spec.language:
        return ""
    text = listing.difference(base.solution, program.solution)
    return listing.fenced(listing.cut(text, DIFF), "diff") if text else ""


# -- reading ----------------------------------------------------------------------------------


def read(answer: str, batch: Batch, author: str) -> list[Insight] | str:
    """A summary's insights (none for NOTHING), or why the answer is none."""
    found = _lines(answer, MOST)
    if not found:
        said_nothing = re.search(r"^[^\w\n]*NOTHING[^\w\n]*$", answer, re.MULTILINE)
        return [] if said_nothing else "neither an INSIGHT line nor NOTHING"
    made = []
    for numbers, text in found:
        chosen = [batch.outcomes[n - 1] for n in numbers if 0 < n <= len(batch.outcomes)]
        made.append(
            Insight(
                text=text,
                island=batch.island,
                author=author,
                evidence=_evidence(chosen or batch.evaluated),
                exchange=max(o.exchange.number for o in batch.outcomes),
            )
        )
    return made


def told(answer: str) -> list[str]:
    """Insight lines of an ordinary answer; what stands in code is not meant."""
    return [text for _, text in _lines(prose(answer), TOLD)]


def _lines(answer: str, most: int) -> list[tuple[list[int], str]]:
    """(numbers, text) of the first insight lines that say something."""
    found = []
    for match in _TAG.finditer(answer):
        text = one_line(match["text"].strip(" *_`"))
        if len(text) >= SHORT and "<" not in text[:1]:
            found.append(([int(n) for n in re.findall(r"\d{1,4}", match["numbers"])], text))
    return found[:most]


def _evidence(outcomes: Iterable[Outcome]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(
            program=o.row.program_id, gain=_rounded(o.gain), status=o.row.evaluation.status.value
        )
        for o in outcomes
        if o.row is not None
    )[:EVIDENCE]


def _rounded(gain: float | None) -> float | None:
    return None if gain is None else round(gain, 4)


def merged(new: Insight, known: Mapping[int, Insight]) -> tuple[int, Insight] | None:
    """The known insight that says the same, joined with `new`; None when `new` is new.

    The words of the one whose evidence weighs more stay.
    """
    for number, old in known.items():
        if likeness(old.text, new.text) >= SAME:
            programs = {e.program: e for e in (*old.evidence, *new.evidence)}
            kept = new if _weight(new.gain) > _weight(old.gain) else old
            return number, kept.model_copy(
                update={
                    "evidence": tuple(programs.values())[-EVIDENCE:],
                    "exchange": max(old.exchange, new.exchange),
                    "repeats": old.repeats + 1,
                }
            )
    return None


# -- in prompts -------------------------------------------------------------------------------


def section(
    history: History,
    known: Mapping[int, Insight],
    priority: int,
    title: str = "What this run has learned",
) -> Section:
    """Insights, those that weigh most first: by recency, gain and how often they were told."""
    latest = max((insight.exchange for insight in known.values()), default=0)
    measured = [with_gains(insight, history) for insight in known.values()]
    order = sorted(measured, key=lambda insight: -_value(insight, latest))
    items = tuple((f"- {insight.text} ({basis(insight)})",) for insight in order[:SHOWN])
    return Section(title, priority, items, "", 0.3, "\n")


def recalled_section(items: Sequence[Recalled], priority: int) -> Section:
    """What earlier runs know; `near` says how far it can be trusted here."""
    rows = tuple((f"- {item.text} ({item.near})",) for item in items[:SHOWN])
    lead = "Measured there, not in this run: try, do not trust." if rows else ""
    return Section("From earlier runs", priority, rows, lead, 0.3, "\n")


def with_gains(insight: Insight, history: History) -> Insight:
    """The insight with evidence that has been measured since it was told."""
    evidence = []
    for item in insight.evidence:
        row = history.last(item.program) if not item.status else None
        if row is not None:
            base = history.base(history.programs[item.program])
            gain = _rounded(history.gain(item.program, base.id)) if base else None
            item = Evidence(program=item.program, gain=gain, status=row.evaluation.status.value)
        evidence.append(item)
    return insight.model_copy(update={"evidence": tuple(evidence)})


def basis(insight: Insight) -> str:
    """What an insight rests on, in words."""
    gains = [e.gain for e in insight.evidence if e.gain]
    failed = [e.status for e in insight.evidence if e.status not in {"", "PASSED"}]
    parts = []
    if gains:
        span = f"{min(gains):.3f}x to {max(gains):.3f}x" if len(gains) > 1 else f"{gains[0]:.3f}x"
        parts.append(f"{span} its parent" if len(gains) == 1 else f"{span} their parents")
    if failed:
        parts.append(f"{len(failed)} failed: {', '.join(sorted(set(failed)))}")
    if insight.repeats:
        parts.append(f"told {insight.repeats + 1} times")
    measured = any(e.status for e in insight.evidence)
    return "; ".join(parts) or ("passed without gain" if measured else "not measured yet")


def _value(insight: Insight, latest: int) -> float:
    recency = 0.5 ** ((latest - insight.exchange) / HALF_LIFE)
    return float(recency + _weight(insight.gain) + 0.25 * min(insight.repeats, 4))


def _weight(gain: float | None) -> float:
    return min(1.0, abs(math.log(gain)) / BIG) if gain else 0.0
