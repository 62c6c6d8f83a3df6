"""What a Triton or TileLang source binds: names that it may not take, classes, decorators."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from evaluators.guard import python_names as names
from evaluators.guard.flow import Reason
from evaluators.guard.scope import Names, import_clashes, is_below, is_dunder

_BUILTIN_CLASSES = {n for n, v in vars(builtins).items() if isinstance(v, type)} - {"type"}


def reasons(known: Names) -> Iterator[Reason]:
    """Reasons against what the source binds."""
    for line, local in import_clashes(known.tree).items():
        yield line, f"two imports give the name {local!r}: import each under its own name"
    decorators = _decorators(known.tree)
    for node in known.nodes:
        line = int(getattr(node, "lineno", 0))
        for local in _bound(node):
            if _is_taken(known, node, local):
                dotted = known.modules[local]
                yield line, f"must not rebind the imported {dotted!r}: choose another name"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for what in _definition(known, node):
                yield line, what
        elif (
            isinstance(node, ast.Name | ast.Attribute)
            and id(node) not in decorators
            and known.dotted(node) in names.ONLY_DECORATORS
        ):
            yield line, f"{ast.unparse(node)!r} is allowed as a decorator only"


def _bound(node: ast.AST) -> list[str]:
    """Names that a node binds other than by assignment."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        return [node.name] if node.name else []
    return [node.rest] if isinstance(node, ast.MatchMapping) and node.rest else []


def _is_taken(known: Names, node: ast.AST, local: str) -> bool:
    """Whether a name stands for a package, or for what decides how functions are judged."""
    dotted = known.modules.get(local)
    if dotted is None or dotted.split(".")[0] not in names.PACKAGES | names.STANDARD:
        return False
    if known.is_namespace(dotted) or is_below(dotted, names.DECORATORS):
        return True
    handlers = [h for t in known.tree.body if isinstance(t, ast.Try) for h in t.handlers]
    fallback = any(node in h.body for h in handlers)  # what `except ImportError` puts in its place
    return not (isinstance(node, ast.arg) or fallback)


def _decorators(tree: ast.Module) -> set[int]:
    """Nodes that name a decorator where it decorates, with the arguments that are usual."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                call = isinstance(decorator, ast.Call)
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                wraps = isinstance(node, ast.FunctionDef) and call
                if not wraps or not getattr(decorator, "keywords", None):
                    found.add(id(target))
    return found


def _definition(
    known: Names, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> Iterator[str]:
    for decorator in node.decorator_list:
        found = known.decorator(decorator)
        if found not in names.DECORATORS and found not in names.BUILTIN_DECORATORS:
            yield f"decorator {ast.unparse(decorator)!r} is not allowed"
    if not isinstance(node, ast.ClassDef):
        if is_dunder(node.name) and node.name not in names.ALLOWED_METHODS:
            yield f"defining {node.name!r} is not allowed"
        return
    if node.keywords:
        yield "a class with a metaclass or class arguments is not allowed"
    for base in node.bases:
        if not _is_plain_base(known, base):
            yield (
                f"a subclass of {ast.unparse(base)!r} is not allowed: outputs are plain tensors; "
                "write a plain class or a dataclass"
            )


def _is_plain_base(known: Names, base: ast.expr) -> bool:
    """A class of this source, a built-in one, or one of the standard modules."""
    if isinstance(base, ast.Subscript):
        base = base.value
    dotted = known.dotted(base)
    if dotted is not None:
        top = dotted.split(".")[0]
        return top in names.STANDARD or top not in names.PACKAGES
    return isinstance(base, ast.Name) and (
        base.id in known.classes or (base.id in _BUILTIN_CLASSES and base.id not in known.own)
    )
