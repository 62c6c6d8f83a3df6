"""The sections of a prompt, each made from a run's history. Priorities stand in `PRIORITY`."""

from __future__ import annotations

import re
from collections import defaultdict

from evaluators import tunables
from evaluators.schema import Evaluation, Status
from evolve.exchanges import Exchange, Verdict
from evolve.llm import facts, listing, wording
from evolve.llm.background import Background
from evolve.llm.facts import Cost
from evolve.llm.fit import REQUIRED, Item, Section
from evolve.llm.history import Attempt, History, tail, telling
from evolve.llm.modes import Task
from evolve.store import Row
from islands.archive import Elite
from islands.program import Program

PRIORITY = {
    name: place
    for place, name in enumerate(
        (
            "device", "measurements", "plan", "partner", "own change", "idioms of a translation",
            "earlier answers", "insights", "failures", "notes", "recalled", "elites", "idioms",
            "lineage", "elites' code",
        ),
        1,
    )
}  # fmt: skip
"""Who gets room first; task, interface, program, failure, rules and answer format always do."""

LOG = 3000
"""Most characters of a log that a repair shows."""
SHORT_LOG = 500
"""The same for an earlier answer that failed."""
EARLIER, FAILURES, ELITES, CODES, OTHERS = 8, 8, 10, 2, 6
"""Most items of these sections."""


def device(history: History) -> Section:
    lines = facts.device_lines(history.meta["device"])
    return Section("Device", PRIORITY["device"], (("\n".join(lines),),))


def interface(history: History, task: Task) -> Section:
    lines = [*facts.interface_lines(history.definition, task.language), wording.RIGHT]
    text = history.definition.description or ""
    return Section(f"Interface: {history.definition.name}", REQUIRED, (("\n".join(lines),),), text)


def notes(background: Background) -> Section:
    """The operator's notes, one item a heading; pitfalls come right after the maths."""
    parts = [p.strip() for p in re.split(r"^(?=## )", background.notes, flags=re.MULTILINE)]
    parts = [re.sub(r"^# .*\n+", "", p) for p in parts if p]
    head, rest = parts[:1], parts[1:]
    rest.sort(key=lambda p: not re.match(r"## (on \w+: *)?pitfalls", p.lower()))
    items = tuple((re.sub(r"^## ", "### ", p),) for p in (*head, *rest) if p)
    return Section("The operator", PRIORITY["notes"], items, share=0.35)


def idioms(task: Task, background: Background) -> Section:
    items = [*background.idioms.get(task.language, ()), *background.vendor]
    name = "idioms of a translation" if task.parent_language is not task.language else "idioms"
    title = f"{wording.NAMES[task.language]}: what helps and what bites"
    return Section(title, PRIORITY[name], tuple((i,) for i in items), "", 0.3, "\n")


def program(history: History, task: Task) -> Section:
    """The program to change, whole."""
    titles = {"repair": "The failed program", "translate": "The program to translate"}
    title = titles.get(task.mode.value, "The parent")
    text = listing.code(task.parent.solution)
    if "EVOLVE-BLOCK-START" in text:
        text += "\n\nOnly lines between EVOLVE-BLOCK-START and EVOLVE-BLOCK-END may change."
    return Section(title, REQUIRED, ((text,),), _standing(history, task.parent))


def failure(task: Task) -> Section:
    """What the evaluator said of a failed program."""
    if task.failure is None:
        return Section("", REQUIRED, ())
    evaluation = task.failure.evaluation
    text = f"Status {evaluation.status.value}.\n\n" + listing.fenced(
        tail(evaluation.log, LOG), "text"
    )
    return Section("How it failed", REQUIRED, ((text,),))


def own_change(history: History, task: Task) -> Section:
    """In a repair: what the failed program changed in the one that passed."""
    base = history.base(task.parent) if task.failure else None
    if base is None or base.solution.spec.language is not task.parent_language:
        return Section("", PRIORITY["own change"], ())
    text = listing.difference(base.solution, task.parent.solution)
    variants = tuple(
        listing.fenced(listing.cut(text, most), "diff") for most in (len(text), *listing.CUTS)
    )
    title = "What it changed in a program that passed"
    return Section(title, PRIORITY["own change"], (variants,), share=0.6)


def partner(history: History, task: Task) -> Section:
    if task.partner is None:
        return Section("", PRIORITY["partner"], ())
    lead = _standing(history, task.partner)
    row = history.last(task.partner.id)
    build = facts.build_line(row.evaluation.build) if row else ""
    lead += f" {build[:1].upper()}{build[1:]}." if build else ""
    wins = _wins(history, task.parent, row.evaluation) if row else ""
    lead += f"{wins.removeprefix('.')}." if wins else ""
    variants = listing.variants(task.partner.solution)
    return Section("The other parent", PRIORITY["partner"], (variants,), lead, share=0.8)


def measurements(history: History, task: Task, background: Background) -> Section:
    """Latencies, roofs, build facts and the limiter of the parent (of its base, in a repair)."""
    shown = history.base(task.parent) if task.failure else task.parent
    row = history.last(shown.id) if shown else None
    if shown is None or row is None or not row.evaluation.passed:
        return Section("", PRIORITY["measurements"], ())
    evaluation, about = row.evaluation, history.meta["device"]
    costs = _costs(history, background)
    lines = []
    if build := facts.build_line(evaluation.build):
        lines.append(f"- Build: {build}")
    lines += [
        f"- {line}" for line in facts.limiter_lines(evaluation, history.workloads, costs, about)
    ]
    tried, failed = history.settings_tried(shown)
    if tried > 1:
        lines.append(
            f"- {tried} settings of this code's tunables were evaluated ({failed} failed): other "
            "numbers alone are not worth an answer."
        )
    table = "\n".join(facts.result_rows(evaluation, history.workloads, costs, about))
    if state := wording.TIMED.get(str(about.get("type"))):
        table += f"\n\n{state}"
    whose = "the program that it was made from" if task.failure else "the parent"
    items: list[Item] = [("\n".join(lines),)] if lines else []
    return Section(f"Measurements of {whose}", PRIORITY["measurements"], (*items, (table,)))


def lineage(history: History, task: Task) -> Section:
    """What changed from the seed on, and what each step gained; the latest step first."""
    items = []
    for step in history.lineage(task.parent):
        gain = f": {step.gain}" if step.gain else ""
        items.append((f"- {_author(step.program)}{gain}",))
    most = tuple(items) if len(items) > 1 else ()
    return Section(
        "How the parent came about, latest step first", PRIORITY["lineage"], most, joint="\n"
    )


def elites(history: History, task: Task) -> Section:
    """Elites of other niches: how good, where better than the parent, with which settings."""
    items = tuple((_elite(history, task, elite),) for elite in _others(history, task)[:ELITES])
    lead = "The best program of each tile strategy: language/strategy/tile/stages/warps/memory."
    return Section(
        "Elites of other niches", PRIORITY["elites"], items, lead if items else "", 0.3, "\n"
    )


def elites_code(history: History, task: Task) -> Section:
    """Sources of the best elites that are other code than the parent.

    Those in the answer's language come first; one in another language stands for its ideas.
    """
    seen = {tunables.template(p.solution.entry_source) for p in (task.parent, task.partner) if p}
    same: list[Elite] = []
    foreign: list[Elite] = []
    for elite in _others(history, task):
        template = tunables.template(elite.program.solution.entry_source)
        if template not in seen:
            seen.add(template)
            ours = elite.program.solution.spec.language is task.language
            (same if ours else foreign).append(elite)
    parent = task.parent.solution
    items = tuple(
        tuple(f"`{e.niche.key}`{text}" for text in listing.beside(e.program.solution, parent))
        for e in (*same[:CODES], *foreign[:1])
    )
    return Section("Code of other elites", PRIORITY["elites' code"], items, share=0.9)


def failures(history: History, task: Task) -> Section:
    """Failures of this language, alike ones together, so that nobody repeats them."""
    told = {a.reply.program for a in history.attempts()[:EARLIER]}

    def near(other: Program) -> bool:
        fits = other.solution.spec.language is task.language
        return fits and other.id not in told and other.id != task.parent.id

    groups: dict[tuple[Status, str], list[Program]] = defaultdict(list)
    for other, row in history.failures(near):
        key = re.sub(r"\b(0x[0-9a-f]+|\d+)\b", "#", telling(row.evaluation.log))
        groups[row.evaluation.status, key].append(other)
    latest = {p.id: row for p, row in history.failures(near)}
    items = []
    for (status, _), members in list(groups.items())[:FAILURES]:
        notes = [p.note for p in members if p.note][:3]
        made = f" (made by: {'; '.join(notes)})" if notes else ""
        log = telling(latest[members[0].id].evaluation.log)
        items.append((f"- {status.value}, {len(members)}x: {log}{made}",))
    return Section("Failures not to repeat", PRIORITY["failures"], tuple(items), "", 0.25, "\n")


def earlier(history: History) -> Section:
    """What became of the latest answers, newest first."""
    items = tuple((attempt_text(history, a),) for a in history.attempts()[:EARLIER])
    return Section(
        "What became of earlier answers", PRIORITY["earlier answers"], items, "", 0.4, "\n"
    )


def asked_before(history: History, task: Task) -> Section:
    """Says that much the same was asked before: equal prompts get equal answers.

    The same code with other numbers, for the same language, is the same task, unless it is to be
    repaired.
    """
    alike = [] if task.failure else history.asked_alike(task.parent, task.language)
    if not alike:
        return Section("", PRIORITY["plan"], ())
    notes = [r.note for e in alike for r in history.replies(e.id)[-1:] if r.note]
    text = (
        f"This code was given out {len(alike)} time{'s' * (len(alike) > 1)} before, to others who "
        "are to make it faster too; some may be at work now. Leave the most obvious idea to them, "
        "and take one that they would not think of first."
    )
    if notes:
        text += " What they did: " + "; ".join(notes[-OTHERS:]) + "."
    return Section("Others at work", PRIORITY["plan"], ((text,),))


def rules(history: History, task: Task) -> Section:
    kind = str(history.meta["device"].get("type", "cuda"))
    return Section("Rules", REQUIRED, (("\n".join(wording.rules(task.language, kind)),),))


# -- pieces -----------------------------------------------------------------------------------


def attempt_text(history: History, attempt: Attempt) -> str:
    """One earlier answer and its outcome."""
    exchange, reply, row = attempt.exchange, attempt.reply, attempt.row
    note = f" ({reply.note})" if reply.note else ""
    head = f"- {exchange.id}{note}: "
    if reply.verdict is not Verdict.QUEUED:
        reason = reply.reason.strip().splitlines()[0] if reply.reason else ""
        return f"{head}{reply.verdict.value}, {reason}"
    if row is None:
        return f"{head}not evaluated yet"
    if not row.evaluation.passed:
        log = listing.fenced(tail(row.evaluation.log, SHORT_LOG), "text")
        return f"{head}{row.evaluation.status.value}\n\n" + _indented(log)
    return head + _passed(history, exchange, row)


def _passed(history: History, exchange: Exchange, row: Row) -> str:
    if row.evaluation.rung == "screen":
        return f"PASSED, but clearly slower than the elite of {row.niche} on the first workloads"
    text = f"PASSED, {row.evaluation.score:.3f}x the anchor"
    if gain := history.telling_gain(row.program_id, exchange.parents[0]):
        text += f", {gain}"
    words = {"NEW": "first elite of", "IMPROVED": "the new elite of"}
    if row.status_in_archive in words:
        text += f"; {words[row.status_in_archive]} {row.niche}"
    return text


def _standing(history: History, program: Program) -> str:
    row = history.last(program.id)
    about = f"{_author(program)}."
    if row is None or not row.evaluation.passed:
        return about
    return f"{about} Score {_score(row.evaluation)}, niche `{row.niche}`."


def _score(evaluation: Evaluation) -> str:
    low, high = evaluation.score_low, evaluation.score_high
    return f"{evaluation.score:.3f}x the anchor [{low:.3f}, {high:.3f}]"


def _author(program: Program) -> str:
    name = f"seed `{program.solution.name}`" if program.emitter == "seed" else program.emitter
    return f"{name} ({program.note})" if program.note else name


def _others(history: History, task: Task) -> list[Elite]:
    shown = set(task.parents)
    return [e for e in history.elites() if e.program.id not in shown]


def _elite(history: History, task: Task, elite: Elite) -> str:
    text = f"- `{elite.niche.key}`: {_score(elite.evaluation)}"
    if build := facts.build_line(elite.evaluation.build):
        text += f"; {build}"
    text += _wins(history, task.parent, elite.evaluation)
    source, parent = elite.program.solution.entry_source, task.parent.solution.entry_source
    if tunables.template(source) == tunables.template(parent):
        theirs, own = tunables.find(source), tunables.find(parent)
        differ = [f"{n} = {t.value}" for n, t in theirs.items() if t.value != own[n].value]
        text += f". The parent's code with {', '.join(differ)}"
    elif elite.program.emitter not in {"seed", "tuner"}:
        text += f". By {_author(elite.program)}"
    elif elite.program.solution.description:
        text += f". {elite.program.solution.description}"
    return text


def _wins(history: History, parent: Program, other: Evaluation) -> str:
    """Where another program is faster than the parent beyond the intervals of both."""
    mine = history.last(parent.id)
    if mine is None or not mine.evaluation.passed or mine.epoch != other.epoch:
        return ""
    ours = {r.workload: r for r in mine.evaluation.results}
    better = sorted(
        (r.speedup / ours[r.workload].speedup, history.workloads[r.workload].label)
        for r in other.results
        if r.workload in ours and r.speedup_low > ours[r.workload].speedup_high
    )
    wins = [f"{label} ({ratio:.2f}x)" for ratio, label in reversed(better[-3:])]
    return f". Faster than the parent on {', '.join(wins)}" if wins else ""


def _costs(history: History, background: Background) -> dict[str, Cost]:
    if background.cost is None:
        return {}
    return {uuid: background.cost(workload) for uuid, workload in history.workloads.items()}


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.splitlines())
