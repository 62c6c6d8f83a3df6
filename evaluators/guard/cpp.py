"""Checks on C++ and CUDA sources, token by token.

What the preprocessor could hide is refused where it would (pasted names, computed includes). A
source may define functions whose names are the system's (`signal`, `wait`) and call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluators.guard import cpp_assembly, cpp_loading, cpp_own, cpp_state, lexer
from evaluators.guard import cpp_names as names
from evaluators.guard.cpp_own import IDENTIFIER, KEYWORDS, called
from evaluators.guard.lexer import Token


def reasons(text: str, headers: set[str]) -> Iterator[str]:
    """Reasons against one file; `headers` are the solution's own files."""
    tokens = lexer.tokens(text)
    if not tokens:
        yield "line 0: the source is empty"
    yield from _unbalanced(tokens)
    plain = [token for token in tokens if not token.directive]
    found = [
        *_spelling(text, tokens),
        *_directives(tokens, headers),
        *_names(tokens),
        *_pragmas(tokens),
        *_strings(tokens),
        *cpp_assembly.reasons(tokens),
        *_attributes(tokens),
        *cpp_loading.reasons(plain),
        *cpp_state.reasons(plain),
    ]
    for line, what in sorted(dict.fromkeys(found)):
        yield f"line {line}: {what}"


def _unbalanced(tokens: list[Token]) -> Iterator[str]:
    count = dict.fromkeys("{}()", 0)
    for token in tokens:
        if token.text in count:
            count[token.text] += 1
    if any(token.directive and token.text in {"else", "elif"} for token in tokens):
        return  # alternatives may each have a brace of the same pair
    for open_, close in ("{}", "()"):
        if count[open_] != count[close]:
            numbers = f"{count[open_]} {open_!r} and {count[close]} {close!r}"
            yield f"line 0: unbalanced source: {numbers}"


Reason = tuple[int, str]


def _spelling(text: str, tokens: list[Token]) -> Iterator[Reason]:
    """What compilers read in different ways."""
    for match in re.finditer(r"\r(?!\n)", text):
        yield (
            text.count("\n", 0, match.start()) + 1,
            "a line ends with a newline, not with CR alone",
        )
    for at, token in enumerate(tokens):
        if token.text == "?" and lexer.text_at(tokens, at + 1) == "?":
            yield token.line, "a trigraph is not allowed: write the character"


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
        library = header.startswith(names.LIBRARIES)
        instead = "the kernel computes, no library" if library else names.INCLUDES
        yield line, f"include of {header!r} is not allowed: {instead}"


def _plain_paste(tokens: list[Token], at: int) -> bool:
    """Whether a part of the pasted name is fixed, and no refused name has it at that place."""
    first = last = at
    while lexer.text_at(tokens, first - 2) == "##":
        first -= 2
    while lexer.text_at(tokens, last + 2) == "##":
        last += 2
    chain = [t.text for t in tokens[first - 1 : last + 2 : 2]]
    given = _parameters(tokens, at)
    fixed = [(i, part) for i, part in enumerate(chain) if part not in given]
    return any(
        not any(
            name.startswith(part) if i == 0
            else name.endswith(part) if i == len(chain) - 1
            else part in name
            for name in names.REFUSED
        ) and not (i == 0 and part.startswith(names.REFUSED_STEMS))
        for i, part in fixed
    )  # fmt: skip


def _parameters(tokens: list[Token], at: int) -> set[str]:
    """Parameters of the macro whose body holds the token; all words when it has none to read."""
    while at > 0 and tokens[at].text != "define":
        at -= 1
    opening = at + 2
    if lexer.text_at(tokens, opening) != "(":
        return {t.text for t in tokens}
    return {t.text for t in tokens[opening : lexer.matching(tokens, opening)]}


def _names(tokens: list[Token]) -> Iterator[Reason]:
    functions, variables = cpp_own.functions(tokens), cpp_own.variables(tokens)
    own = cpp_own.locals_like_cuda(tokens)
    for at, token in enumerate(tokens):
        name = token.text
        if token.text == "\\":
            yield token.line, "a stray backslash is not allowed"
        if token.text == "namespace" and lexer.text_at(tokens, at + 2) == "=":
            if not _may_be_renamed(tokens, at + 3):
                yield token.line, "namespace std under another name is not allowed: write std::"
        elif token.text in {"new", "delete"} and _replaces_operator(tokens, at):
            yield token.line, f"operator {token.text} must not be replaced"
        elif token.text == "cudaStream_t" and _is_number_cast(tokens, at):
            yield token.line, "a stream made of a number is not allowed: use TVMFFIEnvGetStream"
        if token.kind != "word" or lexer.text_at(tokens, at - 1) in {".", "->"}:
            continue
        scope = _scope(tokens, at)
        if name.removeprefix("__builtin_") in names.FUNCTIONS:
            name = name.removeprefix("__builtin_")
        prefix = next((why for p, why in names.PREFIXES if name.startswith(p)), None)
        if prefix is not None:
            yield token.line, f"{name!r} is not allowed: {prefix}"
        elif scope == "std" and name in names.STD_NAMES:
            why = names.FUNCTIONS.get(name, "a kernel has no use for it")
            yield token.line, f"'std::{name}' is not allowed: {why}"
        elif names.CUDA_NAME.fullmatch(name):
            if name not in own or called(tokens, at):
                yield from _cuda(tokens, at)
        elif name in names.FUNCTIONS and (scope in {"", "std", "::"} or name in names.REGISTRY):
            plain = not called(tokens, at) or cpp_own.initialises(tokens, at)
            ours = name in functions or (name in variables and plain)
            if not (ours and scope == "" and name == token.text):
                yield token.line, f"{name!r} is not allowed: {names.FUNCTIONS[name]}"


def _scope(tokens: list[Token], at: int) -> str:
    """'' for a plain name, '::' for a global one, else the name before the last `::`."""
    if lexer.text_at(tokens, at - 1) != "::":
        return ""
    before = lexer.text_at(tokens, at - 2)
    return before if IDENTIFIER.match(before) and before not in KEYWORDS else "::"


def _may_be_renamed(tokens: list[Token], at: int) -> bool:
    """Whether the namespace that begins at `at` is not std; some parts of std have no functions."""
    if lexer.text_at(tokens, at) == "::":
        at += 1
    inner = lexer.text_at(tokens, at + 2)
    return lexer.text_at(tokens, at) != "std" or inner in {"experimental", "numbers"}


def _pragmas(tokens: list[Token]) -> Iterator[Reason]:
    """`_Pragma`: its text may come from anywhere in the source."""
    if not any(token.text == "_Pragma" for token in tokens):
        return
    for token in tokens:
        text = lexer.value(token) if token.kind == "string" else token.text
        for name in names.PRAGMAS & set(re.findall(r"\w+", text)[:1]):
            yield token.line, f"#pragma {name} is not allowed"


def _replaces_operator(tokens: list[Token], at: int) -> bool:
    """`operator new(...) {`: a definition."""
    if lexer.text_at(tokens, at - 1) != "operator":
        return False
    opening = at + 1
    if lexer.text_at(tokens, opening) == "[":
        opening += 2
    end = lexer.matching(tokens, opening) + 1
    return lexer.text_at(tokens, end) in {"{", "noexcept", "throw"}


def _is_number_cast(tokens: list[Token], at: int) -> bool:
    """`(cudaStream_t)2`, `cudaStream_t(2)` and `reinterpret_cast<cudaStream_t>(2)`."""
    after = at + 1
    while lexer.text_at(tokens, after) in {")", ">", "(", "{"}:
        after += 1
    number = after < len(tokens) and tokens[after].kind == "number"
    return number and after > at + 1 and tokens[after].text not in {"0", "0x0"}


def _cuda(tokens: list[Token], at: int) -> Iterator[Reason]:
    token = tokens[at]
    if not names.CUDA_NAMES.fullmatch(token.text):
        yield (
            token.line,
            f"{token.text!r} is not allowed: a kernel allocates, sets attributes and launches on "
            "TVMFFIEnvGetStream; no streams, events, graphs or device-wide settings",
        )
    elif token.text.startswith("cudaGetDriverEntryPoint") and called(tokens, at):
        inside = tokens[at + 1 : lexer.matching(tokens, at + 1)]
        first = next((t for t in inside if t.text != "("), None)
        if first is None or first.kind != "string":
            yield token.line, "the driver function's name has to be a plain string"
        elif not names.ENTRY_POINTS.fullmatch(lexer.value(first)):
            yield token.line, f"driver function {lexer.value(first)!r} is not allowed"


def _strings(tokens: list[Token]) -> Iterator[Reason]:
    for at, text, whole in lexer.strings(tokens):
        token = tokens[at]
        if names.SYSTEM_PATH.search(text):
            yield token.line, "a path of the system is not allowed"
        elif whole and re.search(r"\.so(?:\.\d+)*\Z", text):
            yield token.line, f"the library {text!r} is not allowed: a kernel loads no code"
        elif lexer.text_at(tokens, at - 2) in {"remove", "rename"}:
            yield token.line, "a kernel removes and renames no files"


def _attributes(tokens: list[Token]) -> Iterator[Reason]:
    for at, token in enumerate(tokens):
        if token.text in {"__attribute__", "__attribute"}:
            inside = tokens[at + 1 : lexer.matching(tokens, at + 1)]
        elif token.text == "[" and lexer.text_at(tokens, at + 1) == "[":
            inside = tokens[at + 1 : lexer.matching(tokens, at)]
        elif token.directive and token.text.strip("_") in names.HIDDEN_ATTRIBUTES:
            inside = [token]
        else:
            continue
        for word in inside:
            name = word.text.strip("_")
            if word.kind == "word" and name in names.ATTRIBUTES:
                what = "code that runs at load time is" if "structor" in name else f"{name!r} is"
                yield token.line, f"{what} not allowed: a function is what the source says"
