"""Checks on Python, Triton and TileLang sources.

Triton and TileLang sources compute in kernels: their host code may allocate, describe and launch,
and nothing else. Plain Python solutions may compute with torch; the rest holds for them too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TypeGuard

from evaluators.guard import bindings, foreign, hosts
from evaluators.guard import python_names as names
from evaluators.guard.cpp_names import SYSTEM_PATH
from evaluators.guard.entry import parse
from evaluators.guard.flow import Flow, Reason
from evaluators.guard.scope import (
    Names,
    asks_driver,
    is_below,
    is_dunder,
    is_exported,
    is_none,
    text_of,
)
from evaluators.schema import BuildSpec, Definition, Language

_INSIDE_TEXT = re.compile(r"\{\w*(?:\.\w+|\[\w+\])*\.__\w")


def reasons(
    text: str, spec: BuildSpec, definition: Definition | None, local: set[str]
) -> Iterator[str]:
    """Reasons against one file. `definition`: of the solution, where the file holds its entry
    point; `local`: names of the solution's own modules."""
    tree = parse(text)
    if isinstance(tree, str):
        yield tree
        return
    source = Source(tree, spec.language is not Language.PYTHON, local)
    found = list(source.reasons())
    if source.strict:
        found += bindings.reasons(source.names)
    if source.strict and definition is not None:
        found += Flow(
            tree, hosts.functions(source.names), spec.entry_function, definition
        ).reasons()
    for line, what in sorted(dict.fromkeys(found)):
        yield f"line {line}: {what}"


class Source:
    """One parsed file. `strict`: torch may not compute."""

    def __init__(self, tree: ast.Module, strict: bool, local: set[str]) -> None:
        self._tree = tree
        self.strict = strict
        self._local = local
        self.names = Names(tree)
        nodes = self.names.nodes
        self._inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
        self._inner |= {id(n.args[0]) for n in nodes if _asks_attribute(n)}
        self._called = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
        self._quiet = {id(n) for n in _quiet(tree)}
        self._cleared = {
            id(target)
            for node in nodes
            if isinstance(node, ast.Assign) and is_none(node.value)
            for target in node.targets
        }
        self._device = {
            id(inner) for f in self.names.device for s in f.body for inner in ast.walk(s)
        }

    def reasons(self) -> Iterator[Reason]:
        for node in self.names.nodes:
            line = int(getattr(node, "lineno", 0))
            for what in self._everywhere(node):
                yield line, what
            if not self.strict:
                continue
            for what in self._in_kernel_source(node):
                yield line, what
            if id(node) not in self._device:
                for what in self._on_host(node):
                    yield line, what

    # --- all Python ---

    def _everywhere(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from self._import(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}" if node.module else alias.name
                yield from [] if node.level else self._import(full)
        elif isinstance(node, ast.Name) and node.id in names.BANNED_NAMES:
            yield f"{node.id!r} is not allowed: host code allocates, describes and launches"
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node)
        elif text_of(node) and SYSTEM_PATH.search(text_of(node)):
            yield "a path of the system is not allowed"
        elif text_of(node) and _INSIDE_TEXT.search(text_of(node)):
            yield "text that formats an object's inside is not allowed"

    def _import(self, name: str) -> Iterator[str]:
        top = name.split(".")[0]
        if top in self._local:
            return
        standard = names.STANDARD if self.strict else names.LOOSE_STANDARD
        known = standard | names.PACKAGES
        if top not in known:
            yield f"import of {top!r} is not allowed: only {', '.join(sorted(known))} are"
        elif name.endswith(".*"):
            yield f"import * of {name[:-2]!r} is not allowed: name what you need"
        elif not self.names.is_namespace(name):
            yield from self._use(name)

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        attribute = node.attr
        if is_dunder(attribute) and attribute not in names.ALLOWED_DUNDERS:
            yield f"attribute {attribute!r} is not allowed"
            return
        dotted = self.names.dotted(node)
        if dotted is None:
            return
        if isinstance(node.ctx, ast.Store | ast.Del):
            yield f"must not change the imported {dotted!r}"
        elif id(node) not in self._inner or dotted in names.LOOSE_BANNED:
            yield from self._use(dotted)

    def _use(self, dotted: str) -> Iterator[str]:
        """Reasons against the use of an imported name, at its full length."""
        top = dotted.split(".")[0]
        if top in self._local:
            return
        if is_below(dotted, names.LOOSE_BANNED):
            yield f"{dotted!r} is not allowed"
        elif not self.strict:
            return
        elif top in names.STANDARD:
            if not is_exported(dotted):
                yield f"{dotted!r} is not allowed: host code has no use for it"
        elif top == "torch":
            if dotted not in names.TORCH and not is_below(dotted, tuple(names.TORCH_DTYPES)):
                yield (
                    f"{dotted!r} is not allowed: torch may allocate (torch.empty, zeros, full) and "
                    "describe (dtypes, torch.cuda.get_device_properties); the kernel computes"
                )
        elif not foreign.is_open(dotted) and not asks_driver(dotted):
            yield f"{dotted!r} is not allowed: a kernel is written with {top}'s language alone"

    # --- Triton and TileLang, host and device ---

    def _in_kernel_source(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Name):
            yield from self._name(node)
        elif isinstance(node, ast.Attribute):
            yield from self._strict_attribute(node)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in names.EXTERNAL_CALLS:
                    yield f"{alias.name!r} by itself is not allowed: write T.{alias.name}"
        elif isinstance(node, ast.MatchClass):
            for attribute in node.kwd_attrs:
                taken = ast.Attribute(value=ast.Constant(None), attr=attribute, ctx=ast.Load())
                yield from self._taken(taken)
        elif text_of(node) and (why := foreign.text_reason(text_of(node))):
            yield why

    def _name(self, node: ast.Name) -> Iterator[str]:
        dotted = self.names.modules.get(node.id)
        if dotted is None:
            if node.id in names.REFLECTION - self.names.own and not (
                id(node) in self._called or id(node) in self._quiet
            ):
                yield f"{node.id!r} under another name or handed on is not allowed: call it"
            elif is_dunder(node.id) and node.id not in names.BANNED_NAMES | names.ALLOWED_DUNDERS:
                yield f"{node.id!r} is not allowed"
        elif dotted.split(".")[0] not in names.PACKAGES | names.STANDARD:
            return
        elif not isinstance(node.ctx, ast.Load):
            if id(node) in self._cleared:
                return  # what `except ImportError` leaves behind
            yield f"must not rebind the imported {dotted!r}"
        elif id(node) not in self._inner and self.names.is_namespace(dotted):
            yield f"module {dotted!r} under another name is not allowed: write {node.id}.name"

    def _strict_attribute(self, node: ast.Attribute) -> Iterator[str]:
        attribute = node.attr
        own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        if attribute.startswith("_") and not is_dunder(attribute) and not own:
            yield f"private attribute {attribute!r} is not allowed"
        elif attribute in names.INSIDES and self.names.dotted(node) is None:
            yield f"attribute {attribute!r} is not allowed"
        elif attribute in names.STREAM_METHODS:
            yield f"{attribute!r} is not allowed: kernels run on the current stream, in order"
        elif attribute in names.EXTERNAL_CALLS and id(node) not in self._called:
            yield f"{attribute!r} under another name is not allowed: call it"
        elif attribute in names.FOREIGN_CODE:
            yield f"{attribute!r} is not allowed: a kernel calls no code from outside its source"
        elif not isinstance(node.ctx, ast.Load) and not own and self.names.dotted(node) is None:
            yield f"must not change attribute {attribute!r} of an object from elsewhere"

    def _call(self, node: ast.Call) -> Iterator[str]:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in names.EXTERNAL_CALLS:
            yield from self._external(node)
        if (self.names.dotted(function) or "").startswith("torch.") and any(
            k.arg == "out" for k in node.keywords
        ):
            yield "torch must not write an output (out=): write it in the kernel"
        if not isinstance(function, ast.Name):
            return
        name = function.id
        if name in names.BANNED_CALLS and name not in self.names.own:
            yield f"{name!r} is not allowed"
        elif name in {"getattr", "hasattr"}:
            yield from self._getattr(node)
        elif name == "type" and len(node.args) != 1:
            yield "making a class with type() is not allowed"

    def _getattr(self, node: ast.Call) -> Iterator[str]:
        key = node.args[1] if len(node.args) > 1 else None
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            yield "getattr with a computed name is not allowed: write the attribute"
            return
        same = ast.Attribute(value=node.args[0], attr=key.value, ctx=ast.Load())
        self._called.add(id(same))  # whatever is done with it
        yield from self._taken(same)

    def _taken(self, node: ast.Attribute) -> Iterator[str]:
        """Reasons against an attribute that is taken in another way than by a dot."""
        yield from self._attribute(node)
        yield from self._strict_attribute(node)
        yield from self._host_attribute(node)

    @staticmethod
    def _external(node: ast.Call) -> Iterator[str]:
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        called = [t for t in texts if isinstance(t, str)]
        if not called:
            yield "an external call needs the function's name as a plain string"
        yield from filter(None, map(foreign.call_reason, called))

    # --- Triton and TileLang, host only ---

    def _on_host(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Attribute):
            yield from self._host_attribute(node)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            yield "matrix product '@' outside a kernel: compute it in the kernel"
        elif isinstance(node, ast.Try | ast.TryStar) and not self._guards_import(node):
            yield "try is not allowed: no fallback, let the launch fail (only imports may be tried)"

    def _host_attribute(self, node: ast.Attribute) -> Iterator[str]:
        attribute = node.attr
        if self.names.dotted(node) is not None:
            return
        if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
            return
        harmless = id(node) not in self._called and (
            attribute in self.names.fields or attribute in {"max", "min"}  # torch.finfo(d).max
        )
        if attribute in names.COMPUTE_METHODS and not harmless:
            yield f"tensor method {attribute!r} outside a kernel: compute it in the kernel"
        elif attribute in names.HOST_READS:
            yield f"{attribute!r} is not allowed: the host must not wait for a tensor's values"
        elif attribute in names.REACHING_METHODS:
            yield f"{attribute!r} is not allowed: it reaches past the kernel or the tensor"

    def _guards_import(self, node: ast.Try | ast.TryStar) -> bool:
        """`try: import a` with `except ImportError`, at the top level."""
        caught = {
            n.id
            for h in node.handlers
            for n in ([] if h.type is None else ast.walk(h.type))
            if isinstance(n, ast.Name)
        }
        tried = all(isinstance(s, ast.Import | ast.ImportFrom | ast.Assign) for s in node.body)
        return node in self._tree.body and tried and bool(caught) and caught <= {
            "AttributeError", "ImportError", "ModuleNotFoundError",
        }  # fmt: skip


def _asks_attribute(node: ast.AST) -> TypeGuard[ast.Call]:
    """`getattr(object, "name")` or `hasattr`, whose name is judged."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"getattr", "hasattr"}
        and len(node.args) > 1
    )


def _quiet(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes in annotations, and second arguments of isinstance: a built-in class is only named."""
    for node in ast.walk(tree):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.FunctionDef):
            parts = [node.returns]
        elif isinstance(node, ast.Call) and len(node.args) == 2:
            named = isinstance(node.func, ast.Name) and node.func.id == "isinstance"
            parts = [node.args[1]] if named else []
        for part in parts:
            yield from ast.walk(part) if part is not None else ()
