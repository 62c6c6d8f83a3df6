"""Names in a Python source: what they stand for, and what a dotted name belongs to."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
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


def import_clashes(tree: ast.Module) -> dict[int, str]:
    """Line -> local name that two imports give to different things, outside `try`."""
    tried = {id(n) for t in tree.body if isinstance(t, ast.Try) for n in ast.walk(t)}
    seen: dict[str, str] = {}
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in tried:
            continue
        module = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            plain = isinstance(node, ast.Import) and not alias.asname
            local = alias.name.split(".")[0] if plain else alias.asname or alias.name
            full = local if plain else f"{module}.{alias.name}".lstrip(".")
            if seen.setdefault(local, full) != full:
                found[node.lineno] = local
    return found


class Names:
    """What the names of one source stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.nodes = list(ast.walk(tree))
        self.modules = imported_names(tree)
        self.own = bound_names(tree)
        self.classes = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        self.fields = own_fields(tree)
        self.device = list(self._device_functions())

    def dotted(self, node: ast.expr) -> str | None:
        """Dotted name of an attribute chain that starts at an imported name, else None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.modules:
            return None
        return ".".join([self.modules[node.id], *reversed(parts)])

    def decorator(self, node: ast.expr) -> str:
        """What a decorator is: a dotted name shortened to a known one, or a plain name."""
        target = node.func if isinstance(node, ast.Call) else node
        dotted = self.dotted(target) or (target.id if isinstance(target, ast.Name) else "")
        return next((d for d in names.DECORATORS if is_below(dotted, (d,))), dotted)

    def is_namespace(self, dotted: str) -> bool:
        """Whether a dotted name is a package whose parts are judged when they are used."""
        known = (*names.TORCH, *names.OPEN_PREFIXES, names.DRIVER.rstrip("."))
        inside = any(name.startswith(dotted + ".") for name in known)
        whole = dotted in {"tilelang.language", "triton.language", "tvm.tir"}
        return inside or whole or dotted in names.STANDARD | names.LOOSE_STANDARD

    def _device_functions(self) -> Iterator[ast.FunctionDef]:
        compiled = self._compiled_names()
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef):
                decorators = {self.decorator(d) for d in node.decorator_list}
                if decorators & set(names.DEVICE_DECORATORS) or node.name in compiled:
                    yield node

    def _compiled_names(self) -> set[str]:
        """Functions that are only ever named in calls such as `triton.jit(function)`."""
        inside = [
            n.args[0].id
            for n in self.nodes
            if isinstance(n, ast.Call)
            and len(n.args) == 1
            and isinstance(n.args[0], ast.Name)
            and self.decorator(n.func) in names.DEVICE_DECORATORS
        ]
        loads = [
            n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        ]
        return {name for name in inside if inside.count(name) == loads.count(name)}


def own_fields(tree: ast.Module) -> set[str]:
    """Attributes that the source's own classes have."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                targets = item.targets if isinstance(item, ast.Assign) else []
                targets = [item.target] if isinstance(item, ast.AnnAssign) else targets
                found |= {t.id for t in targets if isinstance(t, ast.Name)}
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            found.add(node.attr)
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
    if dotted.startswith("collections.abc."):
        module, rest = "collections.abc", rest.removeprefix("abc.")
    loaded = importlib.import_module(module)
    first = rest.split(".")[0]
    public = getattr(loaded, "__all__", None) or [n for n in vars(loaded) if n[0] != "_"]
    public = [*public, *getattr(loaded, "all_feature_names", [])]
    return first in public and not isinstance(getattr(loaded, first, None), ModuleType)
