"""Names in a Python source: what they stand for, and what a dotted name belongs to."""

from __future__ import annotations

import ast
import importlib
from functools import lru_cache
from types import ModuleType

from evaluators.guard import python_names as names


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name of everything imported, so that aliases do not hide anything."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def bound_names(tree: ast.Module) -> set[str]:
    """Names that the source gives to something of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def text_of(node: ast.AST) -> str:
    """A string constant's value, else ''."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_below(dotted: str, prefixes: tuple[str, ...]) -> bool:
    return any(dotted == p or dotted.startswith(p + ".") for p in prefixes)


def asks_driver(dotted: str) -> bool:
    return dotted.startswith(names.DRIVER) and dotted.endswith(names.DRIVER_QUESTIONS)


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and len(name) > 4


@lru_cache(maxsize=1024)
def is_exported(dotted: str) -> bool:
    """Whether a standard module gives out this name, and it is no module itself."""
    module, _, rest = dotted.partition(".")
    if dotted in names.NOT_EXPORTED or not rest:
        return not rest
    loaded = importlib.import_module(module)
    first = rest.split(".")[0]
    public = getattr(loaded, "__all__", None) or [n for n in vars(loaded) if n[0] != "_"]
    public = [*public, *getattr(loaded, "all_feature_names", [])]
    return first in public and not isinstance(getattr(loaded, first, None), ModuleType)
