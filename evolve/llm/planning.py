"""A plan for an island: the prompt that asks for one, and how its answer is read.

A plan names what limits the island's programs, one direction to work in and what to leave alone.
It holds for a batch of exchanges. A direction that was tried without gain is exhausted: the prompt
says so, and a plan that repeats it is not followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evolve.exchanges import Mode, Verdict
from evolve.llm import facts, insights, listing, sections, wording
from evolve.llm.background import Background
from evolve.llm.batches import Batch, Outcome
from evolve.llm.facts import Cost
from evolve.llm.fit import REQUIRED, Section, fit
from evolve.llm.history import History, telling
from evolve.llm.likeness import likeness
from evolve.llm.modes import Task
from evolve.notebook import Insight, Plan, Recalled, Result, one_line
from evolve.store import Row
from islands.archive import Elite
from islands.selection import ranked

EXHAUSTED = 3
"""Programs of a plan that were evaluated without gain after which its direction is exhausted."""
ALIKE = 0.6
"""Likeness from which on two directions are the same."""
ELITES, TRIED, OTHERS, CODES = 5, 12, 8, 2
"""Most items of these sections."""

ASK = """\
Do not write code now. Decide what island {island} of this search works on next: several programs \
will be written under your plan, each a change of one of the island's elites. Choose from the \
measurements what limits the elites most, and one direction against it that has not been tried or \
that gained and is not finished. A direction is structural (how work is split, how data moves, \
which instructions compute): a tuner searches numbers by itself."""

FORM = """\
Answer with these three lines and nothing else, each at most 200 characters:

BOTTLENECK: what limits the elites most, with the number that shows it
DIRECTION: the one structural change to work on, so precise that it could be written at once
AVOID: what not to spend programs on, or nothing
"""

_TAG = re.compile(r"^[ \t>*_#-]*(BOTTLENECK|DIRECTION|AVOID)[ \t*_]*:[ \t]*(.*)$")
_NOTHING = frozenset({"", "-", "n/a", "none", "nothing", "nothing."})


@dataclass(frozen=True)
class Advice:
    """An answer's three parts."""

    bottleneck: str
    direction: str
    avoid: str


@dataclass(frozen=True)
class Known:
    """What the run's notebook and batches tell about its plans."""

    plans: Sequence[tuple[Plan, Result | None]]
    batches: Mapping[int, Sequence[Batch]]
    insights: Mapping[int, Insight]
    recalled: Sequence[Recalled]

    def present(self, island: int) -> Plan | None:
        """The plan that an island's next exchange follows, whatever came of it so far."""
        latest = self.batches[island][-1].number if island in self.batches else None
        return next((plan for plan, _ in self.plans if plan.number == latest), None)

    def exhausted(self) -> list[Plan]:
        """Plans whose directions were tried and gained nothing, the latest first."""
        return [plan for plan, found in reversed(self.plans) if is_exhausted(found)]


def is_exhausted(result: Result | None) -> bool:
    """Whether a direction was tried often enough, without gain."""
    return result is not None and result.evaluated >= EXHAUSTED and not result.gained


# -- asking -----------------------------------------------------------------------------------


def page(
    history: History, background: Background, known: Known, island: int, tokens: int
) -> str | None:
    """The prompt of a plan; None while the island has no elite. UserError: `tokens` too small."""
    archive = history.archive(island)
    if not len(archive):
        return None
    best = ranked(archive)[0].program
    task = Task(Mode.DIFF, 0, island, best, best.solution.spec.language)
    ask = ASK.format(island=island)
    title = f"# {history.meta['operator']}: a plan for island {island}"
    measured = sections.measurements(history, task, background)
    failures = sections.failures(history, task)
    return fit(
        [
            Section("", REQUIRED, (("\n\n".join([title, ask, wording.SCORE]),),)),
            sections.interface(history, task),
            replace(sections.notes(background), priority=11),
            replace(sections.device(history), priority=1),
            replace(measured, title="Measurements of the island's best program", priority=2),
            _elites(history, background, island),
            _directions(known),
            _others(history, known, island),
            _tried(history, known, island),
            replace(failures, priority=7),
            insights.section(history, known.insights, priority=8),
            insights.recalled_section(known.recalled, priority=9),
            _code(history, island),
            Section("Answer", REQUIRED, ((FORM.strip(),),)),
        ],
        tokens,
    )


def _elites(history: History, background: Background, island: int) -> Section:
    cost = background.cost
    costs = {uuid: cost(w) for uuid, w in history.workloads.items()} if cost else {}
    found = ranked(history.archive(island))[:ELITES]
    # The best one's limiter stands with its measurements.
    items = tuple((_elite(history, e, costs if at else None),) for at, e in enumerate(found))
    lead = "The best program of each tile strategy: language/strategy/tile/stages/warps/memory."
    return Section("The island's elites", 3, items, lead, 0.4, "\n")


def _elite(history: History, elite: Elite, costs: Mapping[str, Cost] | None) -> str:
    text = f"- `{elite.niche.key}`: {elite.score:.3f}x the anchor"
    if build := facts.build_line(elite.evaluation.build):
        text += f"; {build}"
    if costs is None:
        return text
    about = (elite.evaluation, history.workloads, costs, history.meta["device"])
    return "\n  ".join([text, *facts.limiter_lines(*about)])


def _directions(known: Known) -> Section:
    """Exhausted directions of all islands; alike ones once."""
    items: list[str] = []
    for plan in known.exhausted():
        if not any(likeness(plan.direction, item) >= ALIKE for item in items):
            items.append(plan.direction)
    lead = "Tried without gain; do not choose them again, in these words or in others."
    rows = tuple((f"- {direction}",) for direction in items)
    return Section("Exhausted directions", 4, rows, lead if rows else "", joint="\n")


def _others(history: History, known: Known, island: int) -> Section:
    """What the other islands work on, so that this one differs."""
    rows = []
    for other in range(history.config.islands.count):
        plan = known.present(other) if other != island else None
        if plan is not None:
            best = history.archive(other).best()
            score = f" (best {best.score:.3f}x the anchor)" if best else ""
            rows.append((f"- island {other}{score}: {plan.direction}",))
    lead = "Choose another than these." if rows else ""
    return Section("What other islands work on", 5, tuple(rows[:OTHERS]), lead, joint="\n")


def _tried(history: History, known: Known, island: int) -> Section:
    """The island's plans and answers with what came of them, the latest first."""
    by_number = {plan.number: (plan, found) for plan, found in known.plans}
    rows: list[str] = []
    for batch in reversed(known.batches.get(island, ())):
        plan, found = by_number.get(batch.number, (None, None))
        if plan is not None:
            rows.append(f"- plan: {plan.direction} -> {verdict(found)}")
        rows += [f"- {told(outcome)}" for outcome in reversed(batch.outcomes)]
    items = tuple((row,) for row in rows[:TRIED])
    return Section("What was tried on this island, latest first", 6, items, "", 0.4, "\n")


def _code(history: History, island: int) -> Section:
    found = ranked(history.archive(island))[:1]
    items = tuple(listing.variants(elite.program.solution) for elite in found)
    return Section("Code of the island's best program", 10, items, share=0.9)


def verdict(result: Result | None) -> str:
    """A plan's result in words."""
    if result is None or not result.evaluated:
        return "nothing evaluated yet"
    text = f"{result.evaluated} evaluated, {result.passed} passed"
    if result.gain is not None:
        text += f", best {result.gain:.3f}x its parent"
    if is_exhausted(result):
        return f"{text}: exhausted"
    return text if result.gained else f"{text}, no gain beyond the noise"


def told(outcome: Outcome) -> str:
    """One answer and what came of it, in a line."""
    reply, row = outcome.reply, outcome.row
    text = f"{outcome.exchange.mode.value}: {reply.note or 'no note'} -> "
    if reply.verdict is not Verdict.QUEUED:
        return text + reply.verdict.value
    if row is None:
        return text + "not evaluated yet"
    return text + _measured(row, outcome)


def _measured(row: Row, outcome: Outcome) -> str:
    if not row.evaluation.passed:
        return f"{row.evaluation.status.value}, {telling(row.evaluation.log)}"
    if row.evaluation.rung == "screen":
        return "PASSED, stopped early: clearly slower than the best of its kind"
    if outcome.gain is None:
        return f"PASSED, {row.evaluation.score:.3f}x the anchor"
    noise = "" if outcome.gained else " (no gain)" if outcome.gain < 1 else " (within the noise)"
    return f"PASSED, {outcome.gain:.3f}x its parent{noise}"


# -- reading ----------------------------------------------------------------------------------


def read(answer: str) -> Advice | str:
    """An answer's plan, or why it is none. Where it has several, the last one counts."""
    found: dict[str, str] = {}
    tag = ""
    for line in answer.splitlines():
        match = _TAG.match(line)
        if match:
            tag = match[1]
            found = {} if tag == "BOTTLENECK" else found
            found[tag] = match[2]
        elif not line.strip() or line.lstrip().startswith("```"):
            tag = ""
        elif tag:
            found[tag] += f" {line}"
    parts = {tag: one_line(text.strip(" *_`")) for tag, text in found.items()}
    for tag in ("BOTTLENECK", "DIRECTION"):
        if parts.get(tag, "").lower() in _NOTHING:
            return f"no {tag} line with something in it"
        if _is_form(tag, parts[tag]):
            return f"the {tag} line repeats the form"
    avoid = parts.get("AVOID", "")
    if avoid.lower() in _NOTHING or _is_form("AVOID", avoid):
        avoid = ""
    return Advice(parts["BOTTLENECK"], parts["DIRECTION"], avoid)


def repeats(advice: Advice, known: Known) -> Plan | None:
    """The exhausted plan whose direction this is."""
    for plan in known.exhausted():
        if likeness(plan.direction, advice.direction) >= ALIKE:
            return plan
    return None


def _is_form(tag: str, text: str) -> bool:
    form = next(m[2] for line in FORM.splitlines() if (m := _TAG.match(line)) and m[1] == tag)
    return likeness(form, text) > 0.9


# -- in prompts -------------------------------------------------------------------------------


def section(plan: Plan | None, priority: int) -> Section:
    """The plan in the prompt of an exchange that follows it."""
    if plan is None:
        return Section("", priority, ())
    lines = [f"- What limits: {plan.bottleneck}", f"- Direction: {plan.direction}"]
    lines += [f"- Leave alone: {plan.avoid}"] if plan.avoid else []
    lead = (
        "Work in this direction, with a step that was not tried yet; where it does not fit the "
        "program above, say so in your CHANGE line and do what helps most."
    )
    return Section("The plan", priority, (("\n".join(lines),),), lead)
