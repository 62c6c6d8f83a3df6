"""A source as lines with their endings, and the regions of it that may change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

_LINE = re.compile(r"([^\n]*?)(\r?\n|\Z)")
_MARK = re.compile(r"^\s*(?:#|//|/\*)\s*EVOLVE-BLOCK-(?P<side>START|END)\b")


class BadMarkers(ValueError):
    """EVOLVE-BLOCK markers that do not pair up."""


@dataclass(frozen=True)
class Change:
    """Lines `start` to `end` (exclusive, counted from 0) give way to `lines`."""

    start: int
    end: int
    lines: tuple[str, ...]

    @property
    def idle(self) -> bool:
        """Whether nothing changes."""
        return self.start == self.end and not self.lines


@dataclass(frozen=True)
class Document:
    """One source file. Only LF and CRLF end a line; each line keeps its ending."""

    path: str
    text: str

    @cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [(m[1], m[2]) for m in _LINE.finditer(self.text)]
        return [pair for pair in pairs if pair != ("", "")]

    @cached_property
    def lines(self) -> list[str]:
        return [line for line, _ in self._pairs]

    @cached_property
    def ending(self) -> str:
        """The ending that most lines have."""
        endings = [ending for _, ending in self._pairs]
        return "\r\n" if endings.count("\r\n") > endings.count("\n") else "\n"

    @cached_property
    def regions(self) -> list[tuple[int, int]] | None:
        """Lines between EVOLVE-BLOCK markers as (first, end exclusive); None without markers."""
        return regions_of(self.lines)

    def allows(self, change: Change) -> bool:
        """Whether a change lies within one region (or nothing is marked) and adds no marker."""
        if any(_MARK.match(line) for line in change.lines):
            return False
        if self.regions is None:
            return True
        if change.idle:
            return True
        return any(a <= change.start and change.end <= b for a, b in self.regions)

    def changed(self, changes: Iterable[Change]) -> str:
        """The text after changes that do not overlap; other lines keep every byte."""
        pairs: list[tuple[str, str]] = []
        at = 0
        for change in sorted(changes, key=lambda c: (c.start, c.end)):
            pairs += self._pairs[at : change.start]
            pairs += [(line, self.ending) for line in change.lines]
            at = change.end
        pairs += self._pairs[at:]
        return self._joined(pairs)

    def rewritten(self, lines: Sequence[str]) -> str:
        """The text with all lines replaced, in this file's endings."""
        return self._joined([(line, self.ending) for line in lines])

    def _joined(self, pairs: list[tuple[str, str]]) -> str:
        if not pairs:
            return ""
        closed = "".join(line + (ending or self.ending) for line, ending in pairs[:-1])
        line, ending = pairs[-1]
        return closed + line + ((ending or self.ending) if self._closed else "")

    @cached_property
    def _closed(self) -> bool:
        """Whether the last line has an ending."""
        return self.text.endswith("\n")


def regions_of(lines: Sequence[str]) -> list[tuple[int, int]] | None:
    """Regions between markers; None without any. BadMarkers when they do not pair up."""
    found: list[tuple[int, int]] = []
    opened: int | None = None
    for number, line in enumerate(lines):
        mark = _MARK.match(line)
        if not mark:
            continue
        if (mark["side"] == "START") != (opened is None):
            raise BadMarkers(f"line {number + 1}: EVOLVE-BLOCK-{mark['side']} without its pair")
        if opened is None:
            opened = number + 1
        else:
            found.append((opened, number))
            opened = None
    if opened is not None:
        raise BadMarkers(f"line {opened}: EVOLVE-BLOCK-START without its pair")
    return found or None
