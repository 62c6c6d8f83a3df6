"""What the host code of a Triton or TileLang source does with tensors, beyond launching kernels.

Computing with them, waiting for their values, keeping them for later calls, recognising them by
their address, and counting calls. Where they are is `tracking`'s affair.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from evaluators.guard.hosts import Function
from evaluators.guard.python_names import (
    HOST_READS,
    METADATA,
    REACHING_METHODS,
    STREAM_METHODS,
    VIEWS,
)
from evaluators.guard.tracking import Tracking, text_of
from evaluators.schema import Definition

Reason = tuple[int, str]

_CONTAINER_CALLS = frozenset({"dict", "list", "set", "defaultdict", "OrderedDict", "deque"})
_STORING = frozenset({"add", "append", "appendleft", "extend", "insert", "setdefault", "update"})
_LOOKING_UP = frozenset({"get", "pop", "setdefault"})
_COMPUTING = frozenset({"abs", "divmod", "max", "min", "pow", "round", "sorted", "sum"})
_READING = frozenset({
    "all", "any", "bool", "complex", "float", "format", "int", "print", "repr", "str",
})  # fmt: skip
_NUMBERS = frozenset({"accumulate", "math", "reduce"})

_JUDGED = METADATA | VIEWS | HOST_READS | REACHING_METHODS | STREAM_METHODS
"""Attributes of tensors that are allowed, or refused with a reason of their own."""

_COMPUTE = "arithmetic on a tensor outside a kernel: compute it in the kernel"
_WAIT = "the host must not wait for a tensor's values: decide in the kernel, or by shapes"
_COUNT = "calls are counted: a kernel does the same work in every call"


class Flow:
    """`functions`: the source's host functions; `entry` is the entry point's name."""

    def __init__(
        self, tree: ast.Module, functions: Sequence[Function], entry: str, definition: Definition
    ) -> None:
        state = _module_state(tree)
        classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
        lasting = {_made(n.value) for n in tree.body if isinstance(n, ast.Assign)} & classes
        self._iterators = _module_names(tree)
        for function in functions:
            function.shared = state | classes | function.declared | _defaults(function)
            if function.owner and function.name != "__init__":
                function.shared |= {"cls"} | ({"self"} if function.owner in lasting else set())
        self._track = Tracking(tree, functions, entry, definition)
        for function in functions:
            function.shared |= self._cached_results(function)

    def reasons(self) -> Iterator[Reason]:
        for function in self._track.functions:
            for node in function.nodes:
                yield from self._computing(function, node)
                yield from self._methods(function, node)
                yield from self._reading(function, node)
                yield from self._keeping(function, node)
                yield from self._recognising(function, node)
        for entry in self._track.entries:
            yield from self._leaving(entry)

    # -- the work of one call -----------------------------------------------------------------

    def _computing(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Operators and built-ins on tensors, and writing one through torch."""
        operands: list[ast.expr] = []
        if isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
            operands = [node.operand]
        elif isinstance(node, ast.AugAssign):
            operands = [node.target, node.value]
        elif isinstance(node, ast.Compare):
            plain = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
            operands = [] if plain else [node.left, *node.comparators]
        elif isinstance(node, ast.Call):
            operands = node.args if _computes(node.func) else []
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and self._track.is_tensor(node.value, function)
        ):
            yield _line(node), "a tensor is written outside a kernel: write it in the kernel"
        if any(self._track.is_tensor(o, function) for o in operands):
            yield _line(node), _COMPUTE

    def _methods(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """What a known tensor is asked to do. Tables elsewhere judge unknown objects."""
        if isinstance(node, ast.Attribute) and self._track.is_tensor(node.value, function):
            unknown = node.attr not in _JUDGED and not node.attr.startswith("_")
            if unknown and text_of(node) not in function.tensors:
                what = f"tensor method {node.attr!r} outside a kernel: compute it in the kernel"
                yield _line(node), what
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"fill_", "new_full"}
            and any(self._track.is_tensor(a, function) for a in node.args)
        ):
            yield _line(node), _WAIT

    def _reading(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Where Python asks a tensor for its values."""
        asked: list[ast.expr] = []
        if isinstance(node, ast.Call):
            by_name = isinstance(node.func, ast.Name) and node.func.id in _READING
            by_text = isinstance(node.func, ast.Attribute) and node.func.attr == "format"
            asked = [_plain(a) for a in node.args] if by_name or by_text else []
        elif isinstance(node, ast.FormattedValue):
            asked = [node.value]
        elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            asked = [node.test]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            asked = [node.operand]
        if any(self._track.is_tensor(value, function) for value in asked):
            yield _line(node), _WAIT

    # -- from one call to the next ------------------------------------------------------------

    def _keeping(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Arguments and outputs that are kept from one call to the next, and counted calls."""
        kept: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            if any(self._outlives(t, function) for t in node.targets):
                kept = [node.value]
        elif isinstance(node, ast.AugAssign):
            if self._shared(node.target, function):
                yield _line(node), _COUNT
        elif isinstance(node, ast.Call):
            method = node.func if isinstance(node.func, ast.Attribute) else None
            if method and method.attr in _STORING and self._shared(method.value, function):
                kept = node.args
            if any(called.cached for called in self._track.named(_name(node.func))):
                kept = [*node.args, *(k.value for k in node.keywords)]
            first = node.args[0] if node.args else None
            if _name(node.func) == "next" and first and _root(first) in self._iterators:
                yield _line(node), _COUNT
        if any(self._track.contains(value, function) for value in kept):
            yield (
                _line(node),
                "an input or output is kept for later calls: keep compiled kernels and workspaces "
                "(torch.empty) only",
            )

    def _recognising(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Looking something up by a tensor's address."""
        keys: list[ast.expr] = []
        if isinstance(node, ast.Subscript):
            keys = [node.slice]
        elif isinstance(node, ast.Compare):
            keys = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            keys = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Call):
            lookup = isinstance(node.func, ast.Attribute) and node.func.attr in _LOOKING_UP
            if lookup or any(called.cached for called in self._track.named(_name(node.func))):
                keys = node.args
        if any(self._track.has_address(key, function) for key in keys):
            yield (
                _line(node),
                "a tensor is recognised by its address: the same address holds other values in "
                "the next call",
            )

    def _leaving(self, entry: Function) -> Iterator[Reason]:
        """The entry point returns early, depending on what earlier calls left."""
        for node in entry.nodes:
            if not isinstance(node, ast.If):
                continue
            names = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
            leaves = any(isinstance(n, ast.Return) for s in node.body for n in ast.walk(s))
            if leaves and names & entry.shared:
                yield (
                    _line(node),
                    f"{entry.name or 'the entry point'} returns early because of an earlier call: "
                    "every call has to do the work",
                )

    def _cached_results(self, function: Function) -> set[str]:
        """Names for what a cached function gives: the same object in every call."""
        return {
            target.id
            for node in function.nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and self._is_cached(node.value)
        }

    def _is_cached(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and any(
            called.cached for called in self._track.named(_name(node.func))
        )

    def _shared(self, node: ast.expr, function: Function) -> bool:
        """Whether an expression is, or belongs to, what outlives the call."""
        while isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
        return self._is_cached(node) or (isinstance(node, ast.Name) and node.id in function.shared)

    def _outlives(self, target: ast.expr, function: Function) -> bool:
        """Whether an assignment to `target` reaches beyond the call."""
        if isinstance(target, ast.Name):
            return target.id in function.shared & function.declared
        inside = isinstance(target, ast.Subscript | ast.Attribute)
        return inside and self._shared(target, function)


def _module_state(tree: ast.Module) -> set[str]:
    """Names of the module's containers that calls could fill."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_container(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def _module_names(tree: ast.Module) -> set[str]:
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _is_container(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Call):
        return _name(node.func) in _CONTAINER_CALLS
    return isinstance(node, ast.Dict | ast.List | ast.Set)


def _defaults(function: Function) -> set[str]:
    """Parameters whose default is a container: the same one in every call."""
    args = function.node.args
    placed = [*args.posonlyargs, *args.args]
    pairs = [
        *zip(placed[len(placed) - len(args.defaults) :], args.defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]
    return {arg.arg for arg, default in pairs if _is_container(default)}


def _made(node: ast.expr) -> str:
    """What a module's object is made by."""
    return _name(node.func) if isinstance(node, ast.Call) else ""


def _computes(function: ast.expr) -> bool:
    """Whether what is called computes with its arguments: a built-in, math or itertools."""
    if isinstance(function, ast.Name):
        return function.id in _COMPUTING | {"accumulate", "reduce"}
    inside = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
    return inside and bool({text_of(function).split(".")[0], _name(function)} & _NUMBERS)


def _plain(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
