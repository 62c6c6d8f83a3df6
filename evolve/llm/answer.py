"""What a model may answer: SEARCH/REPLACE blocks, or whole files in fenced code blocks.

Parsing knows the grammar alone; whether a block fits a source is `evolve.llm.diff`'s affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

EDIT_FORMAT = """\
Answer with one or more blocks of this form; SEARCH is whole lines, copied exactly from the source:

<<<<<<< SEARCH
the lines to change, with as many lines around them as make them unique in the file
=======
the lines that take their place; none to delete
>>>>>>> REPLACE

All blocks refer to the source as given, not to what other blocks make of it, and must not overlap.
Where there are several files, write the file's path on the line before the block.
"""
REWRITE_FORMAT = """\
Answer with the complete new file in exactly one fenced code block. Where there are several files,
give one block for each file that changes, its path on the line before the block.
"""

_SEARCH = re.compile(r"^\s*<{5,9}\s*SEARCH\b>?[ \t]*(?P<path>\S*)\s*$")
_REPLACE = re.compile(r"^\s*>{5,9}\s*REPLACE\s*$")
_DIVIDER = re.compile(r"^\s*={7}\s*$")
_SLOPPY_DIVIDER = re.compile(r"^\s*={5,9}\s*$")
_FENCE = re.compile(r"^(?P<indent>\s*)(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)$")
_CHANGE = re.compile(r"^[^\w\n]*CHANGE[^\w\n]*:")
_PATH = re.compile(r"[\w./+-]+\.(?:py|cu|cuh|cpp|cc|c|h|hpp)")
_NOT_CODE = frozenset({"bash", "sh", "shell", "console", "text", "txt", "output", "json", "diff"})

DIVIDERS = 32
"""Most lines of a block that may be its divider: each is a way to read it."""

Lines = tuple[str, ...]


class Problem(StrEnum):
    """Why an answer cannot be applied."""

    FORMAT = "FORMAT"  # no blocks, or blocks that are not closed
    EMPTY_SEARCH = "EMPTY_SEARCH"
    MISS = "MISS"
    DUPLICATE = "DUPLICATE"
    OVERLAP = "OVERLAP"
    REGION = "REGION"  # a change outside EVOLVE-BLOCK-START/END
    UNKNOWN_FILE = "UNKNOWN_FILE"
    EMPTY_RESULT = "EMPTY_RESULT"


@dataclass(frozen=True)
class Rejected:
    """An answer that was not applied; `reason` is written for the model that gave it."""

    problem: Problem
    reason: str


@dataclass(frozen=True)
class Block:
    """One SEARCH/REPLACE block: its lines between the markers, and where they may divide.

    Sources may hold lines such as `=======` themselves, so there may be several dividers.
    """

    path: str | None
    lines: Lines
    dividers: tuple[int, ...]

    def readings(self) -> Iterator[tuple[Lines, Lines]]:
        """Possible (search, replace) pairs, the longest search first.

        A text that by chance goes on as the replacement does is much less likely than a source
        with a line that looks like a divider.
        """
        for at in reversed(self.dividers):
            search, replace = self.lines[:at], self.lines[at + 1 :]
            if _unfenced(search) != search:
                yield search, replace
            yield _unfenced(search), _unfenced(replace)


@dataclass(frozen=True)
class WholeFile:
    """A fenced code block: the file's path, where one was named, and its lines."""

    path: str | None
    lines: Lines


def lines_of(text: str) -> list[str]:
    """Lines of an answer; only LF and CRLF end one."""
    return text.replace("\r\n", "\n").split("\n")


def has_blocks(answer: str) -> bool:
    """Whether the answer means to be SEARCH/REPLACE blocks."""
    return any(_SEARCH.match(line) for line in lines_of(answer))


def blocks(answer: str, paths: Sequence[str]) -> tuple[Block, ...] | Rejected:
    """All SEARCH/REPLACE blocks, verbatim repetitions left out. `paths`: the sources' paths."""
    lines = lines_of(answer)
    found: list[Block] = []
    at = 0
    while at < len(lines):
        start = _SEARCH.match(lines[at])
        if not start:
            at += 1
            continue
        number = len(found) + 1
        end = _end_of_block(lines, at + 1)
        if end is None:
            return _format(f"Block {number} has no line `>>>>>>> REPLACE`: was the answer cut?")
        body = tuple(lines[at + 1 : end])
        dividers = _dividers(body)
        if not dividers:
            return _format(f"Block {number} has no line `=======` between SEARCH and REPLACE.")
        if len(dividers) > DIVIDERS:
            return _format(f"Block {number} has more than {DIVIDERS} lines `=======`.")
        named = _named(start["path"], paths) or _path_before(lines, at, paths)
        found.append(Block(named, body, dividers))
        at = end + 1
    if not found:
        return _format("The answer has no SEARCH/REPLACE block.")
    return tuple(dict.fromkeys(found))


def whole_files(answer: str, paths: Sequence[str]) -> tuple[WholeFile, ...] | Rejected:
    """The fenced code blocks of an answer; blocks of shell commands and such are left out.

    So are blocks without a path before the CHANGE line, where others follow it: some agents print
    what they thought on the way as well.
    """
    lines = lines_of(answer)
    found: list[WholeFile] = []
    before: int | None = None  # blocks before the CHANGE line
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if not fence:
            if before is None and _CHANGE.match(lines[at]):
                before = len(found)
            at += 1
            continue
        end = _end_of_fence(lines, at + 1, fence["mark"])
        if end is None:
            return _format("The code block is not closed: was the answer cut?")
        info = fence["info"].split()
        if not info or info[0].lower() not in _NOT_CODE:
            named = next((p for word in info if (p := _named(word, paths))), None)
            content = tuple(_dedent(line, fence["indent"]) for line in lines[at + 1 : end])
            found.append(WholeFile(named or _path_before(lines, at, paths), content))
        at = end + 1
    if not found:
        return _format("The answer has no fenced code block.")
    if before is not None and before < len(found):
        found = [file for file in found[:before] if file.path is not None] + found[before:]
    return tuple(found)


def code(answer: str) -> str | Rejected:
    """Text of the answer's only code block, for a file that does not exist yet; ends with LF."""
    found = whole_files(answer, ())
    if isinstance(found, Rejected):
        return found
    if len(found) != 1:
        return _format(f"The answer has {len(found)} code blocks; give exactly one.")
    text = "\n".join(found[0].lines).strip("\n")
    if not text.strip():
        return Rejected(Problem.EMPTY_RESULT, "The code block is empty.")
    return text + "\n"


def prose(answer: str) -> str:
    """The answer without its code blocks and SEARCH/REPLACE blocks; an open one goes to the end."""
    lines = lines_of(answer)
    kept: list[str] = []
    at = 0
    while at < len(lines):
        end: int | None = at
        if fence := _FENCE.match(lines[at]):
            end = _end_of_fence(lines, at + 1, fence["mark"])
        elif _SEARCH.match(lines[at]):
            end = next((i for i in range(at + 1, len(lines)) if _REPLACE.match(lines[i])), None)
        else:
            kept.append(lines[at])
        at = len(lines) if end is None else end + 1
    return "\n".join(kept)


def _format(reason: str) -> Rejected:
    return Rejected(Problem.FORMAT, reason)


def _end_of_block(lines: list[str], at: int) -> int | None:
    for i in range(at, len(lines)):
        if _REPLACE.match(lines[i]):
            return i
        if _SEARCH.match(lines[i]):
            return None
    return None


def _dividers(body: Lines) -> tuple[int, ...]:
    for pattern in (_DIVIDER, _SLOPPY_DIVIDER):
        if found := tuple(i for i, line in enumerate(body) if pattern.match(line)):
            return found
    return ()


def _end_of_fence(lines: list[str], at: int, mark: str) -> int | None:
    for i in range(at, len(lines)):
        text = lines[i].strip()
        if len(text) >= len(mark) and set(text) == {mark[0]}:
            return i
    return None


def _path_before(lines: list[str], at: int, paths: Sequence[str]) -> str | None:
    """A path on the line before a block; a fence and blank lines may stand between."""
    for line in reversed(lines[max(0, at - 3) : at]):
        if _REPLACE.match(line):
            return None
        fence = _FENCE.match(line)
        words = fence["info"].split() if fence else [line]
        for word in words:
            if named := _named(word, paths):
                return named
        if line.strip() and not fence:
            return None
    return None


def _named(text: str, paths: Sequence[str]) -> str | None:
    """The path that a line consists of, comment marks and emphasis aside."""
    bare = re.sub(r"^(?:[#/*\s`-]|(?i:file(?:name)?|path)\s*:)+", "", text).rstrip("`*: \t\r")
    return bare if bare in paths or _PATH.fullmatch(bare) else None


def _unfenced(lines: Lines) -> Lines:
    """`lines` without a code fence around all of them."""
    full = [i for i, line in enumerate(lines) if line.strip()]
    if len(full) < 2 or not _FENCE.match(lines[full[0]]):
        return lines
    return lines[full[0] + 1 : full[-1]] if lines[full[-1]].strip() == "```" else lines


def _dedent(line: str, indent: str) -> str:
    return line.removeprefix(indent) if indent else line
