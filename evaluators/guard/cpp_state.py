"""Checks on what a C++ or CUDA source does outside its calls: at load time, and between calls.

Heuristics over tokens. State that kernels keep honestly passes: workspaces, device attributes,
tables of what was computed from shapes. What does not: code in a global's initialiser, a static
that counts calls, a static that remembers an argument's address, declarations of other libraries'
functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.guard import lexer
from evaluators.guard.cpp_names import LOADTIME_SAFE
from evaluators.guard.lexer import Token

Reason = tuple[int, str]

_QUALIFIERS = frozenset({"const", "inline", "mutable", "static", "thread_local", "volatile"})
_TYPES = frozenset({"class", "enum", "struct", "union"})
_SKIPPED = frozenset({"friend", "static_assert", "template", "typedef", "using"})
_COUNTED_BY = frozenset({"++", "--", "+=", "-="})
_ON_DEVICE = frozenset({"__constant__", "__device__", "__shared__"})


@dataclass(frozen=True)
class Static:
    """A variable that outlives a call."""

    name: str
    line: int
    pointer: bool


def reasons(tokens: list[Token]) -> Iterator[Reason]:
    """Reasons against what runs at load time, and against state that recognises or counts calls."""
    plain = [t for t in tokens if not t.directive]
    statements = list(_namespace_statements(plain))
    working = _working_types(plain)
    statics = {s.name: s for s in _function_statics(plain)}
    for statement in statements:
        yield from _at_load_time(statement, working)
        found = _variable(statement)
        if found is not None:
            statics[found.name] = found
    yield from _foreign(plain)
    yield from _counting(plain, statics)
    yield from _recognising(plain, statics)


def _namespace_statements(tokens: list[Token]) -> Iterator[list[Token]]:
    """Statements outside functions and types; the blocks in them included."""
    statement: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        texts = {t.text for t in statement}
        if token.text == "{":
            if "namespace" in texts or ("extern" in texts and "(" not in texts):
                statement = []
            else:
                end = lexer.matching(tokens, at)
                statement += tokens[at : end + 1]
                at = end
                if lexer.text_at(tokens, at + 1) not in {";", ",", "=", ")", "["} and not (
                    texts & _TYPES and "(" not in texts
                ):
                    yield statement
                    statement = []
        elif token.text == ";":
            yield statement
            statement = []
        elif token.text == "}":
            statement = []
        elif token.text == "(":
            end = lexer.matching(tokens, at)
            statement += tokens[at : end + 1]
            at = end
        else:
            statement.append(token)
        at += 1


def _at_load_time(statement: list[Token], working: set[str]) -> Iterator[Reason]:
    texts = [t.text for t in statement]
    head = [t for t in texts if t not in _QUALIFIERS]
    if not head or head[0] in _SKIPPED | _TYPES or "operator" in texts:
        return
    line = statement[0].line
    if {"constexpr", "constinit"} & set(texts):
        return
    equals = _top_level(statement, "=")
    initialiser = statement[equals + 1 :] if equals is not None else _braced(statement)
    runs = any(_calls(initialiser, i) for i in range(len(initialiser)))
    if runs or (head[0] in working and not _is_function(statement)):
        yield line, "code that runs at load time is not allowed: make it constexpr, or do it in run"


def _calls(tokens: list[Token], at: int) -> bool:
    """Whether a call or a lambda starts at `at`."""
    token = tokens[at]
    if token.text == "[" and (at == 0 or tokens[at - 1].text in {"(", ",", "=", "{"}):
        return True
    if token.kind != "word" or lexer.text_at(tokens, at + 1) != "(":
        return False
    return token.text not in LOADTIME_SAFE


def _top_level(statement: list[Token], what: str) -> int | None:
    depth = 0
    for at, token in enumerate(statement):
        depth += token.text in {"(", "{", "["}
        depth -= token.text in {")", "}", "]"}
        if depth == 0 and token.text == what:
            return at
    return None


def _is_function(statement: list[Token]) -> bool:
    return any(t.text == "(" for t in statement) and statement[-1].text in {"}", ")"}


def _braced(statement: list[Token]) -> list[Token]:
    """What stands in `Type name{...}`; nothing for a function or a type."""
    opening = next((i for i, t in enumerate(statement) if t.text == "{"), None)
    if opening is None or any(t.text == "(" for t in statement[:opening]):
        return []
    return statement[opening:]


def _working_types(tokens: list[Token]) -> set[str]:
    """Types of this source with a constructor or destructor that does something."""
    found = set()
    for at, token in enumerate(tokens):
        if token.text not in {"struct", "class"}:
            continue
        name = lexer.text_at(tokens, at + 1)
        opening = at + 2
        while lexer.text_at(tokens, opening) not in {"{", ";", "(", ""}:
            opening += 1
        if lexer.text_at(tokens, opening) != "{":
            continue
        body = tokens[opening + 1 : lexer.matching(tokens, opening)]
        if _has_working_constructor(body, name):
            found.add(name)
    return found


def _has_working_constructor(body: list[Token], name: str) -> bool:
    for at, token in enumerate(body):
        if token.text != name or lexer.text_at(body, at + 1) != "(":
            continue
        end = lexer.matching(body, at + 1) + 1
        while lexer.text_at(body, end) not in {"{", ";", "", "="}:
            end += 1
        if lexer.text_at(body, end) == "{" and lexer.matching(body, end) > end + 1:
            return True
    return False


def _variable(statement: list[Token]) -> Static | None:
    """The variable that a namespace's statement declares, when calls can change it."""
    texts = {t.text for t in statement}
    if texts & (_SKIPPED | _TYPES | _ON_DEVICE | {"constexpr", "extern"}):
        return None
    return _declared(statement)


def _declared(statement: list[Token]) -> Static | None:
    names: list[Token] = []
    pointer = False
    for at, token in enumerate(statement):
        if token.text in {"=", "{", "["}:
            break
        if token.text == "(":
            return None
        pointer = pointer or token.text == "*"
        if token.kind == "word" and lexer.text_at(statement, at + 1) != "<":
            names.append(token)
    if len(names) < 2 or (not pointer and any(n.text == "const" for n in names)):
        return None
    return Static(names[-1].text, names[-1].line, pointer)


def _function_statics(tokens: list[Token]) -> Iterator[Static]:
    for at, token in enumerate(tokens):
        if token.text not in {"static", "thread_local"}:
            continue
        end = at + 1
        while lexer.text_at(tokens, end) not in {";", "=", "{", "(", ""}:
            end += 1
        statement = tokens[at + 1 : end + 1]
        if not {t.text for t in statement} & (_ON_DEVICE | {"constexpr"}):
            found = _declared(statement)
            if found is not None:
                yield found


def _foreign(tokens: list[Token]) -> Iterator[Reason]:
    """`extern "C" int f(...);`: a function of another library."""
    for at, token in enumerate(tokens):
        if token.text != "extern" or tokens[min(at + 1, len(tokens) - 1)].kind != "string":
            continue
        if lexer.text_at(tokens, at + 2) == "{":
            body = tokens[at + 3 : lexer.matching(tokens, at + 2)]
        else:
            end = at + 2
            while lexer.text_at(tokens, end) not in {";", "{", ""}:
                end += 1
            body = tokens[at + 2 : end + 1]
        for i, inner in enumerate(body):
            if inner.text == ")" and lexer.text_at(body, i + 1) == ";" and _outside(body, i):
                yield token.line, "a declaration of another library's function is not allowed"
                break


def _outside(tokens: list[Token], at: int) -> bool:
    depth = 0
    for token in tokens[:at]:
        depth += token.text == "{"
        depth -= token.text == "}"
    return depth == 0


def _counting(tokens: list[Token], statics: dict[str, Static]) -> Iterator[Reason]:
    for at, token in enumerate(tokens):
        if token.text not in statics or statics[token.text].pointer:
            continue
        around = {lexer.text_at(tokens, at - 1), lexer.text_at(tokens, at + 1)}
        added = lexer.text_at(tokens, at + 2) in {"fetch_add", "fetch_sub"}
        ahead = [lexer.text_at(tokens, at + i) for i in (1, 2, 3)]
        added = added or (ahead[:2] == ["=", token.text] and ahead[2] in {"+", "-"})
        if around & _COUNTED_BY or added:
            what = f"{token.text!r} counts calls: a kernel does the same work in every call"
            yield token.line, what


def _recognising(tokens: list[Token], statics: dict[str, Static]) -> Iterator[Reason]:
    """A static pointer that is compared with something other than nullptr."""
    for at, token in enumerate(tokens):
        if token.text not in {"==", "!="}:
            continue
        sides = lexer.text_at(tokens, at - 1), lexer.text_at(tokens, at + 1)
        if {"nullptr", "NULL", "0"} & set(sides):
            continue
        known = [s for s in sides if s in statics and statics[s].pointer]
        if known:
            what = "a tensor is recognised by its address"
            yield token.line, f"{what} ({known[0]!r}): the next call has other values there"
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
