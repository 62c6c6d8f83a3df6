"""Checks on Python, Triton and TileLang sources.

Triton and TileLang sources compute in kernels: their host code may allocate, describe and launch,
and nothing else. Plain Python solutions may compute with torch; the rest holds for them too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from evaluators.guard import python_names as names
from evaluators.guard.cpp_names import FUNCTIONS as C_FUNCTIONS
from evaluators.guard.cpp_names import SYSTEM_PATH
from evaluators.guard.entry import parse
from evaluators.guard.flow import Flow, Function, Reason
from evaluators.guard.scope import (
    asks_driver,
    bound_names,
    imported_names,
    is_below,
    is_dunder,
    is_exported,
    is_none,
    text_of,
)
from evaluators.schema import BuildSpec, Definition, Language

_ODD_FLAG = re.compile(r"-(?:fplugin|include|imacros|specs|wrapper|Bprefix|x$)|@\S")


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
    if source.strict and definition is not None:
        found += Flow(tree, source.functions(), spec.entry_function, definition).reasons()
    for line, what in sorted(found):
        yield f"line {line}: {what}"


class Source:
    """One parsed file. `strict`: torch may not compute."""

    def __init__(self, tree: ast.Module, strict: bool, local: set[str]) -> None:
        self._tree = tree
        self.strict = strict
        self._local = local
        self._modules = imported_names(tree)
        self._inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        self._own = bound_names(tree)
        self._cleared = {
            id(target)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and is_none(node.value)
            for target in node.targets
        }
        self._device = {
            id(inner) for f in self._device_functions() for s in f.body for inner in ast.walk(s)
        }

    def reasons(self) -> Iterator[Reason]:
        for node in ast.walk(self._tree):
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

    def functions(self) -> dict[str, Function]:
        """Host functions at the top level."""
        device = {id(f) for f in self._device_functions()}
        found = {}
        for node in self._tree.body:
            if isinstance(node, ast.FunctionDef) and id(node) not in device:
                cached = any(self._decorator(d) in names.CACHES for d in node.decorator_list)
                found[node.name] = Function(node, cached)
        return found

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
            yield f"{node.id!r} is not allowed"
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node)
        elif text_of(node) and SYSTEM_PATH.search(text_of(node)):
            yield "a path of the system is not allowed"

    def _import(self, name: str) -> Iterator[str]:
        top = name.split(".")[0]
        if top in self._local:
            return
        standard = names.STANDARD if self.strict else names.LOOSE_STANDARD
        if top not in standard | names.PACKAGES:
            yield f"import of {top!r} is not allowed"
        elif name.endswith(".*"):
            yield f"import * of {name[:-2]!r} is not allowed: name what you need"
        elif not self._is_namespace(name):
            yield from self._use(name)

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        attribute = node.attr
        if is_dunder(attribute) and attribute not in names.ALLOWED_DUNDERS:
            yield f"attribute {attribute!r} is not allowed"
            return
        dotted = self._dotted(node)
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
                yield f"{dotted!r} is not allowed"
        elif top == "torch":
            if dotted not in names.TORCH and not is_below(dotted, tuple(names.TORCH_DTYPES)):
                yield (
                    f"{dotted!r} is not allowed: torch may allocate (torch.empty, zeros, full) and "
                    "describe (dtypes, torch.cuda.get_device_properties); the kernel computes"
                )
        elif not is_below(dotted, names.OPEN_PREFIXES) and not asks_driver(dotted):
            yield f"{dotted!r} is not allowed: a kernel is written with {top}'s language alone"

    # --- Triton and TileLang, host and device ---

    def _in_kernel_source(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Name):
            yield from self._name(node)
        elif isinstance(node, ast.Attribute):
            yield from self._strict_attribute(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from self._definition(node)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif text_of(node) and _ODD_FLAG.match(text_of(node)):
            yield f"compiler flag {text_of(node)!r} is not allowed"

    def _name(self, node: ast.Name) -> Iterator[str]:
        dotted = self._modules.get(node.id)
        if dotted is None:
            if is_dunder(node.id) and node.id not in names.BANNED_NAMES | names.ALLOWED_DUNDERS:
                yield f"{node.id!r} is not allowed"
        elif dotted.split(".")[0] not in names.PACKAGES | names.STANDARD:
            return
        elif not isinstance(node.ctx, ast.Load):
            if id(node) in self._cleared:
                return  # what `except ImportError` leaves behind
            yield f"must not rebind the imported {dotted!r}"
        elif id(node) not in self._inner and self._is_namespace(dotted):
            yield f"module {dotted!r} under another name is not allowed: write {node.id}.name"

    def _strict_attribute(self, node: ast.Attribute) -> Iterator[str]:
        attribute = node.attr
        own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        if attribute.startswith("_") and not is_dunder(attribute) and not own:
            yield f"private attribute {attribute!r} is not allowed"
        elif attribute in names.INSIDES and self._dotted(node) is None:
            yield f"attribute {attribute!r} is not allowed"
        elif attribute in names.STREAM_METHODS:
            yield f"{attribute!r} is not allowed: kernels run on the current stream, in order"
        elif attribute in names.FOREIGN_CODE:
            yield f"{attribute!r} is not allowed: a kernel calls no code from outside its source"
        elif not isinstance(node.ctx, ast.Load) and not own and self._dotted(node) is None:
            yield f"must not change attribute {attribute!r} of an object from elsewhere"

    def _definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> Iterator[str]:
        for decorator in node.decorator_list:
            known = self._decorator(decorator)
            if known not in names.DECORATORS and known not in names.BUILTIN_DECORATORS:
                yield f"decorator {ast.unparse(decorator)!r} is not allowed"
        if not isinstance(node, ast.ClassDef):
            if is_dunder(node.name) and node.name not in names.ALLOWED_METHODS:
                yield f"defining {node.name!r} is not allowed"
            return
        if node.keywords:
            yield "a class with a metaclass or class arguments is not allowed"
        for base in node.bases:
            dotted = self._dotted(base) or ""
            if dotted.startswith("torch"):
                yield f"a subclass of {dotted!r} is not allowed: outputs are plain tensors"

    def _call(self, node: ast.Call) -> Iterator[str]:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in names.EXTERNAL_CALLS:
            yield from self._external(node)
        if not isinstance(function, ast.Name):
            return
        name = function.id
        if name in names.BANNED_CALLS and name not in self._own:
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
        yield from self._attribute(same)
        yield from self._strict_attribute(same)
        yield from self._host_attribute(same)

    @staticmethod
    def _external(node: ast.Call) -> Iterator[str]:
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        called = [t for t in texts if isinstance(t, str)]
        if not called:
            yield "an external call needs the function's name as a plain string"
        for name in called:
            if name in C_FUNCTIONS:
                yield f"{name!r} is not allowed: {C_FUNCTIONS[name]}"

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
        if self._dotted(node) is not None:
            return
        if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
            return
        if attribute in names.COMPUTE_METHODS:
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

    # --- names ---

    def _dotted(self, node: ast.expr) -> str | None:
        """Dotted name of an attribute chain that starts at an imported name, else None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._modules:
            return None
        return ".".join([self._modules[node.id], *reversed(parts)])

    def _decorator(self, node: ast.expr) -> str:
        """What a decorator is: a dotted name shortened to a known one, or a plain name."""
        target = node.func if isinstance(node, ast.Call) else node
        dotted = self._dotted(target) or (target.id if isinstance(target, ast.Name) else "")
        return next((d for d in names.DECORATORS if is_below(dotted, (d,))), dotted)

    def _device_functions(self) -> Iterator[ast.FunctionDef]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.FunctionDef):
                decorators = {self._decorator(d) for d in node.decorator_list}
                if decorators & set(names.DEVICE_DECORATORS):
                    yield node

    def _is_namespace(self, dotted: str) -> bool:
        """Whether a dotted name is a package whose parts are judged when they are used."""
        known = (*names.TORCH, *names.OPEN_PREFIXES, names.DRIVER.rstrip("."))
        inside = any(name.startswith(dotted + ".") for name in known)
        whole = dotted in {"tilelang.language", "triton.language", "tvm.tir"}
        return inside or whole or dotted in names.STANDARD | names.LOOSE_STANDARD
