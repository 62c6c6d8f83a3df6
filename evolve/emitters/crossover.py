"""Crossover: makes one program of two elites.

Two ways: values of tunables that both declare, and whole functions where the interfaces agree.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evaluators.schema import Solution
from evolve.emitters.space import read, replaced
from islands.archive import Archive
from islands.emitter import Emitter, Proposal
from islands.program import Program, program_id
from islands.selection import select
from islands.source import cut, is_python, parse

TRIES = 12
"""Pairs of parents tried before giving up for now."""
FUNCTIONS = 0.5
"""Chance that whole functions are swapped, where that is possible, and not values."""


class Crossover(Emitter):
    """Recombines two elites; None when chance finds no new combination."""

    name = "crossover"

    def propose(self, archive: Archive, rng: np.random.Generator) -> Proposal | None:
        if len(archive) < 2:
            return None
        for _ in range(TRIES):
            one, other = select(archive, rng).program, archive.sample(rng).program
            if one.id == other.id:
                continue
            ways = [_functions, _values] if rng.random() < FUNCTIONS else [_values, _functions]
            for way in ways:
                child = way(one.solution, other.solution, rng)
                if child is not None and self._is_new(child[0], one, other):
                    return Proposal(child[0], (one.id, other.id), child[1])
        return None

    def _is_new(self, child: Solution, one: Program, other: Program) -> bool:
        found = program_id(child)
        return found not in self._known and found not in (one.id, other.id)


def _values(
    one: Solution, other: Solution, rng: np.random.Generator
) -> tuple[Solution, str] | None:
    """`one` with some of `other`'s values of the tunables that both declare."""
    mine, theirs = read(one), read(other)
    if mine is None or theirs is None:
        return None
    space, values = mine
    offered = dict(zip(theirs[0].names, theirs[1], strict=True))
    shared = {
        i: offered[name]
        for i, name in enumerate(space.names)
        if name in offered and offered[name] != values[i] and offered[name] in space.choices[i]
    }
    taken = {i: value for i, value in shared.items() if rng.random() < 0.5}
    if not taken:
        return None
    note = "values " + ", ".join(f"{space.names[i]} = {value}" for i, value in taken.items())
    return one.with_entry_source(space.render(replaced(values, taken))), note


@dataclass(frozen=True)
class Function:
    """A top-level function; its interface is its arguments and decorators."""

    interface: str
    text: str
    first: int  # line numbers from 0; `last` is exclusive
    last: int

    def reads(self) -> frozenset[str]:
        """All names in the function."""
        tree = parse(self.text) or ast.Module([], [])
        return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))


@dataclass(frozen=True)
class Outline:
    """What a module declares at its top level."""

    functions: dict[str, Function]
    names: frozenset[str]
    tunables: dict[str, str]  # name -> the whole line


def _functions(
    one: Solution, other: Solution, rng: np.random.Generator
) -> tuple[Solution, str] | None:
    """`one` with one function of `other` that has the same name, arguments and decorators."""
    if one.spec.language is not other.spec.language:
        return None
    if not is_python(one.spec.language, one.spec.entry_file):
        return None
    if _same_template(one, other):
        return None
    mine, theirs = outline(one.entry_source), outline(other.entry_source)
    if mine is None or theirs is None:
        return None
    candidates = [
        name
        for name, function in mine.functions.items()
        if name in theirs.functions
        and theirs.functions[name].interface == function.interface
        and theirs.functions[name].text != function.text
    ]
    if not candidates:
        return None
    name = candidates[int(rng.integers(len(candidates)))]
    text = transplant(one, mine, other, theirs, name)
    return None if text is None else (one.with_entry_source(text), f"function {name}")


def _same_template(one: Solution, other: Solution) -> bool:
    """Whether the values of tunables are all that differs."""
    mine, theirs = read(one), read(other)
    return mine is not None and theirs is not None and mine[0].key == theirs[0].key


def transplant(
    one: Solution, mine: Outline, other: Solution, theirs: Outline, name: str
) -> str | None:
    """`one`'s source with `other`'s function `name` and the tunables that the function uses.

    A tunable that only `other` declares comes along; one that both declare takes `other`'s value if
    it is a choice. None when the function needs anything else that `one` does not have.
    """
    old, new = mine.functions[name], theirs.functions[name]
    reads = new.reads()
    missing = (reads & theirs.names) - mine.names
    if missing - set(theirs.tunables):
        return None
    brought = [line for tunable, line in theirs.tunables.items() if tunable in missing]
    lines = one.entry_source.split("\n")
    lines[old.first : old.last] = [*brought, *([""] * 2 if brought else []), new.text]
    text = _with_values(
        one.with_entry_source("\n".join(lines)), other, reads & set(theirs.tunables)
    )
    return text if parse(text) is not None else None


def _with_values(child: Solution, other: Solution, names: frozenset[str]) -> str:
    """`child`'s source with `other`'s values of the tunables `names`, where they are choices."""
    mine, theirs = read(child), read(other)
    if mine is None or theirs is None:
        return child.entry_source
    space, values = mine
    offered = dict(zip(theirs[0].names, theirs[1], strict=True))
    changes = {
        i: offered[name]
        for i, name in enumerate(space.names)
        if name in names and offered.get(name) in space.choices[i]
    }
    return space.render(replaced(values, changes))


@lru_cache(maxsize=256)
def outline(source: str) -> Outline | None:
    """Outline of Python `source`; None when it does not parse."""
    tree = parse(source)
    if tree is None:
        return None
    lines = source.split("\n")
    functions: dict[str, Function] = {}
    names: set[str] = set()
    for node in tree.body:
        names |= _bound(node)
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = _function(node, lines)
    return Outline(functions, frozenset(names), _tunable_lines(source, names))


def _function(node: ast.FunctionDef, lines: list[str]) -> Function:
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    last = node.end_lineno or node.lineno
    interface = [ast.unparse(node.args), *(ast.unparse(d) for d in node.decorator_list)]
    return Function(
        interface="\n".join(interface),
        text="\n".join(lines[first:last]),
        first=first,
        last=last,
    )


def _bound(node: ast.stmt) -> set[str]:
    """Names that a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name).partition(".")[0] for a in node.names}
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in stored if isinstance(n.ctx, ast.Store)}


def _tunable_lines(source: str, names: set[str]) -> dict[str, str]:
    """Lines of the tunables that stand at the top level, by name."""
    found: dict[str, str] = {}
    for line in source.split("\n"):
        for tunable in cut(line)[1]:
            if tunable.name in names and not line[0].isspace():
                found.setdefault(tunable.name, line)
    return found
