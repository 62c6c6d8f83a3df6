"""Checks on what a C++ or CUDA source does at load time, and declares of other libraries.

Heuristics over tokens. A variable outside functions may hold constants, empty containers and
pointers; code in its initialiser, or a type of this source whose constructor, destructor or member
initialisers do work, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from evaluators.guard import lexer
from evaluators.guard.cpp_names import LOADTIME_SAFE
from evaluators.guard.lexer import Token

Reason = tuple[int, str]

QUALIFIERS = frozenset({
    "const", "extern", "inline", "mutable", "static", "thread_local", "volatile",
})  # fmt: skip
TYPES = frozenset({"class", "enum", "struct", "union"})
SKIPPED = frozenset(
    {"friend", "public", "private", "protected", "static_assert", "typedef", "using"}
)
_CONSTANT = frozenset({"consteval", "constexpr", "constinit"})
_RUNS = "code that runs at load time is not allowed: make it constexpr, or do it in run"


@dataclass(frozen=True)
class _Type:
    """A type of this source: its name ('' for none), what it derives from, and its body."""

    name: str
    bases: list[Token]
    body: list[Token]


def reasons(tokens: list[Token]) -> Iterator[Reason]:
    """Reasons against load-time code; `tokens` without preprocessor lines."""
    working = _working(list(_types(tokens)))
    for statement in statements(tokens):
        if _at_load_time(statement, working):
            yield statement[0].line, _RUNS
    yield from _foreign(tokens)


def statements(tokens: list[Token]) -> Iterator[list[Token]]:
    """Statements outside functions and types, without `template <...>`; blocks in them included."""
    statement: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.text == "{":
            texts = {t.text for t in statement}
            if "namespace" in texts or ("extern" in texts and "(" not in texts):
                statement = []
            else:
                end = lexer.matching(tokens, at)
                statement += tokens[at : end + 1]
                at = end
                if lexer.text_at(tokens, at + 1) not in {";", ",", "=", ")", "["} and not (
                    texts & TYPES and "(" not in texts
                ):
                    yield from _plain(statement)
                    statement = []
        elif token.text == ";":
            yield from _plain(statement)
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


def _plain(statement: list[Token]) -> Iterator[list[Token]]:
    """The statement without what stands before its declaration."""
    while statement:
        first = statement[0].text
        if first == "template" and lexer.text_at(statement, 1) == "<":
            statement = statement[_angle(statement, 1) + 1 :]
        elif first == "requires":
            return  # a constrained function
        elif first == "[" and lexer.text_at(statement, 1) == "[":
            statement = statement[lexer.matching(statement, 0) + 1 :]
        elif first in {"alignas", "__attribute__", "__align__", "__declspec"}:
            statement = statement[lexer.matching(statement, 1) + 1 :]
        elif first in {"public", "private", "protected"} and lexer.text_at(statement, 1) == ":":
            statement = statement[2:]
        else:
            yield statement
            return


def _angle(tokens: list[Token], opening: int) -> int:
    depth = 0
    for at in range(opening, len(tokens)):
        text = tokens[at].text
        depth += text == "<"
        depth -= text == ">"
        if depth == 0:
            return at
    return len(tokens) - 1


# -- variables --------------------------------------------------------------------------------


def _at_load_time(statement: list[Token], working: set[str]) -> bool:
    """Whether a namespace's statement declares a variable that needs code to be made."""
    split = _structure(statement)
    head, rest = statement[:split], statement[split:]
    words = [t.text for t in head if t.text not in QUALIFIERS]
    if not words or words[0] in SKIPPED or _CONSTANT & {t.text for t in head}:
        return False
    if words[0] in TYPES:
        return _type_statement(statement, working)
    if "operator" in words:
        return False
    opening = rest[0].text if rest else ""
    if opening == "(" and not _is_variable(statement, split):
        return False
    if any(_calls(rest[1:] if opening == "=" else rest, i) for i in range(len(rest))):
        return True
    return _makes(head, rest, working)


def _structure(statement: list[Token]) -> int:
    """Where a declaration's name has ended: at `=`, a brace or a parenthesis."""
    depth = 0
    for at, token in enumerate(statement):
        depth += token.text == "<"
        depth -= token.text == ">" and depth > 0
        outside = depth == 0 or token.text == "{"
        if (
            token.text in {"=", "{", "("}
            and outside
            and lexer.text_at(statement, at - 1) != "operator"
        ):
            return at
    return len(statement)


def _is_variable(statement: list[Token], opening: int) -> bool:
    """`Type name(arguments)` without a body, whose arguments are no parameters."""
    end = lexer.matching(statement, opening)
    if end + 1 < len(statement):
        return lexer.text_at(statement, end + 1) == "(" and "=" in {t.text for t in statement}
    names = [t for t in statement[:opening] if t.kind == "word"]
    inside = statement[opening + 1 : end]
    if len([n for n in names if n.text not in QUALIFIERS]) < 2 or not inside:
        return False
    pairs = pairwise(inside)
    if any(a.kind == b.kind == "word" and a.text not in {"new", "sizeof"} for a, b in pairs):
        return False  # a parameter's type and name
    if inside[0].kind in {"number", "string", "char"} or any(
        _calls(inside, i) for i in range(len(inside))
    ):
        return True
    return len(inside) == 1 and inside[0].text not in LOADTIME_SAFE | {"void", "auto"}


def _makes(head: list[Token], rest: list[Token], working: set[str]) -> bool:
    """Whether a working type is made: held as a value, or made in the initialiser."""
    depth = 0
    own = bool(head) and any(t.text in working for t in head)
    for at, token in enumerate(head):
        depth += token.text == "<"
        depth -= token.text == ">"
        value = lexer.text_at(head, at + 1) not in {"*", "&", "::"} and at + 1 < len(head)
        if own and token.text in working and value and (depth == 0 or rest):
            return True
    for at, token in enumerate(rest):
        made = lexer.text_at(rest, at + 1) in {"(", "{"} or lexer.text_at(rest, at - 1) == "new"
        if token.text in working and made:
            return True
    return False


def _type_statement(statement: list[Token], working: set[str]) -> bool:
    """`struct E {...} name;` and members `static inline int n = f();`."""
    opening = next((i for i, t in enumerate(statement) if t.text == "{"), None)
    if opening is None:
        return len(statement) > 2 and _makes(statement[1:], [], working)
    end = lexer.matching(statement, opening)
    name = _type_name(statement[:opening])
    tail = [t.text for t in statement[end + 1 :]]
    body = statement[opening + 1 : end]
    if tail and tail[0] not in {"*", "&"} and (name in working or _works(body, name, working)):
        return True
    for member in statements(body):
        texts = {t.text for t in member[: _structure(member)]}
        if "static" in texts and "inline" in texts and _at_load_time(member, working):
            return True
    return False


def _calls(tokens: list[Token], at: int) -> bool:
    """Whether a call, a lambda or an allocation starts at `at`."""
    token = tokens[at] if at < len(tokens) else None
    if token is None:
        return False
    if token.text == "new":
        return True
    if token.text == "[" and (at == 0 or tokens[at - 1].text in {"(", ",", "=", "{"}):
        return True
    if token.kind != "word" or lexer.text_at(tokens, at + 1) != "(":
        return False
    return token.text not in LOADTIME_SAFE


# -- types ------------------------------------------------------------------------------------


def _types(tokens: list[Token]) -> Iterator[_Type]:
    """All types with a body, however deep."""
    for at, token in enumerate(tokens):
        if token.text not in TYPES - {"enum"} or lexer.text_at(tokens, at - 1) == "enum":
            continue
        opening = at + 1
        while lexer.text_at(tokens, opening) not in {"{", ";", "(", ")", "=", ""}:
            opening += 1
        if lexer.text_at(tokens, opening) != "{":
            continue
        head = tokens[at:opening]
        colon = next((i for i, t in enumerate(head) if t.text == ":"), len(head))
        body = tokens[opening + 1 : lexer.matching(tokens, opening)]
        yield _Type(_type_name(head), head[colon + 1 :], body)


def _type_name(head: list[Token]) -> str:
    """The word before the bases, `final` and a specialisation's arguments."""
    name = ""
    for token in head:
        if token.text in {":", "<"}:
            break
        if token.kind == "word" and token.text not in TYPES | QUALIFIERS | {"final"}:
            name = token.text
    return name


def _working(types: list[_Type]) -> set[str]:
    """Names of types whose making or end does work; what holds one or derives from one too."""
    found: set[str] = set()
    before = -1
    while len(found) != before:
        before = len(found)
        for each in types:
            bases = {t.text for t in each.bases} & found
            if each.name and (bases or _works(each.body, each.name, found)):
                found.add(each.name)
    return found


def _works(body: list[Token], name: str, working: set[str]) -> bool:
    """Whether a type's constructors, destructor or members' initialisers do something."""
    for member in statements(body):
        split = _structure(member)
        head, rest = member[:split], member[split:]
        texts = [t.text for t in head]
        if not texts or texts[0] in SKIPPED | TYPES or {"static", *_CONSTANT} & set(texts):
            continue
        if rest and rest[0].text == "(":
            if texts[-1] == name and _does_something(member, split):
                return True
        elif any(_calls(rest, i) for i in range(len(rest))) or _makes(head, rest, working):
            return True
    return False


def _does_something(member: list[Token], opening: int) -> bool:
    """Whether a constructor or destructor has a body, or calls in its list of initialisers."""
    end = lexer.matching(member, opening) + 1
    rest = member[end:]
    if not rest or rest[-1].text != "}":
        return False
    depth = 0
    for at, token in enumerate(rest):
        before = lexer.text_at(rest, at - 1)
        body = token.text == "{" and before in {"", ")", "}", "noexcept"} and at + 1 < len(rest)
        if body and lexer.matching(rest, at) == len(rest) - 1:
            return len(rest) - 1 > at + 1
        depth += token.text in {"(", "{"}
        depth -= token.text in {")", "}"}
        if depth and _calls(rest, at):
            return True
    return False


# -- other libraries --------------------------------------------------------------------------


def _foreign(tokens: list[Token]) -> Iterator[Reason]:
    """`extern "C"` declarations without a definition: something of another library."""
    for at, token in enumerate(tokens):
        if token.text != "extern" or tokens[min(at + 1, len(tokens) - 1)].kind != "string":
            continue
        if lexer.text_at(tokens, at + 2) == "{":
            body = tokens[at + 3 : lexer.matching(tokens, at + 2)]
        else:
            end = at + 2
            while lexer.text_at(tokens, end) not in {";", "{", ""}:
                end += 1
            if lexer.text_at(tokens, end) == "{":
                continue
            body = tokens[at + 2 : end + 1]
        if any(_only_declares(statement) for statement in statements(body)):
            yield token.line, "a declaration of another library's function is not allowed"


def _only_declares(statement: list[Token]) -> bool:
    first = statement[0].text
    if first in SKIPPED | TYPES | {"static", "constexpr", "namespace"}:
        return False
    if "__device__" in {t.text for t in statement}:
        return False  # the device's own functions
    return statement[-1].text != "}" and "=" not in {t.text for t in statement}
