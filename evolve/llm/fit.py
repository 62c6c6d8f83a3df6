"""Fits a prompt into a token budget: sections with priorities, made of items that may be left out.

Required sections are always whole. The others get their items in order of priority: in a first
round none takes more than its share of the room, in a second round what is left is filled up. An
item comes in variants, the fullest first; the first one that fits is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evolve.errors import UserError

CHARS_PER_TOKEN = 4
"""Estimate for code and English; no tokeniser is asked."""
REQUIRED = 0
"""Priority of sections that are never cut."""

Item = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A titled part of a prompt. A lower `priority` gets room earlier; `share` is of the room."""

    title: str
    priority: int
    items: tuple[Item, ...]
    lead: str = ""
    share: float = 1.0
    joint: str = "\n\n"  # between items


class TooFewTokens(UserError):
    """The parts of a prompt that are always there do not fit its budget."""


def tokens_of(text: str) -> int:
    """Estimated tokens of a text, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def fit(sections: Sequence[Section], tokens: int) -> str:
    """The prompt, at most `tokens` long. TooFewTokens when the required sections are longer."""
    limit = tokens * CHARS_PER_TOKEN
    page = _Page([s for s in sections if s.items or s.lead])
    if page.size > limit:
        raise TooFewTokens(
            f"--tokens {tokens} is too small: the task and its program alone take "
            f"{-(-page.size // CHARS_PER_TOKEN)}"
        )
    room = limit - page.size
    for greedy in (False, True):
        for at in page.by_priority():
            most = room if greedy else int(room * page.sections[at].share)
            page.fill(at, limit, most)
    return page.text()


class _Page:
    """Which variant of which item is in, by section."""

    def __init__(self, sections: list[Section]) -> None:
        self.sections = sections
        self._chosen: list[dict[int, int]] = [
            dict.fromkeys(range(len(s.items) if s.priority == REQUIRED else 0), 0) for s in sections
        ]

    def by_priority(self) -> Iterator[int]:
        """Places of the sections that may be cut, most important first."""
        places = [i for i, s in enumerate(self.sections) if s.priority != REQUIRED]
        yield from sorted(places, key=lambda i: self.sections[i].priority)

    @property
    def size(self) -> int:
        return len(self.text())

    def fill(self, at: int, limit: int, most: int) -> None:
        """Take items of a section while the page stays within `limit` and it within `most`."""
        chosen = self._chosen[at]
        for number, item in enumerate(self.sections[at].items):
            if number in chosen:
                continue
            for variant in range(len(item)):
                chosen[number] = variant
                if self.size <= limit and len(self._section(at)) <= most:
                    break
                del chosen[number]

    def text(self) -> str:
        parts = [self._section(at) for at in range(len(self.sections))]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _section(self, at: int) -> str:
        section, chosen = self.sections[at], self._chosen[at]
        if not chosen and section.priority != REQUIRED:
            return ""
        parts = [f"## {section.title}"] if section.title else []
        parts += [section.lead] if section.lead else []
        kept = [section.items[i][variant] for i, variant in sorted(chosen.items())]
        parts += [section.joint.join(kept)] if kept else []
        missing = len(section.items) - len(chosen)
        parts += [f"({missing} more left out for room)"] if missing else []
        return "\n\n".join(parts)
