"""Normalised source text: two programs that differ in comments or layout alone have one identity.

Normalising costs a parse, yet most proposals differ in the values of a few tunables. So the values
are lifted out first, what remains (the skeleton) is normalised once and kept, and the values are
put back. A value that does not survive normalising unchanged (a string, `0x40`) stays in the
skeleton.
"""

from __future__ import annotations

import ast
import re
import warnings
from functools import lru_cache

from evaluators import tunables
from evaluators.schema import Language

MARK = re.compile(r"_tunable_([0-9]+)_")
"""What stands for a tunable's value in a skeleton; the group is its number."""
_MARK = "_tunable_{}_"
_STABLE = {
    True: re.compile(r"(?:0|[1-9][0-9]*|[A-Za-z_][A-Za-z0-9_]*)\Z"),  # Python
    False: re.compile(r"[A-Za-z0-9_]+\Z"),  # C++
}
_PYTHON = frozenset({Language.TRITON, Language.TILELANG, Language.PYTHON})


def normalise(language: Language, text: str, path: str = "") -> str:
    """`text` without comments, docstrings and layout; never fails.

    The language of the text is taken from the suffix of `path` where that is telling, else from
    `language`. Python that does not parse is returned with trailing blanks stripped.
    """
    pieces, values = skeleton(language, text, path)
    return "".join(values[int(p)] if i % 2 else p for i, p in enumerate(pieces))


def skeleton(language: Language, text: str, path: str = "") -> tuple[tuple[str, ...], list[str]]:
    """Normalised text in pieces (text, number of a value, text, ...), and the values.

    Sources that differ in tunables' values alone share one pieces object: a good cache key.
    """
    python = is_python(language, path)
    lifted, values = _lift(text, python)
    return _pieces(lifted, python, bool(values)), values


def marked(pieces: tuple[str, ...]) -> str:
    """The text of a skeleton, with a mark for each value."""
    return "".join(_MARK.format(p) if i % 2 else p for i, p in enumerate(pieces))


def is_python(language: Language, path: str = "") -> bool:
    """Whether a source file holds Python (otherwise C++ or CUDA)."""
    suffix = path.rpartition(".")[2]
    if suffix == "py":
        return True
    if suffix in {"cu", "cuh", "cpp", "cc", "c", "h", "hpp"}:
        return False
    return language in _PYTHON


def cut(text: str) -> tuple[list[str], list[tunables.Tunable]]:
    """The tunables of `text` in order, and the text around their values (one piece more).

    As `evaluators.tunables.find`, at a fraction of its cost where most lines were seen before. A
    line without choices declares nothing here, and a name may come twice.
    """
    if "tune:" not in text:
        return [text], []
    pieces: list[str] = []
    found: list[tunables.Tunable] = []
    done = 0
    at = text.find("tune:")
    while at >= 0:
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = _cut_line(text[start:end])
        if line is not None:
            head, tunable, tail = line
            pieces.append(text[done:start] + head)
            found.append(tunable)
            done = end - len(tail)
        at = text.find("tune:", end)
    pieces.append(text[done:])
    return pieces, found


@lru_cache(maxsize=4096)
def _cut_line(line: str) -> tuple[str, tunables.Tunable, str] | None:
    """What stands before a tunable's value, the tunable, what stands after; None without one."""
    try:
        found = tunables.find(line)
    except ValueError:
        return None
    for name, tunable in found.items():
        head = tunables.assign(line, {name: "\0"}).partition("\0")[0]
        return head, tunable, line[len(head) + len(tunable.value) :]
    return None


def _lift(text: str, python: bool) -> tuple[str, list[str]]:
    """The skeleton (tunable values replaced by marks) and the values in order."""
    if "tune:" not in text or "_tunable_" in text:
        return text, []
    pieces, found = cut(text)
    lifted, values = pieces[0], list[str]()
    for tunable, piece in zip(found, pieces[1:], strict=True):
        stable = _STABLE[python].match(tunable.value)
        lifted += (_MARK.format(len(values)) if stable else tunable.value) + piece
        if stable:
            values.append(tunable.value)
    return lifted, values


@lru_cache(maxsize=256)
def _pieces(lifted: str, python: bool, with_values: bool) -> tuple[str, ...]:
    """Normalised skeleton, split at its marks: text, mark number, text, ..."""
    text = _normalise_python(lifted) if python else _normalise_cpp(lifted)
    return tuple(MARK.split(text)) if with_values else (text,)


def parse(text: str) -> ast.Module | None:
    """Syntax tree of Python `text`, or None when it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in a candidate are its own business
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _normalise_python(text: str) -> str:
    tree = parse(text)
    if tree is not None:
        try:
            return ast.unparse(_without_docstrings(tree))
        except (RecursionError, ValueError):
            pass
    return "\n".join(line.rstrip() for line in text.splitlines())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            while node.body and _is_text(node.body[0]):
                node.body.pop(0)
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return tree


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


_TOKEN = re.compile(
    r"""(?P<gap>(?://(?:\\\n|[^\n])*|/\*.*?\*/|[ \t\r\f\v]|\\[ \t]*\n)+)
    |(?P<newline>\n)
    |(?P<word>(?:u8|[uUL])?R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"
        |(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"
        |(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'
        |\.?[0-9](?:[eEpP][+-]|'?[\w.])*
        |[^\W\d]\w*)
    |(?P<bracket>[][(){};,])
    |(?P<operator>.)""",
    re.VERBOSE | re.DOTALL,
)


def _normalise_cpp(text: str) -> str:
    """C++ tokens joined by the least white space; preprocessor lines stay lines of their own."""
    out: list[str] = []
    before = ""  # kind of the token before, or "" at a directive's start and end
    gap = directive = False
    fresh = True  # nothing but white space since the line began
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "operator"
        if kind == "newline":
            gap, fresh = True, True
            if directive:
                out.append("\n")
                before, directive = "", False
        elif kind == "gap":
            gap = True
        else:
            token = match[0]
            if token == "#" and fresh:
                directive = True
                if out and out[-1] != "\n":
                    out.append("\n")
                before = ""
            # Two words and two operators would join. `#define F (x)` and `#define F(x)` differ, so
            # a directive keeps every gap.
            joins = before == kind != "bracket"
            if gap and before and (directive or joins):
                out.append(" ")
            out.append(token)
            before, gap, fresh = kind, False, False
    return "".join(out).strip("\n")
