"""Where a SEARCH text stands in a source, and what is nearest when it stands nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

PROBES = 8
"""Lines of a SEARCH text that are compared to find the nearest place."""
SHOWN = 12
"""Most lines of it that are shown."""
COMPARED = 200
"""Characters of a line that are compared."""


@dataclass(frozen=True)
class Match:
    """A place: its first line, and the indentation that the answer lacks or has too much."""

    start: int
    exact: bool
    missing: str = ""
    excess: str = ""

    def repair(self, lines: Sequence[str]) -> tuple[str, ...] | None:
        """Replacement lines at the source's indentation; None where one has too little."""
        if any(line.strip() and not line.startswith(self.excess) for line in lines):
            return None
        return tuple(
            self.missing + line.removeprefix(self.excess) if line.strip() else line
            for line in lines
        )


def matches(search: Sequence[str], lines: Sequence[str]) -> list[Match]:
    """All places of `search` at the strictest level that has one.

    Levels: the same lines; the same but for trailing blanks; the same but for one indentation that
    all lines lack or have too much.
    """
    search, lines = list(search), list(lines)
    size = len(search)
    starts = range(len(lines) - size + 1)
    if found := [Match(i, True) for i in starts if lines[i : i + size] == search]:
        return found
    wanted = [line.rstrip() for line in search]
    given = [line.rstrip() for line in lines]
    if found := [Match(i, False) for i in starts if given[i : i + size] == wanted]:
        return found
    shifted = ((i, _shift(wanted, given[i : i + size])) for i in starts)
    return [Match(i, False, *shift) for i, shift in shifted if shift is not None]


def _shift(search: list[str], window: list[str]) -> tuple[str, str] | None:
    """(missing, excess) indentation that makes `search` the window; None when there is none."""
    shift: tuple[str, str] | None = None
    for ours, theirs in zip(search, window, strict=True):
        if ours.lstrip() != theirs.lstrip():
            return None
        if not ours:
            continue
        same = _common_end(ours, theirs)
        this = theirs[: len(theirs) - same], ours[: len(ours) - same]
        if shift not in (None, this):
            return None
        shift = this
    return shift


def _common_end(a: str, b: str) -> int:
    """How many last characters two strings share."""
    length = min(len(a), len(b))
    return next((k for k in range(length) if a[-1 - k] != b[-1 - k]), length)


def nearest(search: Sequence[str], lines: Sequence[str]) -> tuple[float, int]:
    """(similarity between 0 and 1, first line) of the place most like `search`."""
    full = [k for k, line in enumerate(search) if line.strip()]
    probes = full[:: max(1, -(-len(full) // PROBES))]
    starts = range(max(1, len(lines) - len(search) + 1))
    scores = [0.0] * len(starts)
    distinct = {line: line.strip()[:COMPARED] for line in lines}
    matcher = SequenceMatcher(autojunk=False)
    for k in probes:
        matcher.set_seq2(search[k].strip()[:COMPARED])
        alike: dict[str, float] = {}
        for line, bare in distinct.items():
            matcher.set_seq1(bare)
            alike[line] = matcher.quick_ratio() if bare else 0.0
        for i in starts:
            if i + k < len(lines):
                scores[i] += alike[lines[i + k]]
    best = max(starts, key=lambda i: scores[i])
    return scores[best] / max(1, len(probes)), best


def describe_miss(search: Sequence[str], path: str, lines: Sequence[str], start: int) -> str:
    """Names the lines from `start` on, and the first that differs from `search`."""
    end = min(len(lines), start + len(search))
    shown = range(start, min(end, start + SHOWN))
    listing = "\n".join(f"{i + 1:5d} | {lines[i]}" for i in shown)
    more = "" if end <= start + SHOWN else f"\n      ... to line {end}"
    differs = ""
    for theirs, ours, number in zip(
        lines[start:end], search, range(start + 1, end + 1), strict=False
    ):
        if theirs.rstrip() != ours.rstrip():
            differs = f"\nLine {number} differs from SEARCH, which has:\n        {ours}"
            break
    where = f"are lines {start + 1}-{end}" if end > start + 1 else f"is line {start + 1}"
    return f"Nearest {where} of {path}:\n{listing}{more}{differs}"
