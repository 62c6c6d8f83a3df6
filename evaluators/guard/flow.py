"""Where tensors and addresses go in the host code of a Triton or TileLang source.

A tensor is a parameter of the entry point that the definition says is one, a view of one, and
whatever parameter of another function one is passed as. The analysis is by name and follows
nothing through containers: what it cannot follow it does not judge.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from evaluators.guard.python_names import VIEWS
from evaluators.schema import Definition

Reason = tuple[int, str]

_CONTAINER_CALLS = frozenset({"dict", "list", "set", "defaultdict", "OrderedDict", "deque"})
_STORING = frozenset({"add", "append", "appendleft", "extend", "insert", "setdefault", "update"})
_LOOKING_UP = frozenset({"get", "pop", "setdefault"})


@dataclass
class Function:
    """A host function of the module, and the names in it that hold tensors or addresses."""

    node: ast.FunctionDef
    cached: bool
    tensors: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)

    @property
    def parameters(self) -> list[str]:
        args = self.node.args
        return [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]


class Flow:
    """`functions`: the module's host functions by name; `entry` is the entry point's name."""

    def __init__(
        self, tree: ast.Module, functions: dict[str, Function], entry: str, definition: Definition
    ) -> None:
        self._functions = functions
        self._entry = entry
        self._state = _module_state(tree)
        if entry in functions:
            functions[entry].tensors |= _entry_tensors(functions[entry], definition)
        for function in functions.values():
            declared = [n for n in ast.walk(function.node) if isinstance(n, ast.Global)]
            function.shared = self._state | {name for g in declared for name in g.names}
        while sum(self._spread(f) for f in functions.values()):
            pass  # until a round learns nothing

    def reasons(self) -> Iterator[Reason]:
        for function in self._functions.values():
            for node in ast.walk(function.node):
                yield from self._computing(function, node)
                yield from self._keeping(function, node)
                yield from self._recognising(function, node)
        if self._entry in self._functions:
            yield from self._leaving(self._functions[self._entry])

    def _spread(self, function: Function) -> bool:
        """One round: assignments and calls; whether anything new was learnt."""
        before = self._size()
        for node in ast.walk(function.node):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._assign(function, node.targets[0], node.value)
            elif isinstance(node, ast.NamedExpr):
                self._assign(function, node.target, node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                self._call(function, node)
        return self._size() != before

    def _size(self) -> int:
        return sum(len(f.tensors) + len(f.addresses) for f in self._functions.values())

    def _assign(self, function: Function, target: ast.expr, value: ast.expr) -> None:
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=False))
        for to, what in pairs:
            if isinstance(to, ast.Name) and _is_tensor(what, function.tensors):
                function.tensors.add(to.id)
            if isinstance(to, ast.Name) and _has_address(what, function.addresses):
                function.addresses.add(to.id)

    def _call(self, function: Function, call: ast.Call) -> None:
        assert isinstance(call.func, ast.Name)
        called = self._functions.get(call.func.id)
        if called is None:
            return
        given = list(zip(called.parameters, call.args, strict=False))
        given += [(k.arg, k.value) for k in call.keywords if k.arg in called.parameters]
        called.tensors |= {name for name, arg in given if _is_tensor(arg, function.tensors)}

    def _computing(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Operators on tensors, and writing one through torch."""
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
        if any(_is_tensor(o, function.tensors) for o in operands):
            yield _line(node), "arithmetic on a tensor outside a kernel: compute it in the kernel"
        for target in node.targets if isinstance(node, ast.Assign) else []:
            if isinstance(target, ast.Subscript) and _is_tensor(target.value, function.tensors):
                yield _line(node), "a tensor is written outside a kernel: write it in the kernel"

    def _keeping(self, function: Function, node: ast.AST) -> Iterator[Reason]:
        """Arguments and outputs that are kept from one call to the next, and counted calls."""
        kept: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            if any(_root(t) in function.shared for t in node.targets if _outlives(t, function)):
                kept = [node.value]
        elif isinstance(node, ast.AugAssign):
            if _root(node.target) in function.shared:
                yield _line(node), "calls are counted: a kernel does the same work in every call"
        elif isinstance(node, ast.Call):
            if (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in _STORING
                and _root(node.func.value) in function.shared
            ):
                kept = node.args
            called = self._functions.get(getattr(node.func, "id", ""))
            if called is not None and called.cached:
                kept = [*node.args, *(k.value for k in node.keywords)]
        if any(_holds_tensor(value, function.tensors) for value in kept):
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
            called = self._functions.get(getattr(node.func, "id", ""))
            if lookup or (called is not None and called.cached):
                keys = node.args
        if any(_has_address(key, function.addresses) for key in keys):
            yield (
                _line(node),
                "a tensor is recognised by its address: the same address holds other values in "
                "the next call",
            )

    def _leaving(self, entry: Function) -> Iterator[Reason]:
        """The entry point returns early, depending on what earlier calls left."""
        for node in ast.walk(entry.node):
            if not isinstance(node, ast.If):
                continue
            names = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
            leaves = any(isinstance(n, ast.Return) for s in node.body for n in ast.walk(s))
            if leaves and names & entry.shared:
                yield (
                    _line(node),
                    f"{entry.node.name} returns early because of an earlier call: every call has "
                    "to do the work",
                )


def _entry_tensors(entry: Function, definition: Definition) -> set[str]:
    specs = [*definition.inputs.values(), *definition.outputs.values()]
    pairs = zip(entry.parameters, specs, strict=False)
    return {name for name, spec in pairs if spec.shape is not None}


def _module_state(tree: ast.Module) -> set[str]:
    """Names of the module's containers that calls could fill."""
    found = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        empty = isinstance(value, ast.Dict | ast.List | ast.Set)
        if isinstance(value, ast.Call):
            name = value.func.attr if isinstance(value.func, ast.Attribute) else None
            empty = (name or getattr(value.func, "id", "")) in _CONTAINER_CALLS
        if empty:
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


def _is_tensor(node: ast.expr, tensors: set[str]) -> bool:
    """Whether an expression is a known tensor or a view of one."""
    if isinstance(node, ast.Name):
        return node.id in tensors
    if isinstance(node, ast.Subscript | ast.Starred):
        return _is_tensor(node.value, tensors)
    if isinstance(node, ast.Attribute):
        return node.attr in {"T", "mT", "data"} and _is_tensor(node.value, tensors)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in VIEWS and _is_tensor(node.func.value, tensors)
    if isinstance(node, ast.IfExp):
        return _is_tensor(node.body, tensors) or _is_tensor(node.orelse, tensors)
    return False


def _holds_tensor(node: ast.expr, tensors: set[str]) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return any(_holds_tensor(e, tensors) for e in node.elts)
    if isinstance(node, ast.Dict):
        return any(_holds_tensor(e, tensors) for e in node.values)
    return _is_tensor(node, tensors)


def _has_address(node: ast.expr, addresses: set[str]) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and inner.attr == "data_ptr":
            return True
        if isinstance(inner, ast.Name) and inner.id in addresses:
            return True
    return False


def _outlives(target: ast.expr, function: Function) -> bool:
    """Whether an assignment to `target` reaches beyond the call."""
    if isinstance(target, ast.Name):
        return target.id in function.shared
    return isinstance(target, ast.Subscript | ast.Attribute)


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
