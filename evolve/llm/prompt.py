"""A prompt: one task of a run, with what the run knows about it, within a budget of tokens.

Task, interface, the program itself, a failure's log, rules and answer format are always there.
What else fits is decided by the priorities in `evolve.llm.sections`; the order in which a reader
meets the sections is decided here. Equal stores give equal prompts: no times, no paths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from evolve.exchanges import Exchange
from evolve.llm import sections, wording
from evolve.llm.background import Background
from evolve.llm.fit import REQUIRED, Section, fit
from evolve.llm.history import History
from evolve.llm.modes import Task

TOKENS = 12_000
"""Default budget of a prompt."""


def build(
    history: History,
    background: Background,
    task: Task,
    *,
    emitter: str,
    tokens: int = TOKENS,
    as_file: bool = True,
    learned: Sequence[Section] = (),
) -> Exchange:
    """The exchange that asks for `task`; nothing is stored.

    `as_file`: the prompt names the file that the answer belongs in. `learned`: sections of plans
    and insights. UserError when `tokens` is too small for the parts that are always there.
    """
    name = exchange_id(task)
    page = [
        Section(
            "",
            REQUIRED,
            ((_opening(history, task),),),
        ),
        sections.interface(history, task),
        sections.notes(background),
        sections.device(history),
        sections.program(history, task),
        sections.failure(task),
        sections.own_change(history, task),
        sections.measurements(history, task, background),
        sections.partner(history, task),
        sections.lineage(history, task),
        sections.elites(history, task),
        sections.elites_code(history, task),
        *learned,
        sections.earlier(history),
        sections.failures(history, task),
        sections.idioms(task, background),
        sections.rules(history, task),
        Section(
            "Answer",
            REQUIRED,
            ((wording.answer_format(task.mode, answer_file(name) if as_file else None),),),
        ),
    ]
    return Exchange(
        id=name,
        number=task.number,
        emitter=emitter,
        mode=task.mode,
        island=task.island,
        language=task.language,
        parents=task.parents,
        prompt=fit(page, tokens),
    )


def exchange_id(task: Task) -> str:
    """Number, mode and a digest of the parents: also the stem of the prompt's file."""
    digest = hashlib.sha256("\0".join(task.parents).encode()).hexdigest()
    return f"{task.number:04d}-{task.mode.value}-{digest[:6]}"


def answer_file(exchange: str) -> str:
    """Name of the file that answers an exchange."""
    return f"{exchange}.answer.md"


def _opening(history: History, task: Task) -> str:
    operator = str(history.meta["operator"])
    ask = wording.ask(task.mode, task.language, task.parent_language)
    languages = dict.fromkeys(wording.NAMES[x] for x in (task.parent_language, task.language))
    title = f"# {operator}: {task.mode.value}, {' to '.join(languages)}"
    return "\n\n".join([title, ask, wording.SCORE])
