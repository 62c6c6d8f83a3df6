"""Checks on what a C++ or CUDA source keeps between calls.

Heuristics over tokens. State that kernels keep honestly passes: workspaces, device attributes,
tables of what was computed from shapes, counts per expert or row that each call begins anew. What
does not: a static that counts calls, and one that remembers an argument's address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.guard import cpp_loading, lexer
from evaluators.guard.cpp_loading import QUALIFIERS, SKIPPED, TYPES
from evaluators.guard.lexer import Token

Reason = tuple[int, str]

_STEPS = frozenset({"++", "--", "+=", "-=", "*=", "^=", "<<="})
_ON_DEVICE = frozenset({"__constant__", "__device__", "__shared__"})
_ADDING = frozenset({"fetch_add", "fetch_sub", "fetch_xor"})
_ATOMIC = re.compile(r"\w*(?:atomic|sync)\w*(?:add|sub|xor|nand|inc|dec)\w*")
_COUNTS = "counts calls: a kernel does the same work in every call"


@dataclass(frozen=True)
class Static:
    """A variable that outlives a call, or another name for one, and where it can be named.

    `first`, `last`: indices of tokens.
    """

    name: str
    line: int
    pointer: bool
    first: int
    last: int


@dataclass(frozen=True)
class _Object:
    """What an operator changes: its first name, and how it is reached from there."""

    at: int
    plain: bool = True  # the name itself
    follows: bool = False  # through a pointer
    indexed: bool = False  # by a number
    varies: bool = False  # by another index


class _Statics:
    def __init__(self, tokens: list[Token]) -> None:
        self._found: dict[str, list[Static]] = {}
        for static in (*_global_statics(tokens), *_function_statics(tokens)):
            self._found.setdefault(static.name, []).append(static)
        for alias in list(_aliases(tokens, self)):
            self._found.setdefault(alias.name, []).append(alias)

    def at(self, tokens: list[Token], at: int) -> Static | None:
        """The static that the token names there."""
        if not 0 <= at < len(tokens) or lexer.text_at(tokens, at - 1) in {".", "->"}:
            return None
        found = self._found.get(tokens[at].text, [])
        return next((s for s in reversed(found) if s.first <= at <= s.last), None)


def reasons(tokens: list[Token]) -> Iterator[Reason]:
    """Reasons against state that recognises or counts calls; `tokens` without directives."""
    statics = _Statics(tokens)
    for at in range(len(tokens)):
        name = _counted(tokens, at, statics)
        if name:
            yield tokens[at].line, f"{name!r} {_COUNTS}"
    yield from _ticking(tokens)
    yield from _recognising(tokens, statics)


# -- what is static ---------------------------------------------------------------------------


def _global_statics(tokens: list[Token]) -> Iterator[Static]:
    for statement in cpp_loading.statements(tokens):
        texts = {t.text for t in statement}
        if texts & (SKIPPED | _ON_DEVICE | {"constexpr", "extern"}):
            continue
        if statement[0].text in TYPES and "{" in texts:  # struct {...} name
            opening = next(i for i, t in enumerate(statement) if t.text == "{")
            tail = statement[lexer.matching(statement, opening) + 1 :]
            if tail and tail[0].kind == "word":
                yield Static(tail[0].text, tail[0].line, False, 0, len(tokens))
        elif found := _declared(statement):
            yield Static(found[0].text, found[0].line, found[1], 0, len(tokens))


def _function_statics(tokens: list[Token]) -> Iterator[Static]:
    for at, token in enumerate(tokens):
        if token.text not in {"static", "thread_local"}:
            continue
        end = at + 1
        while lexer.text_at(tokens, end) in QUALIFIERS:
            end += 1
        if lexer.text_at(tokens, end) in TYPES:  # static struct {...} name;
            while lexer.text_at(tokens, end) not in {"{", ";", "(", ""}:
                end += 1
            if lexer.text_at(tokens, end) == "{":
                name = lexer.matching(tokens, end) + 1
                if name < len(tokens) and tokens[name].kind == "word":
                    yield Static(tokens[name].text, token.line, False, at, _block_end(tokens, at))
                continue
        while lexer.text_at(tokens, end) not in {";", "=", "{", "(", ""}:
            end += 1
        statement = tokens[at + 1 : end + 1]
        if {t.text for t in statement} & (_ON_DEVICE | {"constexpr"}):
            continue
        if found := _declared(statement):
            yield Static(found[0].text, found[0].line, found[1], at, _block_end(tokens, at))


def _declared(statement: list[Token]) -> tuple[Token, bool] | None:
    """(name, whether it is a pointer) of a variable's declaration that calls can change."""
    names: list[Token] = []
    pointer = False
    for at, token in enumerate(statement):
        if token.text in {"=", "{", "["}:
            break
        if token.text == "(":
            return None
        pointer = pointer or token.text in {"*", "uintptr_t", "intptr_t"}
        if token.kind == "word" and lexer.text_at(statement, at + 1) != "<":
            names.append(token)
    if len(names) < 2 or (not pointer and any(n.text == "const" for n in names)):
        return None
    return names[-1], pointer


def _block_end(tokens: list[Token], at: int) -> int:
    """Where the block around `at` ends."""
    depth = 0
    for end in range(at, len(tokens)):
        depth += tokens[end].text == "{"
        depth -= tokens[end].text == "}"
        if depth < 0:
            return end
    return len(tokens)


def _aliases(tokens: list[Token], statics: _Statics) -> Iterator[Static]:
    """`int& other = name;` and `int* other = &name;`."""
    for at, token in enumerate(tokens):
        if token.text != "=" or lexer.text_at(tokens, at - 2) not in {"&", "*"}:
            continue
        by_address = lexer.text_at(tokens, at + 1) == "&"
        of = statics.at(tokens, at + 1 + by_address)
        reference = lexer.text_at(tokens, at - 2) == "&"
        whole = lexer.text_at(tokens, at + 2 + by_address) == ";"
        if of is not None and whole and (reference or by_address):
            pointer = of.pointer if reference else True
            name = tokens[at - 1]
            yield Static(name.text, name.line, pointer, at, _block_end(tokens, at))


# -- counting ---------------------------------------------------------------------------------


def _counted(tokens: list[Token], at: int, statics: _Statics) -> str:
    """The static that a step, an addition or an atomic at `at` changes; '' for none."""
    text = tokens[at].text
    if text in _STEPS:
        found = _before(tokens, at)
        if found is None and text in {"++", "--"}:
            found = _after(tokens, at)
        static = statics.at(tokens, found.at) if found else None
        # A sum in a workspace's element is honest; a step of one by one rather counts.
        if found is None or static is None or not (found.plain or text in {"++", "--"}):
            return ""
        if not found.varies and (static.pointer == found.follows or found.indexed):
            return static.name
    elif text == "=":
        static = statics.at(tokens, at - 1)
        if static and not static.pointer and _adds_itself(tokens, at, static.name):
            return static.name
    elif text in _ADDING or _ATOMIC.fullmatch(text) or text == "exchange":
        member = text in _ADDING and lexer.text_at(tokens, at - 1) in {".", "->"}
        place = at - 2 if member else at + 2
        place += lexer.text_at(tokens, place) == "&"
        static = statics.at(tokens, place)
        if static and (text != "exchange" or _adds_itself(tokens, place + 1, static.name)):
            return static.name
    return ""


def _before(tokens: list[Token], at: int) -> _Object | None:
    """What ends right before `at`: `name`, `name.member`, `name[0]`, `(*name)`."""
    place = at - 1
    plain, follows, indexed, varies = True, False, False, False
    while place >= 0:
        text = tokens[place].text
        if text in {")", "]"}:
            opening = lexer.opening(tokens, place)
            inside = tokens[opening + 1 : place]
            plain = False
            if text == ")":
                named = [i for i, t in enumerate(inside) if t.kind == "word"]
                if len(named) != 1 or inside[0].text != "*":
                    return None
                return _Object(opening + 1 + named[0], plain, True, indexed, varies)
            number = len(inside) == 1 and inside[0].kind == "number"
            indexed, varies = indexed or number, varies or not number
            place = opening - 1
        elif tokens[place].kind == "word":
            before = lexer.text_at(tokens, place - 1)
            if before not in {".", "->", "::"}:
                return _Object(place, plain, follows, indexed, varies)
            plain, follows = plain and before == "::", follows or before == "->"
            if before == "::":
                return _Object(place, plain, follows, indexed, varies)
            place -= 2
        else:
            return None
    return None


def _after(tokens: list[Token], at: int) -> _Object | None:
    """What begins right after `at`: `*name`, `name.member`, `name[0]`."""
    place, follows = at + 1, False
    while lexer.text_at(tokens, place) in {"*", "("}:
        follows = follows or tokens[place].text == "*"
        place += 1
    if place >= len(tokens) or tokens[place].kind != "word":
        return None
    indexed, varies = False, False
    end = place + 1
    while lexer.text_at(tokens, end) in {".", "->", "["}:
        if tokens[end].text == "[":
            closing = lexer.matching(tokens, end)
            inside = tokens[end + 1 : closing]
            number = len(inside) == 1 and inside[0].kind == "number"
            indexed, varies = indexed or number, varies or not number
            end = closing + 1
        else:
            follows = follows or tokens[end].text == "->"
            end += 2
    return _Object(place, False, follows, indexed, varies)


def _adds_itself(tokens: list[Token], at: int, name: str) -> bool:
    """Whether what follows, up to the statement's end, is the name plus or minus something."""
    for place in range(at + 1, len(tokens)):
        if tokens[place].text == ";":
            return False
        around = {lexer.text_at(tokens, place - 1), lexer.text_at(tokens, place + 1)}
        if tokens[place].text == name and around & {"+", "-"}:
            return True
    return False


def _ticking(tokens: list[Token]) -> Iterator[Reason]:
    """`static auto f = [n = 0]() mutable {...}`: a lambda with state of its own."""
    for at, token in enumerate(tokens):
        if token.text not in {"static", "thread_local"}:
            continue
        equals = at + 1
        while lexer.text_at(tokens, equals) not in {"=", ";", "(", "{", ""}:
            equals += 1
        if lexer.text_at(tokens, equals + 1) != "[":
            continue
        after = lexer.matching(tokens, equals + 1) + 1
        if lexer.text_at(tokens, after) == "(":
            after = lexer.matching(tokens, after) + 1
        if lexer.text_at(tokens, after) == "mutable":
            yield token.line, "a lambda with state of its own is not allowed: it can count calls"


# -- recognising ------------------------------------------------------------------------------


def _recognising(tokens: list[Token], statics: _Statics) -> Iterator[Reason]:
    """A static pointer that is compared with something other than nullptr."""
    for at, token in enumerate(tokens):
        if token.text not in {"==", "!="}:
            continue
        if {"nullptr", "NULL", "0"} & {
            lexer.text_at(tokens, at - 1),
            lexer.text_at(tokens, at + 1),
        }:
            continue
        known = [s for s in (statics.at(tokens, at - 1), statics.at(tokens, at + 1)) if s]
        if known and known[0].pointer:
            what = "a tensor is recognised by its address"
            yield token.line, f"{what} ({known[0].name!r}): the next call has other values there"
    for at, token in enumerate(tokens):
        if token.text not in {"map", "unordered_map", "set", "unordered_set"}:
            continue
        if lexer.text_at(tokens, at + 1) != "<":
            continue
        key = []
        for inner in tokens[at + 2 :]:
            if inner.text in {",", ">", ";"}:
                break
            key.append(inner.text)
        if "*" in key and "char" not in key:
            yield token.line, "a table by address is not allowed: the next call has other values"
