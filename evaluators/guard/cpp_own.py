"""What a C++ or CUDA source gives a name of the system's to: functions, variables, enumerators."""

from __future__ import annotations

import re

from evaluators.guard import lexer
from evaluators.guard.cpp_names import CUDA_NAME, FUNCTIONS
from evaluators.guard.lexer import Token

KEYWORDS = frozenset({
    "and", "case", "co_await", "co_return", "co_yield", "delete", "do", "else", "goto", "new",
    "not", "or", "return", "sizeof", "throw", "typename", "using",
})  # fmt: skip
IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")


def called(tokens: list[Token], at: int) -> bool:
    return lexer.text_at(tokens, at + 1) == "("


def functions(tokens: list[Token]) -> set[str]:
    """Functions with a body, lambdas with a name and macros of this source."""
    found = set()
    for at, token in enumerate(tokens):
        if token.kind != "word" or token.text not in FUNCTIONS or _is_exported(tokens, at):
            continue
        before = lexer.text_at(tokens, at - 1)
        typed = IDENTIFIER.match(before) and before not in KEYWORDS
        if before == "auto" and lexer.text_at(tokens, at + 1) == "=":
            if lexer.text_at(tokens, at + 2) == "[":
                found.add(token.text)
        elif called(tokens, at) and (typed or before in {"*", "&", ">"}):
            end = lexer.matching(tokens, at + 1) + 1
            while lexer.text_at(tokens, end) in {"const", "noexcept", "override", "final"}:
                end += 1
            if lexer.text_at(tokens, end) in {"{", "->"}:
                found.add(token.text)
    return found


def _is_exported(tokens: list[Token], at: int) -> bool:
    """`extern "C" int name(...)`: it would stand in for the system's."""
    while at > 0 and lexer.text_at(tokens, at - 1) not in {";", "}", ")"}:
        at -= 1
        if tokens[at].text == "extern":
            return True
    return False


def variables(tokens: list[Token]) -> set[str]:
    """Variables, members, parameters and enumerators of this source."""
    found = set()
    for at, token in enumerate(tokens):
        if token.kind != "word" or token.text not in FUNCTIONS:
            continue
        before, after = lexer.text_at(tokens, at - 1), lexer.text_at(tokens, at + 1)
        if before in {"*", "&"}:
            before = lexer.text_at(tokens, at - 2)
        typed = (IDENTIFIER.match(before) and before not in KEYWORDS) or before == ">"
        if (typed and after in {";", "=", ",", ")", "[", "{", ":", ">"}) or (
            before in {",", "{", "["} and after in {",", "=", ";", "[", "}"} and _listed(tokens, at)
        ):
            found.add(token.text)
    return found


def locals_like_cuda(tokens: list[Token]) -> set[str]:
    """Variables such as `cudaError_t cudaStatus = ...`; they may not be called."""
    return {
        token.text
        for at, token in enumerate(tokens)
        if CUDA_NAME.fullmatch(token.text)
        and lexer.text_at(tokens, at - 1) in {"cudaError_t", "auto", "int", "float", "CUresult"}
        and lexer.text_at(tokens, at + 1) in {"=", ";", "{"}
    }


def initialises(tokens: list[Token], at: int) -> bool:
    """Whether `name(...)` stands in a constructor's list: `Type(int n) : name(n), other(n) {`."""
    while lexer.text_at(tokens, at - 1) == "," and lexer.text_at(tokens, at - 2) in {")", "}"}:
        at = lexer.opening(tokens, at - 2) - 1
    return lexer.text_at(tokens, at - 1) == ":" and lexer.text_at(tokens, at - 2) in {
        ")", "noexcept",
    }  # fmt: skip


def _listed(tokens: list[Token], at: int) -> bool:
    """Whether a name stands in `int a = 1, name = 2;`, `[name = 2]` or an enum's braces."""
    depth = 0
    for back in range(at - 1, -1, -1):
        text = tokens[back].text
        if text in {")", "]"} or (text == "}" and depth):
            depth += 1
        elif text in {"(", "["}:
            depth -= 1
            if depth < 0 and text == "[":
                return lexer.text_at(tokens, at + 1) == "="  # a lambda's capture
        elif text == "{" and depth == 0:
            head = [t.text for t in tokens[max(0, back - 5) : back]]
            if "enum" in head:
                return True
            break
        if depth < 0:
            return False
        if depth == 0 and text in {";", "}"}:
            break
    else:
        back = -1
    first, second = lexer.text_at(tokens, back + 1), lexer.text_at(tokens, back + 2)
    typed = bool(IDENTIFIER.match(first)) and first not in KEYWORDS
    return typed and bool(IDENTIFIER.match(second) or second in {"*", "&", "<"})
