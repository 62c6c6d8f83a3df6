"""The reference of a definition, cut out of an operator's module: `run` and what it needs."""

from __future__ import annotations

import ast


class NoReference(Exception):
    """The operator's module has no reference that can be cut out. The message is one line."""


def reference_source(operator_source: str) -> str:
    """The shortest part of an operator's module that defines `run`: its imports, and the top-level
    names that `run` uses, in their order, comments inside them kept.

    `run` loses its return annotation: FlashInfer-Bench counts outputs by it, and misreads one that
    `from __future__ import annotations` left as text. NoReference when the source
    does not parse or has no top-level function `run`.
    """
    try:
        tree = ast.parse(operator_source)
    except SyntaxError as error:
        raise NoReference(f"does not parse: {error.msg} (line {error.lineno})") from None
    statements = [s for s in tree.body if not _is_docstring(s)]
    if not any(isinstance(s, ast.FunctionDef) and s.name == "run" for s in statements):
        raise NoReference("has no top-level function 'run'")
    needed = _closure(statements)
    kept = [s for s in statements if s in needed]
    lines = operator_source.splitlines()
    for statement in kept:
        if isinstance(statement, ast.FunctionDef) and statement.name == "run":
            _drop_return_annotation(lines, statement)
    return _join(lines, kept)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _closure(statements: list[ast.stmt]) -> set[ast.stmt]:
    """`run`, `__future__` imports, and transitively each statement that defines a used name."""
    defined: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _defines(statement):
            defined.setdefault(name, []).append(statement)
    needed: set[ast.stmt] = set()
    waiting = ["run"]
    while waiting:
        for statement in defined.get(waiting.pop(), ()):
            if statement not in needed:
                needed.add(statement)
                waiting += _uses(statement)
    return needed | {s for s in statements if _is_future(s)}


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _defines(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement binds (or changes, such as `TABLE[0] = 1`)."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name).partition(".")[0] for a in statement.names}
    bound = {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    targets = getattr(statement, "targets", ())
    return bound | {
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    }


def _uses(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _drop_return_annotation(lines: list[str], function: ast.FunctionDef) -> None:
    """Cut `-> ...` out of `lines` where it stands on one line, as formatters put it."""
    returns = function.returns
    if returns is None or returns.lineno != returns.end_lineno:
        return
    line = lines[returns.lineno - 1].encode()  # ast counts columns in UTF-8 bytes
    before, after = line[: returns.col_offset].rstrip(), line[returns.end_col_offset :]
    if before.endswith(b"->"):
        lines[returns.lineno - 1] = (before[:-2].rstrip() + after).decode()


def _join(lines: list[str], statements: list[ast.stmt]) -> str:
    """The statements' own lines, spaced as usual: two blank lines around functions and classes."""
    text = ""
    for previous, statement in zip([None, *statements], statements, strict=False):
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)])
        text += "\n" * _blank_lines(previous, statement) if previous else ""
        text += "\n".join(lines[first - 1 : statement.end_lineno]) + "\n"
    return text


def _blank_lines(previous: ast.stmt, statement: ast.stmt) -> int:
    blocks = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(previous, blocks) or isinstance(statement, blocks):
        return 2
    together = isinstance(previous, _IMPORTS) and isinstance(statement, _IMPORTS)
    return 0 if together and not _is_future(previous) else 1


_IMPORTS = (ast.Import, ast.ImportFrom)
