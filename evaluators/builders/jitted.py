"""Whether two Triton solutions do the same: the same host code launches the same device code.

Device code is compared as PTX, which the same assembler turns into the same machine code; the
assembled kernels themselves hold the names of source files.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable

from evaluators.schema import Solution

_COMMENT = re.compile(r"//.*")
_PLACES = re.compile(r"\s*(?:\.loc\b|\.file\b|\$L__tmp\d+:)")
_DEBUG = re.compile(r"^\s*\.section\s+\.debug", re.MULTILINE)


def digest(solution: Solution, kernels: Iterable[str]) -> str:
    """32 hex characters over host code and PTX texts of all kernels compiled; '' without any."""
    device = sorted({_code(ptx) for ptx in kernels})
    if not device or not all(device):
        return ""
    found = hashlib.sha256(solution.spec.entry_point.encode())
    for source in solution.sources:
        text = _host(source.content) if source.path.endswith(".py") else source.content
        found.update(b"\0" + source.path.encode() + b"\0" + text.encode(errors="surrogatepass"))
    for text in device:
        found.update(b"\1" + text.encode())
    return found.hexdigest()[:32]


def _code(ptx: str) -> str:
    """PTX without comments, source positions and debug sections."""
    end = _DEBUG.search(ptx)
    kept = ptx[: end.start()] if end else ptx
    lines = (_COMMENT.sub("", line).strip() for line in kept.split("\n"))
    return "\n".join(line for line in lines if line and not _PLACES.match(line))


def _host(source: str) -> str:
    """Python source without the bodies of kernels, comments and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(map(_is_jit, node.decorator_list)):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def _is_jit(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute | ast.Name) and ast.unparse(called).endswith("jit")
