"""Applying a model's answer to sources, strictly: what is not certain is refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Literal

from evaluators.schema import SourceFile
from evolve.llm.answer import (
    Block,
    Lines,
    Problem,
    Rejected,
    WholeFile,
    blocks,
    has_blocks,
    whole_files,
)
from evolve.llm.document import BadMarkers, Change, Document, regions_of
from evolve.llm.exchange import clean
from evolve.llm.matching import Match, describe_miss, matches, nearest

Form = Literal["edits", "rewrite"]
PROBLEMS = 5
"""Most blocks whose trouble is told: finding the nearest lines takes long."""


@dataclass(frozen=True)
class Applied:
    """New sources, in the order of the old ones.

    `edits`: blocks or files that the answer held; `repaired`: blocks whose white space was mended.
    The sources may equal the old ones.
    """

    sources: tuple[SourceFile, ...]
    form: Form
    edits: int
    repaired: int = 0


def apply(
    answer: str, sources: Sequence[SourceFile], form: Form | None = None
) -> Applied | Rejected:
    """Applies SEARCH/REPLACE blocks or whole files; `form` None: whichever the answer holds.

    Every SEARCH text must have exactly one place in the sources as given (within the regions that
    may change, where the source marks some); nothing else changes, not even a line's ending.
    """
    answer = clean(answer)
    documents = {s.path: Document(s.path, s.content) for s in sources}
    try:
        for document in documents.values():
            document.regions  # noqa: B018  # reads the markers
    except BadMarkers as error:
        return Rejected(Problem.REGION, f"The source's own markers are broken: {error}.")
    if form == "edits" or (form is None and has_blocks(answer)):
        return _apply_blocks(answer, documents)
    return _apply_files(answer, documents)


@dataclass(frozen=True)
class _Place:
    """Where a block may apply; no `change` where its indentation cannot be mended."""

    document: Document
    match: Match
    size: int
    change: Change | None

    @property
    def allowed(self) -> bool:
        return self.change is None or self.document.allows(self.change)

    def __str__(self) -> str:
        return f"{self.document.path} {_span(self.match.start, self.match.start + self.size)}"


def _apply_blocks(answer: str, documents: dict[str, Document]) -> Applied | Rejected:
    found = blocks(answer, list(documents))
    if isinstance(found, Rejected):
        return found
    changes: list[tuple[int, str, Change]] = []
    problems: list[Rejected] = []
    repaired = 0
    for number, block in enumerate(found, 1):
        if len(problems) == PROBLEMS:
            rest = f"{len(found) - number + 1} further blocks were not looked at."
            problems.append(Rejected(problems[0].problem, rest))
            break
        place = _place(block, documents)
        if isinstance(place, Rejected):
            problems.append(Rejected(place.problem, f"Block {number}: {place.reason}"))
        elif place.change is not None and not place.change.idle:
            changes.append((number, place.document.path, place.change))
            repaired += not place.match.exact
    problems += _overlaps(changes)
    if problems:
        return Rejected(problems[0].problem, "\n".join(p.reason for p in problems))
    texts = {
        path: document.changed(change for _, where, change in changes if where == path)
        for path, document in documents.items()
    }
    return _applied(texts, "edits", len(found), repaired)


def _place(block: Block, documents: dict[str, Document]) -> _Place | Rejected:
    """The one place that a block changes."""
    if block.path is not None and block.path not in documents:
        return _unknown(block.path, documents)
    chosen = [documents[block.path]] if block.path is not None else list(documents.values())
    readings = [(s, r) for s, r in block.readings() if any(line.strip() for line in s)]
    for search, replace in readings:
        hits = [(d, m) for d in chosen for m in matches(search, d.lines)]
        # An exact match in one file outdoes a mended one in another.
        hits = [hit for hit in hits if hit[1].exact] or hits
        if hits:
            return _only(
                [_Place(d, m, len(search), _change(d, m, len(search), replace)) for d, m in hits]
            )
    if not readings:
        return Rejected(
            Problem.EMPTY_SEARCH,
            "SEARCH is empty. To insert, search for a line beside it and repeat it in REPLACE.",
        )
    return Rejected(Problem.MISS, _miss(readings[-1][0], chosen))


def _change(document: Document, match: Match, size: int, replace: Lines) -> Change | None:
    """What really changes: lines that a block repeats as context are left alone."""
    lines = match.repair(replace)
    if lines is None:
        return None
    window = document.lines[match.start : match.start + size]
    before = _common(window, lines, match.exact)
    after = _common(window[before:][::-1], lines[before:][::-1], match.exact)
    start, end = match.start + before, match.start + size - after
    return Change(start, end, lines[before : len(lines) - after])


def _common(ours: Sequence[str], theirs: Sequence[str], exact: bool) -> int:
    """How many first lines are the same, trailing blanks aside where the match needed that."""
    count = 0
    for a, b in zip(ours, theirs, strict=False):
        if a != b and (exact or a.rstrip() != b.rstrip()):
            break
        count += 1
    return count


def _only(places: list[_Place]) -> _Place | Rejected:
    """The only place that may change."""
    allowed = [place for place in places if place.allowed]
    if len(allowed) > 1:
        return Rejected(
            Problem.DUPLICATE,
            f"SEARCH has {len(allowed)} places: {', '.join(map(str, allowed))}. "
            "Add lines around it until there is one.",
        )
    if not allowed:
        return Rejected(Problem.REGION, f"{places[0]}: {_where_allowed(places[0].document)}")
    if allowed[0].change is None:
        return Rejected(
            Problem.MISS,
            f"SEARCH has more indentation than {allowed[0]}, and a line of REPLACE has less of it.",
        )
    return allowed[0]


def _where_allowed(document: Document) -> str:
    if document.regions is None:
        return "EVOLVE-BLOCK markers must not be added."
    spans = ", ".join(_span(a, b) for a, b in document.regions if a < b) or "nothing"
    return f"only {spans} between the EVOLVE-BLOCK markers may change, and no marker be added."


def _overlaps(changes: list[tuple[int, str, Change]]) -> list[Rejected]:
    """Pairs of blocks that change the same lines."""
    ordered = sorted(changes, key=lambda c: (c[1], c[2].start, c[2].end))
    return [
        Rejected(
            Problem.OVERLAP,
            f"Blocks {min(n, m)} and {max(n, m)} change the same lines of {path}: make them one.",
        )
        for (n, path, a), (m, other, b) in pairwise(ordered)
        if path == other and b.start < a.end
    ]


def _miss(search: Lines, documents: list[Document]) -> str:
    """Names the nearest lines. `search` is the block's shortest reading."""
    scored = [(*nearest(search, d.lines), d) for d in documents]
    _, start, document = max(scored, key=lambda s: s[0])
    near = describe_miss(search, document.path, document.lines, start)
    return f"SEARCH matches no lines of {' or '.join(d.path for d in documents)}. {near}"


def _apply_files(answer: str, documents: dict[str, Document]) -> Applied | Rejected:
    found = whole_files(answer, list(documents))
    if isinstance(found, Rejected):
        return found
    texts = {path: document.text for path, document in documents.items()}
    only = next(iter(documents)) if len(documents) == 1 else None
    seen: set[str] = set()
    for file in found:
        path = file.path or only
        if path is None:
            return Rejected(
                Problem.FORMAT, f"Name each block's file before it: {', '.join(documents)}."
            )
        if path not in documents:
            return _unknown(path, documents)
        if path in seen:
            return Rejected(
                Problem.FORMAT, f"There are several code blocks for {path}; give exactly one."
            )
        seen.add(path)
        text = _rewritten(documents[path], file)
        if isinstance(text, Rejected):
            return text
        texts[path] = text
    return _applied(texts, "rewrite", len(found))


def _rewritten(document: Document, file: WholeFile) -> str | Rejected:
    """The document with a whole file's lines, or with the lines of its regions alone."""
    lines = list(file.lines)
    while lines and not lines[-1].strip():
        lines.pop()
    try:
        regions = regions_of(lines)
    except BadMarkers as error:
        return Rejected(Problem.REGION, f"{document.path}, {error}.")
    if document.regions is None:
        if regions is not None:
            return Rejected(Problem.REGION, f"{document.path}: {_where_allowed(document)}")
        return document.rewritten(lines)
    kept, given = _outside(document.lines, document.regions), _outside(lines, regions or [])
    for ours, theirs in zip_longest(kept, given):
        if ours is None or theirs is None or ours[1].rstrip() != theirs[1].rstrip():
            at = ours or kept[-1]
            return Rejected(
                Problem.REGION,
                f"{document.path}: line {at[0] + 1} must stay as it is: {at[1]}\n"
                f"In this file {_where_allowed(document)}",
            )
    pairs = zip(document.regions, regions or [], strict=True)
    return document.changed(Change(a, b, tuple(lines[c:d])) for (a, b), (c, d) in pairs)


def _outside(lines: Sequence[str], regions: list[tuple[int, int]]) -> list[tuple[int, str]]:
    """Lines outside the regions, markers included, with their numbers from 0."""
    inside = {i for a, b in regions for i in range(a, b)}
    return [(i, line) for i, line in enumerate(lines) if i not in inside]


def _unknown(path: str, documents: dict[str, Document]) -> Rejected:
    return Rejected(
        Problem.UNKNOWN_FILE, f"There is no file {path}; the files are {', '.join(documents)}."
    )


def _applied(
    texts: dict[str, str], form: Form, edits: int, repaired: int = 0
) -> Applied | Rejected:
    for path, text in texts.items():
        if not text.strip():
            return Rejected(Problem.EMPTY_RESULT, f"Nothing would be left of {path}.")
    sources = tuple(SourceFile(path=path, content=text) for path, text in texts.items())
    return Applied(sources, form, edits, repaired)


def _span(start: int, end: int) -> str:
    """Lines `start` to `end` (exclusive, from 0) as people count them."""
    return f"line {start + 1}" if end - start == 1 else f"lines {start + 1}-{end}"
