"""Checks on inline assembly in C++ and CUDA sources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluators.guard import lexer
from evaluators.guard.cpp_names import ASSEMBLY
from evaluators.guard.lexer import Token

Reason = tuple[int, str]

_ASM = frozenset({"asm", "__asm__", "__asm"})
_VOLATILE = frozenset({"volatile", "__volatile__", "goto", "inline"})
_CONTROL = frozenset({"if", "for", "while", "switch", "constexpr"})


def reasons(tokens: list[Token]) -> Iterator[Reason]:
    """Reasons against assembly that does what the source itself may not, or hides what it does."""
    for at, text, _ in lexer.strings(tokens):
        if tokens[at].directive:
            yield from _text(text, tokens[at].line)  # asm may name the macro
    for at, token in enumerate(tokens):
        if token.text not in _ASM or token.kind != "word":
            continue
        opening = at + 1
        while lexer.text_at(tokens, opening) in _VOLATILE:
            opening += 1
        if lexer.text_at(tokens, opening) != "(":
            yield token.line, "asm without its text is not allowed: write asm volatile(...)"
            continue
        inside = tokens[opening : lexer.matching(tokens, opening)]
        # Macros between the parts of the text are judged where they are defined.
        text = "".join(lexer.value(t) for t in inside if t.kind == "string")
        yield from _text(text, token.line)
        statement = opening > at + 1 or any(t.text in {":", "::"} for t in inside)
        if not statement and not _begins_statement(tokens, at):
            yield token.line, "asm that names another symbol is not allowed"


def _text(text: str, line: int) -> Iterator[Reason]:
    match = ASSEMBLY.search(re.sub(r"(?<=\w)\.\w[\w:]*", "", text))
    if match is None:
        return
    what = match[0].strip()
    if what.startswith(("sys", "int", "svc")):
        yield line, f"inline assembly {what!r}: system calls are not allowed"
    elif "clock" in what or "timer" in what or what.startswith("rd"):
        yield line, f"inline assembly {what!r}: a kernel does not look at the clock"
    else:
        yield line, f"inline assembly {what!r} is not allowed: write instructions on operands only"


def _begins_statement(tokens: list[Token], at: int) -> bool:
    last = at - 1
    while last >= 0 and tokens[last].directive and not tokens[at].directive:
        last -= 1
    before = lexer.text_at(tokens, last)
    if before != ")" or tokens[at].directive:
        return before in {"", ";", "{", "}", "else", "do", ":"}
    return lexer.text_at(tokens, lexer.opening(tokens, last) - 1) in _CONTROL
