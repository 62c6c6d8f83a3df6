"""Sources, logs and differences as Markdown code blocks."""

from __future__ import annotations

import difflib
import re

from evaluators.schema import Language, Solution
from evolve.llm.wording import FENCES

CUTS = (12000, 6000, 2500)
"""Characters to which a source that is not the task's own may be cut."""

ALIKE = 0.6
"""A difference shorter than this part of a source is shown in its place."""


def variants(solution: Solution) -> tuple[str, ...]:
    """A solution's code, whole and cut shorter and shorter."""
    whole = code(solution)
    size = len(solution.entry_source)
    word = fence_word(solution.spec.language)
    cuts = [fenced(cut(solution.entry_source, most), word) for most in CUTS if most < size]
    return (whole, *cuts)


def beside(solution: Solution, known: Solution) -> tuple[str, ...]:
    """A solution's code as what a reader of `known` needs: what differs, where much is the same."""
    changes = difference(known, solution)
    if len(changes) < ALIKE * len(solution.entry_source):
        return (f", by what differs from the parent:\n\n{fenced(changes, 'diff')}",)
    return tuple(f":\n\n{text}" for text in variants(solution))


def code(solution: Solution) -> str:
    """All sources as code blocks under their paths."""
    word = fence_word(solution.spec.language)
    return "\n\n".join(f"`{s.path}`:\n\n{fenced(s.content, word)}" for s in solution.sources)


def fence_word(language: Language) -> str:
    return FENCES.get(language, "python")


def fenced(text: str, word: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{word}\n{text.rstrip()}\n{fence}"


def cut(text: str, most: int) -> str:
    """The beginning of a text, whole lines of at most `most` characters together."""
    if len(text) <= most:
        return text
    kept = text[:most]
    kept = kept[: kept.rfind("\n") + 1] or kept
    left = text.count("\n") - kept.count("\n")
    return f"{kept}... {left} more lines"


def difference(old: Solution, new: Solution) -> str:
    """Unified diff of two entry sources."""
    lines = list(
        difflib.unified_diff(
            old.entry_source.splitlines(), new.entry_source.splitlines(), lineterm="", n=2
        )
    )
    return "\n".join(lines[2:])
