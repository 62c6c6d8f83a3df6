"""From an answer to a program: applied, checked by the guard, compared with what is known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evaluators import catalog, guard
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile
from evolve.exchanges import Exchange, Mode, Verdict
from evolve.llm.answer import Rejected
from evolve.llm.answer import code as only_code
from evolve.llm.diff import apply
from evolve.llm.fit import CHARS_PER_TOKEN, tokens_of
from evolve.llm.listing import fenced
from evolve.store import Store
from islands.program import Program, program_id

NOTE = 160
"""Most characters of a note kept with a program."""
SHOWN = 8000
"""Most characters of an unusable answer that it is returned with."""
REASON = 4000
"""Most characters of the reason why it is unusable."""
LEAST = 200
"""Fewer characters of an answer or a reason that is cut are not worth showing."""
QUOTE = 32
"""Characters around an answer that is quoted."""
CUT = "\n... (cut)"
_CHANGE = re.compile(r"^[^\w\n]*CHANGE[^\w\n]*:\W*(?P<note>\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Judged:
    """What an answer is worth: a new program, or the reason why it is none.

    A DUPLICATE has a `program` too: the one that is in the store.
    """

    verdict: Verdict
    note: str
    reason: str = ""
    program: Program | None = None


def judge(answer: str, exchange: Exchange, store: Store, definition: Definition) -> Judged:
    """Judges an answer; writes nothing. The program's ordinal is the island's next."""
    note = note_of(answer)
    parent = store.program(exchange.parents[0])
    solution = _solution(answer, exchange, parent.solution)
    if isinstance(solution, Rejected):
        return Judged(Verdict.UNREADABLE, note, solution.reason)
    found = program_id(solution)
    if found == parent.id:
        return Judged(
            Verdict.UNCHANGED, note, "nothing changes but comments, layout or names of the solution"
        )
    if store.has(found):
        known = store.program(found)
        said = f"this very program is known, proposed by {known.emitter}"
        return Judged(
            Verdict.DUPLICATE, note, said + (f" ({known.note})" * bool(known.note)), known
        )
    reasons = guard.check(solution, definition)
    if reasons:
        return Judged(Verdict.REFUSED, note, "\n".join(reasons))
    ordinal = store.proposed_by_island().get(exchange.island, (0, 0))[1]
    program = Program(
        id=found,
        solution=solution,
        parents=exchange.parents,
        island=exchange.island,
        emitter=exchange.emitter,
        ordinal=ordinal,
        note=f"{exchange.mode.value}: {note}",
    )
    return Judged(Verdict.QUEUED, note, program=program)


def again(prompt: str, answer: str, reason: str, tokens: int) -> str:
    """The prompt that returns an unusable answer to whoever gave it, with the reason, for once.

    At most `tokens` long where `prompt` is. The answer is cut first, then the reason; where not
    even that has room, the prompt is returned as it was.
    """
    room = CHARS_PER_TOKEN * tokens - len(_returned(prompt, "", ""))
    if room < LEAST:
        return prompt
    reason = _cut(reason.strip(), min(REASON, room))
    shown = _cut(answer.strip("\n"), min(SHOWN, room - len(reason) - QUOTE))
    text = _returned(prompt, reason, shown)
    # A fence is as long as what it quotes makes it.
    return text if tokens_of(text) <= tokens else _returned(prompt, reason, "")


def _returned(prompt: str, reason: str, shown: str) -> str:
    quoted = ["It was:", fenced(shown, "text")] if shown else []
    return "\n\n".join(
        [
            prompt.rstrip(),
            "# Your first answer could not be used",
            reason,
            *quoted,
            "Answer once more, in the same form. Your answer applies to the program as it stands "
            "above, not to what your first answer made of it.\n",
        ]
    )


def _cut(text: str, most: int) -> str:
    """At most `most` characters of `text`; empty where that would be next to nothing."""
    if len(text) <= most:
        return text
    return text[: most - len(CUT)] + CUT if most >= LEAST else ""


def note_of(answer: str) -> str:
    """The answer's CHANGE line, else its first line of prose, cut to `NOTE` characters."""
    match = _CHANGE.search(answer)
    if match:
        return match["note"].strip()[:NOTE]
    first = answer.strip().splitlines()[:1]
    prose = first and not re.match(r"[<`~=]", first[0])
    return first[0].lstrip("# ").strip()[:NOTE] if prose else ""


def _solution(answer: str, exchange: Exchange, parent: Solution) -> Solution | Rejected:
    """The parent with the answer applied, or a solution of its own for a translation."""
    if exchange.mode is Mode.TRANSLATE:
        text = only_code(answer)
        if isinstance(text, Rejected):
            return text
        return translated(text, exchange.language, parent, exchange.id)
    applied = apply(answer, parent.sources)
    if isinstance(applied, Rejected):
        return applied
    return parent.model_copy(
        update={"sources": applied.sources, "name": _name(exchange.id), "description": None}
    )


def translated(source: str, language: Language, parent: Solution, name: str) -> Solution:
    """A solution of one file in `language` for the parent's definition and devices."""
    file = "kernel" + catalog.SUFFIXES[language]
    native = language in (Language.CUDA, Language.CPP)
    return Solution(
        name=_name(name),
        definition=parent.definition,
        author=parent.author,
        sources=(SourceFile(path=file, content=source),),
        spec=BuildSpec(
            language=language,
            target_hardware=parent.spec.target_hardware,
            entry_point=f"{file}::run",
            binding="tvm-ffi" if native else None,
        ),
    )


def _name(exchange: str) -> str:
    return f"exchange_{exchange}"
