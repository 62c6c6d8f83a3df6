"""Tunables: declared in plain source, changed without touching anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import tunables
from evaluators.tunables import Tunable

PYTHON = """\
import triton
BLOCK_M = 64  # tune: 16 32 64 128
STAGES: int = 3  # tune: 2 3 4
OTHER = 7  # a plain constant

def run(x, y):
    SPLIT = "auto"  # tune: "auto" "never"
    return BLOCK_M
"""

CUDA = """\
#define WARPS 4  // tune: 2 4 8
constexpr int BLOCK_N = 128;  // tune: 64 128 256
static constexpr float SCALE = 0.5f;  // tune: 0.5f 1.0f
int plain = 3;  // no declaration
"""


def test_finds_python_declarations():
    assert tunables.find(PYTHON) == {
        "BLOCK_M": Tunable("BLOCK_M", "64", ("16", "32", "64", "128")),
        "STAGES": Tunable("STAGES", "3", ("2", "3", "4")),
        "SPLIT": Tunable("SPLIT", '"auto"', ('"auto"', '"never"')),
    }


def test_finds_c_declarations():
    found = tunables.find(CUDA)
    assert {n: t.value for n, t in found.items()} == {
        "WARPS": "4",
        "BLOCK_N": "128",
        "SCALE": "0.5f",
    }
    assert found["BLOCK_N"].choices == ("64", "128", "256")


@pytest.mark.parametrize("source", [PYTHON, CUDA])
def test_assign_changes_the_named_values_only(source):
    name, tunable = next(iter(tunables.find(source).items()))
    other = next(c for c in tunable.choices if c != tunable.value)
    changed = tunables.assign(source, {name: other})
    assert tunables.find(changed)[name].value == other
    before, after = source.splitlines(), changed.splitlines()
    different = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(different) == 1
    assert before[different[0]].replace(tunable.value, other, 1) == after[different[0]]


def test_assign_refuses_an_undeclared_name():
    with pytest.raises(KeyError, match="NOPE"):
        tunables.assign(PYTHON, {"NOPE": "1"})


def test_refuses_a_name_declared_twice_or_without_choices():
    with pytest.raises(ValueError, match="declared twice"):
        tunables.find("A = 1  # tune: 1 2\nA = 2  # tune: 1 2\n")
    with pytest.raises(ValueError, match="no choices"):
        tunables.find("A = 1  # tune:\n")


def test_template_is_equal_for_programs_that_differ_in_tunables_only():
    changed = tunables.assign(PYTHON, {"BLOCK_M": "16", "STAGES": "4"})
    assert tunables.template(changed) == tunables.template(PYTHON)
    assert tunables.template(PYTHON.replace("OTHER = 7", "OTHER = 8")) != tunables.template(PYTHON)


NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
VALUES = st.from_regex(r"[0-9]{1,4}", fullmatch=True)
DECLARED = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=5, unique=True), min_size=1)


@given(DECLARED, st.randoms(use_true_random=False))
def test_assign_then_find_gives_back_what_was_assigned(declared, random):
    lines = [f"{name} = {c[0]}  # tune: {' '.join(c)}" for name, c in declared.items()]
    wanted = {name: random.choice(choices) for name, choices in declared.items()}
    changed = tunables.assign("\n".join(lines) + "\n", wanted)
    assert {n: t.value for n, t in tunables.find(changed).items()} == wanted
    assert {n: list(t.choices) for n, t in tunables.find(changed).items()} == declared
