"""Where tensors and addresses go in the host code of a Triton or TileLang source.

A tensor is a parameter of the entry point that the definition says is one, a view of one, and
whatever parameter of another function one is passed as. What holds one is known by its text
(`x`, `box[0]`, `self.x`): elements of tuples, lists and dicts are followed where they are named,
starred and looped over. The analysis knows no order of statements: what a name holds anywhere in
a function (or a loop) it holds everywhere in it. What cannot be followed is not judged.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from evaluators.guard.hosts import Function
from evaluators.guard.python_names import TENSOR_ATTRIBUTES, VIEWS
from evaluators.schema import Definition

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_APPLYING = frozenset({"accumulate", "filter", "map", "max", "min", "reduce", "sorted", "starmap"})
"""Calls that apply a function to the elements of their other arguments."""
_MOST = 16
"""Elements of a container that are followed."""
_DEEPEST = 3
"""Containers within containers that are followed."""


class Tracking:
    """Follows tensors through `functions` from the entry points on."""

    def __init__(
        self, tree: ast.Module, functions: Sequence[Function], entry: str, definition: Definition
    ) -> None:
        self.functions = functions
        self._by_name: dict[str, list[Function]] = {}
        self._looped: set[int] = set()  # names in loops that hold tensors there
        for function in functions:
            self._by_name.setdefault(function.name, []).append(function)
        self._alias(tree)
        specs = [*definition.inputs.values(), *definition.outputs.values()]
        self.entries = self._entries(tree, entry, len(specs))
        for found in self.entries:
            places = found.parameters
            for at, spec in enumerate(specs):
                if spec.shape is not None:
                    self._give(found, at, places)
        while sum(self._spread(f) for f in functions):
            pass  # until a round learns nothing

    def named(self, name: str) -> list[Function]:
        return self._by_name.get(name, [])

    def _alias(self, tree: ast.Module) -> None:
        """`second = first`, `name = lambda ...` and `name = functools.cache(first)`."""
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            value, name = node.value, node.targets[0].id
            if isinstance(value, ast.Name):
                self._by_name.setdefault(name, []).extend(self.named(value.id))
            elif isinstance(value, ast.Lambda):
                self._by_name.setdefault(name, []).extend(
                    f for f in self.functions if f.node is value
                )
            elif isinstance(value, ast.Call):
                wrapped = [a.id for a in value.args if isinstance(a, ast.Name)]
                known = [f for name in wrapped for f in self.named(name)]
                if known and _last(value.func) in {"cache", "lru_cache", "partial"}:
                    self._by_name.setdefault(name, []).extend(known)
                    for function in known:
                        function.cached |= _last(value.func) != "partial"

    def _entries(self, tree: ast.Module, entry: str, wanted: int) -> list[Function]:
        """The entry point; where it is made by a call, all functions that could be it."""
        own = [f for f in self.named(entry) if not f.owner]
        if own or any(isinstance(n, ast.FunctionDef) and n.name == entry for n in tree.body):
            return own
        return [f for f in self.functions if not f.owner and len(f.parameters) == wanted]

    # -- one round ----------------------------------------------------------------------------

    def _spread(self, function: Function) -> bool:
        before = self._size()
        for node in function.nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(function, target, node.value)
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
                self._assign(function, node.target, node.value)
            elif isinstance(node, ast.For):
                self._loop(function, node.target, node.iter, node)
            elif isinstance(node, _COMPREHENSIONS):
                for part in node.generators:
                    self._loop(function, part.target, part.iter, node)
            elif isinstance(node, ast.Call):
                self._call(function, node)
            elif isinstance(node, ast.Return) and node.value is not None:
                function.returns |= self.is_tensor(node.value, function)
        return self._size() != before

    def _size(self) -> int:
        found = sum(len(f.tensors) + len(f.addresses) + f.returns for f in self.functions)
        return found + len(self._looped)

    def _assign(
        self, function: Function, target: ast.expr, value: ast.expr, loop: ast.AST | None = None
    ) -> None:
        """`target = value`; what a loop binds is bound inside it."""
        if isinstance(target, ast.Tuple | ast.List):
            self._unpack(function, target.elts, value, loop)
            return
        name = text_of(target)
        if not name:
            return
        if self.is_tensor(value, function):
            self._mark(function, name, loop)
        if self.has_address(value, function):
            function.addresses.add(name)
        for suffix in self._elements(value, function):
            self._mark(function, name + suffix)

    def _unpack(
        self, function: Function, targets: list[ast.expr], value: ast.expr, loop: ast.AST | None
    ) -> None:
        """`a, b = value` and `a, *rest = value`."""
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(targets):
            for target, element in zip(targets, value.elts, strict=True):
                self._assign(function, target, element, loop)
            return
        if self.is_tensor(value, function):
            held = {f"[{i}]" for i in range(_MOST)}
        else:
            held = set(self._elements(value, function))
        star = next((i for i, t in enumerate(targets) if isinstance(t, ast.Starred)), len(targets))
        for at, target in enumerate(targets[:star]):
            if f"[{at}]" in held and (name := text_of(target)):
                self._mark(function, name, loop)
        if star < len(targets) and isinstance(rest := targets[star], ast.Starred):
            for at in range(star, _MOST):
                if f"[{at}]" in held:
                    self._mark(function, f"{text_of(rest.value)}[{at - star}]")

    def _mark(self, function: Function, name: str, loop: ast.AST | None = None) -> None:
        if name.count("[") > _DEEPEST:
            return
        if loop is not None and name.isidentifier():
            inside = (n for n in ast.walk(loop) if isinstance(n, ast.Name))
            self._looped |= {id(n) for n in inside if n.id == name}
            return
        function.tensors.add(name)
        if name.startswith("self."):  # other methods see it too
            for other in self.functions:
                if other.owner and other.owner == function.owner:
                    other.tensors.add(name)

    def _elements(self, value: ast.expr, function: Function) -> list[str]:
        """Which elements of a container are tensors, as suffixes such as `[0]`."""
        if isinstance(value, ast.Tuple | ast.List):
            pairs: list[tuple[str, ast.expr]] = [(str(i), e) for i, e in enumerate(value.elts)]
        elif isinstance(value, ast.Dict):
            pairs = [
                (ast.unparse(k), v) for k, v in zip(value.keys, value.values, strict=True) if k
            ]
        else:
            name = text_of(value)
            held = [t[len(name) :] for t in function.tensors if name and t.startswith(f"{name}[")]
            return held
        return [f"[{key}]" for key, element in pairs if self.is_tensor(element, function)]

    def _loop(self, function: Function, target: ast.expr, over: ast.expr, loop: ast.AST) -> None:
        """`for target in over`: what it runs through."""
        called = _last(over.func) if isinstance(over, ast.Call) else ""
        args = over.args if isinstance(over, ast.Call) else []
        if called == "zip" and isinstance(target, ast.Tuple):
            for part, arg in zip(target.elts, args, strict=False):
                self._loop(function, part, arg, loop)
        elif called == "enumerate" and isinstance(target, ast.Tuple) and args:
            self._loop(function, target.elts[-1], args[0], loop)
        elif called in {"reversed", "iter", "list", "tuple", "sorted", "chain"}:
            for arg in args:
                self._loop(function, target, arg, loop)
        elif isinstance(over, ast.Tuple | ast.List | ast.Set):
            for element in over.elts:
                self._assign(function, target, element, loop)
        elif self._holds(over, function) and (name := text_of(target)):
            self._mark(function, name, loop)

    def _holds(self, node: ast.expr, function: Function) -> bool:
        """Whether an expression is a tensor or has one for an element."""
        return self.is_tensor(node, function) or bool(self._elements(node, function))

    # -- calls --------------------------------------------------------------------------------

    def _call(self, function: Function, call: ast.Call) -> None:
        name = _last(call.func)
        if name in _APPLYING:
            self._apply(function, call)
        args = call.args
        if name == "partial" and args:
            name, args = _last(args[0]), args[1:]
        for called in self.called(name, self._class_of(call.func, function)):
            places = called.parameters
            if called.owner and (called.name == "__init__" or isinstance(call.func, ast.Attribute)):
                places = places[1:]
            for at, given in enumerate(args):
                if isinstance(given, ast.Starred):
                    for suffix in self._elements(given.value, function):
                        if suffix[1:-1].isdigit():
                            self._give(called, at + int(suffix[1:-1]), places)
                elif self.is_tensor(given, function):
                    self._give(called, at, places)
            for keyword in call.keywords:
                if keyword.arg in places and self.is_tensor(keyword.value, function):
                    called.tensors.add(str(keyword.arg))

    def called(self, name: str, owner: str) -> list[Function]:
        """Functions that a call by `name` runs: of that name, and of that class where it is known.

        A call of a class runs its `__init__`.
        """
        if not name:
            return []
        found = self.named(name)
        known = [f for f in found if owner and f.owner == owner]
        return [*(known or found), *(f for f in self.named("__init__") if f.owner == name)]

    def _class_of(self, called: ast.expr, function: Function) -> str:
        """The class whose method a call names: `self.go(...)` or `Plan.go(...)`; '' for unknown."""
        base = called.value if isinstance(called, ast.Attribute) else None
        if not isinstance(base, ast.Name):
            return ""
        return function.owner if base.id in {"self", "cls"} else base.id

    def _give(self, function: Function, at: int, places: list[str]) -> None:
        """A tensor is given in place `at`."""
        if at < len(places):
            function.tensors.add(places[at])
        elif function.star:
            taken = len(function.node.args.posonlyargs) + len(function.node.args.args)
            function.tensors.add(f"{function.star}[{at - taken}]")

    def _apply(self, function: Function, call: ast.Call) -> None:
        """`map(f, [x])`: the function gets elements of the other arguments."""
        given = [*call.args, *(k.value for k in call.keywords)]
        if not any(self._holds(arg, function) for arg in given):
            return
        for arg in given:
            if isinstance(arg, ast.Lambda):
                function.tensors |= {a.arg for a in arg.args.args}
            for applied in self.named(_last(arg)) if isinstance(arg, ast.Name) else ():
                applied.tensors |= set(applied.parameters)

    # -- questions ----------------------------------------------------------------------------

    def is_tensor(self, node: ast.expr, function: Function) -> bool:
        """Whether an expression is a known tensor or a view of one."""
        if text_of(node) in function.tensors or id(node) in self._looped:
            return True
        if isinstance(node, ast.Subscript | ast.Starred | ast.NamedExpr):
            return self.is_tensor(node.value, function)
        if isinstance(node, ast.Attribute):
            return node.attr in TENSOR_ATTRIBUTES and self.is_tensor(node.value, function)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS:
                return self.is_tensor(node.func.value, function)
            return any(f.returns for f in self.named(_last(node.func)))
        if isinstance(node, ast.IfExp):
            return self.is_tensor(node.body, function) or self.is_tensor(node.orelse, function)
        return isinstance(node, ast.BoolOp) and any(
            self.is_tensor(value, function) for value in node.values
        )

    def contains(self, node: ast.expr, function: Function) -> bool:
        """Whether keeping an expression keeps a tensor."""
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(self.contains(e, function) for e in node.elts)
        if isinstance(node, ast.Dict):
            return any(self.contains(e, function) for e in node.values)
        return self._holds(node, function)

    def has_address(self, node: ast.expr, function: Function) -> bool:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and inner.attr == "data_ptr":
                return True
            if isinstance(inner, ast.Name) and inner.id in function.addresses:
                return True
        return False


def text_of(node: ast.expr) -> str:
    """The text by which a name, an attribute or a subscript with a plain key is known; or ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = text_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        inner = text_of(node.value)
        return f"{inner}[{ast.unparse(node.slice)}]" if inner else ""
    return ""


def _last(node: ast.expr) -> str:
    """The last name of what is called."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
