"""The host functions of a Triton or TileLang source: all that is not compiled as a kernel."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property

from evaluators.guard.python_names import CACHES
from evaluators.guard.scope import Names

Callable = ast.FunctionDef | ast.Lambda


@dataclass
class Function:
    """A host function of the source, and what in it holds tensors or addresses.

    `owner`: the class that it is a method of; `cached`: one result serves all equal calls.
    """

    name: str
    node: Callable
    cached: bool = False
    owner: str = ""
    tensors: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    returns: bool = False

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that can be given by place or name."""
        args = self.node.args
        return [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]

    @property
    def star(self) -> str:
        """Name of the parameter that takes the other arguments, or ''."""
        return self.node.args.vararg.arg if self.node.args.vararg else ""

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.node))

    @cached_property
    def declared(self) -> set[str]:
        """Names of other scopes that it assigns."""
        found = (n for n in self.nodes if isinstance(n, ast.Global | ast.Nonlocal))
        return {name for node in found for name in node.names}


def functions(names: Names) -> list[Function]:
    """Functions, methods and lambdas of a source, at any depth."""
    device = {id(f) for f in names.device}
    device |= {id(inner) for f in names.device for s in f.body for inner in ast.walk(s)}
    owners = {
        id(item): node.name
        for node in names.nodes
        if isinstance(node, ast.ClassDef)
        for item in node.body
    }
    found = []
    for node in names.nodes:
        if id(node) in device:
            continue
        if isinstance(node, ast.Lambda):
            found.append(Function("", node))
        elif isinstance(node, ast.FunctionDef):
            cached = any(names.decorator(d) in CACHES for d in node.decorator_list)
            found.append(Function(node.name, node, cached, owners.get(id(node), "")))
    return found
