"""Checks on C++ and CUDA sources, token by token.

What the preprocessor could hide is refused where it would (pasted names, computed includes). A
source may define functions whose names are the system's (`signal`, `wait`) and call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluators.guard import cpp_names as names
from evaluators.guard import cpp_state, lexer
from evaluators.guard.lexer import Token

_KEYWORDS = frozenset({
    "and", "case", "co_await", "co_return", "co_yield", "delete", "do", "else", "goto", "new",
    "not", "or", "return", "sizeof", "throw", "typename", "using",
})  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")


def reasons(text: str, headers: set[str]) -> Iterator[str]:
    """Reasons against one file; `headers` are the solution's own files."""
    tokens = lexer.tokens(text)
    if not tokens:
        yield "line 0: the source is empty"
    yield from _unbalanced(tokens)
    found = [
        *_directives(tokens, headers),
        *_names(tokens),
        *_strings(tokens),
        *_assembly(tokens),
        *_attributes(tokens),
        *cpp_state.reasons(tokens),
    ]
    for line, what in sorted(dict.fromkeys(found)):
        yield f"line {line}: {what}"


def _unbalanced(tokens: list[Token]) -> Iterator[str]:
    count = dict.fromkeys("{}()", 0)
    for token in tokens:
        if token.text in count:
            count[token.text] += 1
    for open_, close in ("{}", "()"):
        if count[open_] != count[close]:
            numbers = f"{count[open_]} {open_!r} and {count[close]} {close!r}"
            yield f"line 0: unbalanced source: {numbers}"


Reason = tuple[int, str]


def _directives(tokens: list[Token], headers: set[str]) -> Iterator[Reason]:
    for at, token in enumerate(tokens):
        if not token.directive:
            continue
        if token.text == "#" and not lexer.text_at(tokens, at - 1).endswith("#"):
            yield from _directive(tokens, at, headers)
        elif token.text == "##" and not _plain_paste(tokens, at):
            yield token.line, "a name pasted from parts (##) is not allowed: write it out"


def _directive(tokens: list[Token], at: int, headers: set[str]) -> Iterator[Reason]:
    line, name = tokens[at].line, lexer.text_at(tokens, at + 1)
    rest = []
    for token in tokens[at + 2 :]:
        if not token.directive or token.text == "#":
            break
        rest.append(token)
    if name in {"include_next", "import", "embed"}:
        yield line, f"#{name} is not allowed"
    elif name == "include":
        yield from _include(line, rest, headers)
    elif name == "pragma":
        for token in rest:
            if token.text in names.PRAGMAS:
                yield line, f"#pragma {token.text} is not allowed"


def _include(line: int, rest: list[Token], headers: set[str]) -> Iterator[Reason]:
    if rest and rest[0].kind == "string":
        header = lexer.value(rest[0])
        if header in headers:
            return
    elif rest and rest[0].text == "<":
        end = next((i for i, t in enumerate(rest) if t.text == ">"), len(rest))
        header = "".join(t.text for t in rest[1:end])
    else:
        yield line, "a computed #include is not allowed"
        return
    known = header in names.STD_HEADERS | names.CUDA_HEADERS
    if not (known or header.startswith(names.HEADER_FOLDERS)) or ".." in header:
        yield line, f"include of {header!r} is not allowed"


def _plain_paste(tokens: list[Token], at: int) -> bool:
    """`FIXED_##parameter`: a fixed part that ends a word of its own."""
    left, right = lexer.text_at(tokens, at - 1), lexer.text_at(tokens, at + 1)
    return (len(left) > 3 and left.endswith("_")) or (len(right) > 3 and right.startswith("_"))


def _names(tokens: list[Token]) -> Iterator[Reason]:
    functions, variables = _own_functions(tokens), _own_variables(tokens)
    for at, token in enumerate(tokens):
        name = token.text
        if token.text == "\\":
            yield token.line, "a stray backslash is not allowed"
        if token.text == "namespace" and lexer.text_at(tokens, at + 2) == "=":
            yield token.line, "a namespace under another name is not allowed"
        if token.kind != "word" or lexer.text_at(tokens, at - 1) in {".", "->"}:
            continue
        scope = _scope(tokens, at)
        prefix = next((why for p, why in names.PREFIXES if name.startswith(p)), None)
        if prefix is not None:
            yield token.line, f"{name!r} is not allowed: {prefix}"
        elif scope == "std" and name in names.STD_NAMES:
            why = names.FUNCTIONS.get(name, "a kernel has no use for it")
            yield token.line, f"'std::{name}' is not allowed: {why}"
        elif names.CUDA_NAME.fullmatch(name):
            yield from _cuda(tokens, at)
        elif name in names.FUNCTIONS and (scope in {"", "std", "::"} or name in names.REGISTRY):
            ours = name in functions or (name in variables and not _called(tokens, at))
            if not (ours and scope == "") and _meant(tokens, at):
                yield token.line, f"{name!r} is not allowed: {names.FUNCTIONS[name]}"


def _scope(tokens: list[Token], at: int) -> str:
    """'' for a plain name, '::' for a global one, else the name before the last `::`."""
    if lexer.text_at(tokens, at - 1) != "::":
        return ""
    before = lexer.text_at(tokens, at - 2)
    return before if _IDENTIFIER.match(before) and before not in _KEYWORDS else "::"


def _called(tokens: list[Token], at: int) -> bool:
    return lexer.text_at(tokens, at + 1) == "("


def _meant(tokens: list[Token], at: int) -> bool:
    """Whether a name stands for the system's: it is called, aliased or its address is taken."""
    if _called(tokens, at) or _scope(tokens, at) == "::" or tokens[at].directive:
        return True
    if tokens[at].text.startswith(("_", "TVM")) or tokens[at].text == "environ":
        return True
    return lexer.text_at(tokens, at - 1) in {"=", "&", "(", ",", "return", "?", ":", "{"}


def _cuda(tokens: list[Token], at: int) -> Iterator[Reason]:
    token = tokens[at]
    if not names.CUDA_NAMES.fullmatch(token.text):
        yield (
            token.line,
            f"{token.text!r} is not allowed: a kernel allocates, sets attributes and launches on "
            "TVMFFIEnvGetStream; no streams, events, graphs or device-wide settings",
        )
    elif token.text.startswith("cudaGetDriverEntryPoint") and _called(tokens, at):
        inside = tokens[at + 1 : lexer.matching(tokens, at + 1)]
        first = next((t for t in inside if t.text != "("), None)
        if first is None or first.kind != "string":
            yield token.line, "the driver function's name has to be a plain string"
        elif not names.ENTRY_POINTS.fullmatch(lexer.value(first)):
            yield token.line, f"driver function {lexer.value(first)!r} is not allowed"


def _own_functions(tokens: list[Token]) -> set[str]:
    """Functions with a body, lambdas with a name and macros of this source."""
    found = set()
    for at, token in enumerate(tokens):
        if token.kind != "word" or token.text not in names.FUNCTIONS:
            continue
        before = lexer.text_at(tokens, at - 1)
        typed = _IDENTIFIER.match(before) and before not in _KEYWORDS
        if before == "auto" and lexer.text_at(tokens, at + 1) == "=":
            if lexer.text_at(tokens, at + 2) == "[":
                found.add(token.text)
        elif _called(tokens, at) and (typed or before in {"*", "&", ">"}):
            end = lexer.matching(tokens, at + 1) + 1
            while lexer.text_at(tokens, end) in {"const", "noexcept", "override", "final"}:
                end += 1
            if lexer.text_at(tokens, end) in {"{", "->"}:
                found.add(token.text)
    return found


def _own_variables(tokens: list[Token]) -> set[str]:
    found = set()
    for at, token in enumerate(tokens):
        if token.kind != "word" or token.text not in names.FUNCTIONS:
            continue
        before, after = lexer.text_at(tokens, at - 1), lexer.text_at(tokens, at + 1)
        if before in {"*", "&"}:
            before = lexer.text_at(tokens, at - 2)
        typed = (_IDENTIFIER.match(before) and before not in _KEYWORDS) or before == ">"
        if typed and after in {";", "=", ",", ")", "[", "{", ":"}:
            found.add(token.text)
    return found


def _strings(tokens: list[Token]) -> Iterator[Reason]:
    for token in tokens:
        if token.kind == "string" and names.SYSTEM_PATH.search(lexer.value(token)):
            yield token.line, "a path of the system is not allowed"


def _assembly(tokens: list[Token]) -> Iterator[Reason]:
    for at, token in enumerate(tokens):
        if token.text not in {"asm", "__asm__", "__asm"} or token.kind != "word":
            continue
        opening = at + 1
        while lexer.text_at(tokens, opening) in {"volatile", "__volatile__", "goto", "inline"}:
            opening += 1
        inside = tokens[opening : lexer.matching(tokens, opening)]
        text = "".join(lexer.value(t) for t in inside if t.kind == "string")
        text = re.sub(r"\\[nrt]", " ", text)
        match = names.ASSEMBLY.search(re.sub(r"(?<=[\w])\.\w+", "", text))
        if match is not None:
            what = "system calls are" if "sys" in match[0] or "0x80" in match[0] else "this is"
            yield token.line, f"inline assembly {match[0]!r}: {what} not allowed"
        plain = opening == at + 1 and not any(t.text in {":", "::"} for t in inside)
        before = lexer.text_at(tokens, at - 1)
        if plain and (before == ")" or _IDENTIFIER.match(before)) and before != "else":
            yield token.line, "asm that names another symbol is not allowed"


def _attributes(tokens: list[Token]) -> Iterator[Reason]:
    for at, token in enumerate(tokens):
        if token.text in {"__attribute__", "__attribute"}:
            inside = tokens[at + 1 : lexer.matching(tokens, at + 1)]
        elif token.text == "[" and lexer.text_at(tokens, at + 1) == "[":
            inside = tokens[at + 1 : lexer.matching(tokens, at)]
        else:
            continue
        for word in inside:
            name = word.text.strip("_")
            if word.kind == "word" and name in names.ATTRIBUTES:
                what = "code that runs at load time is" if "structor" in name else f"{name!r} is"
                yield token.line, f"{what} not allowed"
