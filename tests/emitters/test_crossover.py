"""Crossover: values and whole functions of two elites, only where they fit."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators import tunables
from evaluators.schema import Language
from evolve.emitters import Crossover
from islands.archive import Archive
from islands.descriptor import describe
from islands.niche import Niche
from islands.program import Program
from tests.islands.samples import passed, program

HEAD = """import math

BLOCK = 16  # tune: 16 32 64
WARPS = 4  # tune: 4 8

"""
RUN = """
def run(x, y):
    y.copy_(helper(x, BLOCK))
"""
OTHER_RUN = """
def run(x, y):
    helper(x, BLOCK, out=y)
"""
PLAIN = '''
@decorated(1)
def helper(x, n: int):
    """Plain."""
    return x * n
'''
CLEVER = """
@decorated(1)
def helper(x, n: int):
    # the clever way
    return (x << DEPTH) * WARPS
"""
DEPTH = "DEPTH = 3  # tune: 1 2 3\n"


def children(one: str, other: str, language: Language = Language.TRITON) -> list[Program]:
    """All different children of two elites in 60 tries."""
    crossover, archive = Crossover(), Archive()
    parents = [program(one, language), program(other, language)]
    for number, parent in enumerate(parents):
        status = archive.add(parent, passed(1.0 + number), Niche(tile=("t8", "t16")[number]))
        crossover.learn(parent, passed(1.0 + number), status)
    found = []
    for seed in range(60):
        proposal = crossover.propose(archive, np.random.default_rng(seed))
        if proposal is not None:
            child = Program.of(proposal.solution, parents=proposal.parents, note=proposal.note)
            assert child.id not in {p.id for p in parents}
            assert set(child.parents) == {p.id for p in parents}
            found.append(child)
            crossover.known(child.id)
    assert len({c.id for c in found}) == len(found)
    return found


def values(child: Program) -> dict[str, str]:
    return {n: t.value for n, t in tunables.find(child.solution.entry_source).items()}


def test_values_of_one_template_are_recombined() -> None:
    one = "A = 1  # tune: 1 2\nB = 1  # tune: 1 2\nC = 1  # tune: 1 2\n"
    found = children(one, one.replace("= 1 ", "= 2 "))
    assert sorted(tuple(values(c).values()) for c in found) == [
        ("1", "1", "2"), ("1", "2", "1"), ("1", "2", "2"),
        ("2", "1", "1"), ("2", "1", "2"), ("2", "2", "1"),
    ]  # fmt: skip


def test_parents_that_differ_in_one_value_have_no_child() -> None:
    one = "A = 1  # tune: 1 2\nB = 1  # tune: 1 2\n"
    assert children(one, one.replace("A = 1", "A = 2")) == []


def test_shared_names_cross_between_templates_where_the_value_is_a_choice() -> None:
    one = "A = 1  # tune: 1 2\nB = 1  # tune: 1 2\n"
    other = "A = 2  # tune: 1 2 3\nB = 9  # tune: 1 9\nC = 4  # tune: 4 5\n"
    found = {c.solution.entry_source for c in children(one, other)}
    assert found == {one.replace("A = 1", "A = 2"), *same(other, A="1"), *same(other, B="1"),
                     *same(other, A="1", B="1")}  # fmt: skip


def same(source: str, **assigned: str) -> list[str]:
    return [tunables.assign(source, assigned)]


def test_values_cross_in_cpp() -> None:
    one = "constexpr int A = 1;  // tune: 1 2\nconstexpr int B = 1;  // tune: 1 2\nvoid run() {}\n"
    found = children(one, one.replace("= 1;", "= 2;"), Language.CPP)
    assert sorted(tuple(values(c).values()) for c in found) == [("1", "2"), ("2", "1")]


def test_a_function_crosses_with_its_comments_and_tunables() -> None:
    found = children(HEAD + PLAIN + RUN, HEAD + DEPTH + CLEVER + OTHER_RUN)
    [child] = [
        c.solution.entry_source
        for c in found
        if c.note == "function helper" and "the clever way" in c.solution.entry_source
    ]
    assert child.count("def helper") == 1
    assert "Plain" not in child
    assert tunables.find(child)["DEPTH"].choices == ("1", "2", "3")
    assert child.endswith(RUN)
    compile(child, "kernel.py", "exec")
    [back] = [
        c.solution.entry_source
        for c in found
        if c.note == "function helper" and "Plain" in c.solution.entry_source
    ]
    assert back == HEAD + DEPTH + PLAIN + OTHER_RUN


def test_a_functions_tunables_keep_their_values() -> None:
    one = HEAD + PLAIN + RUN
    other = (HEAD + CLEVER + OTHER_RUN).replace("DEPTH", "7")
    other = tunables.assign(other, {"WARPS": "8", "BLOCK": "64"})
    sources = [(c, c.solution.entry_source) for c in children(one, other)]
    [clever] = [c for c, s in sources if "clever" in s and RUN in s and "BLOCK = 16" in s]
    assert values(clever) == {"BLOCK": "16", "WARPS": "8"}  # the clever helper reads WARPS alone


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace("n: int", "m: int").replace("x * n", "x + m"),
        PLAIN.replace("@decorated(1)", "@decorated(2)").replace("*", "+"),
        PLAIN.replace("n: int", "n: int = 3").replace("*", "+"),
        PLAIN.replace("helper", "assistant").replace("*", "+"),
        PLAIN.replace("Plain.", "Same code, other words."),
        "\ndef helper(x, n: int:\n",
    ],
)
def test_interfaces_that_disagree_do_not_cross(other: str) -> None:
    assert children(PLAIN, other) == []


def test_a_function_stays_where_its_needs_are() -> None:
    """SECRET is no tunable and only one module has it, so only the plain function can move."""
    one, other = PLAIN + RUN, "SECRET = 3\n" + PLAIN.replace("* n", "* SECRET") + OTHER_RUN
    found = {c.solution.entry_source for c in children(one, other) if c.note == "function helper"}
    assert found == {other.replace("* SECRET", "* n")}


def test_parents_of_two_languages_share_no_functions() -> None:
    crossover, archive = Crossover(), Archive()
    for language, body in ((Language.TRITON, PLAIN), (Language.TILELANG, CLEVER)):
        parent = program(body + RUN, language)
        archive.add(parent, passed(1.0), describe(parent, passed(1.0)))
    assert len(archive) == 2
    assert all(crossover.propose(archive, np.random.default_rng(k)) is None for k in range(30))
