"""Tokens of C++ and CUDA source, with line numbers.

Comments are dropped and spliced lines joined, as a compiler does first, so that neither hides a
name. No macro is expanded: a macro's body is looked at where it is written.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["word", "number", "string", "char", "operator"]

LOOKED_AT = 256
"""Characters behind a string that are looked at with it: what no refused name is longer than."""


class Token(NamedTuple):
    """One token; a string's `text` keeps its quotes. `directive`: part of a preprocessor line."""

    kind: Kind
    text: str
    line: int
    directive: bool = False


_TOKEN = re.compile(
    r"""(?P<gap>//[^\n]*|/\*.*?(?:\*/|\Z)|[ \t\r\f\v]+)
    |(?P<newline>\n)
    |(?P<string>(?:u8|[uUL])?R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"
        |(?:u8|[uUL])?"(?:\\.|[^"\\\n])*")
    |(?P<char>(?:u8|[uUL])?'(?:\\.|[^'\\\n])+')
    |(?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
    |(?P<word>[^\W\d]\w*)
    |(?P<operator><:(?!:[^:>])|::|:>|<%|%>|->|\+\+|--|<<=|[-+*/%&|^=!<]=|>=|&&|\|\||<<|\#\#|%:%:|%:
        |.)""",
    re.VERBOSE | re.DOTALL,
)
_SPELLINGS = {
    "%:": "#", "%:%:": "##", "<%": "{", "%>": "}", "<:": "[", ":>": "]", "and": "&&",
    "and_eq": "&=", "bitand": "&", "bitor": "|", "compl": "~", "not": "!", "not_eq": "!=",
    "or": "||", "or_eq": "|=", "xor": "^", "xor_eq": "^=",
}  # fmt: skip
"""Other spellings of operators."""
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]+)|([0-7]{1,3})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def tokens(text: str) -> list[Token]:
    """All tokens of `text`; never fails: what is no token becomes an operator of one character."""
    joined, starts = _joined(text)
    found: list[Token] = []
    fresh, directive = True, False
    for match in _TOKEN.finditer(joined):
        kind = match.lastgroup if match.lastgroup != "delimiter" else "string"
        if kind == "newline":
            fresh, directive = True, False
            continue
        if kind == "gap":
            continue
        word = _SPELLINGS.get(match[0], match[0])
        directive = directive or (fresh and word == "#")
        fresh = False
        line = bisect.bisect_right(starts, match.start())
        found.append(Token(_kind("operator" if word != match[0] else kind), word, line, directive))
    return found


def matching(found: list[Token], opening: int) -> int:
    """Index of the bracket that closes the one at `opening`; the last index when none does."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    open_ = text_at(found, opening)
    close, depth = pairs.get(open_, ""), 0
    for at in range(opening, len(found)):
        depth += found[at].text == open_
        depth -= found[at].text == close
        if depth == 0:
            return at
    return len(found) - 1


def opening(found: list[Token], closing: int) -> int:
    """Index of the bracket that the one at `closing` closes; 0 when there is none."""
    pairs = {")": "(", "}": "{", "]": "["}
    close = text_at(found, closing)
    open_, depth = pairs.get(close, ""), 0
    for at in range(closing, -1, -1):
        depth += found[at].text == close
        depth -= found[at].text == open_
        if depth == 0:
            return at
    return 0


def text_at(found: list[Token], at: int) -> str:
    """Text of the token at `at`, '' outside the list."""
    return found[at].text if 0 <= at < len(found) else ""


def value(token: Token) -> str:
    """What a string token holds, escapes resolved."""
    inside = token.text[token.text.index('"') + 1 : -1]
    if "(" in inside and "R" in token.text[: token.text.index('"')]:
        return inside[inside.index("(") + 1 : inside.rindex(")")]
    return _ESCAPE.sub(_character, inside)


def strings(found: list[Token]) -> Iterator[tuple[int, str, bool]]:
    """Each string token's index, what it holds with those right after it, whether it is the first.

    A compiler joins adjacent strings. Of what follows all but the first only `LOOKED_AT` characters
    are given, so that thousands of strings in a row take no time.
    """
    at = 0
    while at < len(found):
        first = at
        while at < len(found) and _joins(found, first, at):
            at += 1
        values = [value(token) for token in found[first:at]]
        texts, follows = [], ""
        for text in reversed(values[1:]):
            texts.append(text + follows)
            follows = texts[-1][:LOOKED_AT]
        if values:
            yield first, "".join(values), True
        for place, text in enumerate(reversed(texts), first + 1):
            yield place, text, False
        at = max(at, first + 1)


def _joins(found: list[Token], first: int, at: int) -> bool:
    """Whether the token at `at` is a string on the same side of a directive's end as `first`."""
    return found[at].kind == "string" and found[at].directive == found[first].directive


def _character(match: re.Match[str]) -> str:
    hexadecimal, octal, unicode, plain = match.groups()
    if plain is not None:
        return {"n": "\n", "r": "\n", "t": "\t", "0": "\0"}.get(plain, plain)
    number = int(hexadecimal or unicode or octal, 8 if octal else 16)
    return chr(number) if number < 0x110000 else "?"


def _kind(name: str | None) -> Kind:
    if name in {"word", "number", "string", "char"}:
        return name  # type: ignore[return-value]
    return "operator"


def _joined(text: str) -> tuple[str, list[int]]:
    """`text` with spliced lines joined, and the offset in it where each line of `text` starts."""
    pieces: list[str] = []
    starts, length, done = [0], 0, 0
    for match in re.finditer(r"\\[ \t]*\r?\n|\n", text):
        spliced = match[0] != "\n"
        piece = text[done : match.start() if spliced else match.end()]
        pieces.append(piece)
        length += len(piece)
        starts.append(length)
        done = match.end()
    pieces.append(text[done:])
    return "".join(pieces), starts
