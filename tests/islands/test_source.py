"""Normalised source: what is equal, what is not, and that nothing makes it fail."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import tunables
from evaluators.schema import Language
from islands.source import cut, marked, normalise, skeleton

PYTHON = '''"""A kernel."""
import triton  # the compiler

BLOCK = 64  # tune: 16 32 64

def run(x):
    """Doc."""
    return f(x, BLOCK)  # done
'''

SAME_PYTHON = """import triton
BLOCK = 64


def run(x):

    return f(
        x,
        BLOCK,
    )
"""

CPP = r"""
#include <cmath>  // maths
#define SQUARE(x) \
    ((x) * (x))
constexpr int BLOCK = 64;  // tune: 16 32 64
/* the entry */
void run(float* x, char sep = '"') {
    const char* note = "// not a comment /* nor this */";
    x[0] = x[1] - -x[2];   x[1] = 1'000'000;
}
"""

SAME_CPP = r"""#include <cmath>
#define SQUARE(x) ((x) * (x))
constexpr   int BLOCK=64;
void run(float *x, char sep='"')
{ const char *note="// not a comment /* nor this */"; x[0]=x[1]- -x[2]; x[1]=1'000'000; }"""


def test_python_ignores_comments_docstrings_and_layout() -> None:
    assert normalise(Language.TRITON, PYTHON) == normalise(Language.TRITON, SAME_PYTHON)


def test_cpp_ignores_comments_and_layout() -> None:
    assert normalise(Language.CPP, CPP) == normalise(Language.CPP, SAME_CPP)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1\n", "x = 2\n"),
        ("BLOCK = 16  # tune: 16 32\n", "BLOCK = 32  # tune: 16 32\n"),
        ("x = '# a'\n", "x = '# b'\n"),
        ("def f():\n    return 1\nf()\n", "def f():\n    return 1\n    f()\n"),
    ],
)
def test_python_keeps_what_matters(one: str, other: str) -> None:
    assert normalise(Language.TRITON, one) != normalise(Language.TRITON, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int a;", "int b;"),
        ("a - -b;", "a--b;"),
        ("a / *b;", "a /*b;*/"),
        ("int a;", "inta;"),
        ('s = "a b";', 's = "ab";'),
        ('s = R"(a // b)";', 's = R"(a // c)";'),
        ("#define F (x)\n", "#define F(x)\n"),
        ("#define A\nint b;", "#define A int b;"),
        ("constexpr int B = 1;  // tune: 1 2", "constexpr int B = 2;  // tune: 1 2"),
    ],
)
def test_cpp_keeps_what_matters(one: str, other: str) -> None:
    assert normalise(Language.CUDA, one) != normalise(Language.CUDA, other)


def test_a_suffix_tells_more_than_the_language() -> None:
    assert normalise(Language.CUDA, "x = 1  # a\n", "host.py") == "x = 1"
    assert normalise(Language.TRITON, "int x;  // a\n", "device.cuh") == "int x;"


def test_a_tune_comment_makes_no_difference() -> None:
    for value in ("64", "0x40", '"sm"', "True", "-1", "1e-5", "None"):
        plain, declared = f"X = {value}\n", f"X = {value}  # tune: {value} 1\n"
        assert normalise(Language.TRITON, plain) == normalise(Language.TRITON, declared)
        plain, declared = f"#define X {value}\n", f"#define X {value}  // tune: {value} 1\n"
        assert normalise(Language.CPP, plain) == normalise(Language.CPP, declared)


def test_assignments_share_a_skeleton() -> None:
    one, first = skeleton(Language.TRITON, PYTHON)
    other, second = skeleton(Language.TRITON, tunables.assign(PYTHON, {"BLOCK": "16"}))
    assert one is other
    assert (first, second) == (["64"], ["16"])
    assert "64" not in marked(one)


def test_a_mark_in_the_source_is_left_alone() -> None:
    text = "_tunable_0_ = 5\nX = 3  # tune: 3 4\n"
    assert normalise(Language.TRITON, text) == "_tunable_0_ = 5\nX = 3"


def test_python_that_does_not_parse_loses_trailing_blanks_only() -> None:
    assert normalise(Language.TRITON, "def f(:   \n  # c\n") == "def f(:\n  # c"


tokens = ["a", "b1", "12", "1'0", "+", "-", "/", "//x\n", "/*y*/", " ", "\n", "#", "define",
          '"s"', "'c'", 'R"(b // c)"', ";", "(", ")", "=", "<", ":", "\t"]  # fmt: skip
broken = ['"', "'", 'R"(', ')"', "/*", "*/", "\\\n", "\\", "\0", "é", "// tune: 1 2"]
pieces = st.sampled_from(tokens + broken)


@given(st.one_of(st.text(), st.lists(pieces).map("".join)), st.sampled_from(Language))
@settings(max_examples=300, deadline=None)
def test_any_text_normalises(text: str, language: Language) -> None:
    assert isinstance(normalise(language, text), str)


@given(st.lists(st.sampled_from(tokens)).map("".join))
@settings(max_examples=300, deadline=None)
def test_cpp_is_idempotent(text: str) -> None:
    once = normalise(Language.CPP, text)
    assert normalise(Language.CPP, once) == once


@pytest.mark.filterwarnings("ignore:invalid")
@given(st.lists(pieces).map("".join))
@settings(max_examples=200, deadline=None)
def test_python_keeps_the_program(text: str) -> None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    if not any(isinstance(n, ast.Constant) for n in ast.walk(tree)):
        assert ast.dump(ast.parse(normalise(Language.TRITON, text))) == ast.dump(tree)


lines = st.sampled_from(
    ["X = 1  # tune: 1 2", "  Y: int = 2 # tune: 2", "constexpr int Z = 3;  // tune: 3 4  ",
     "#define W 4  // tune: 4 5", "a = 1", "", "# tune:", "V = 1  # tune:", "f()  # tune: 1 2",
     "X = '#' # tune: 1", "  \t", "U = 5 ;# tune: 5\t6"]
)  # fmt: skip


@given(st.lists(lines, max_size=8).map("\n".join))
@settings(max_examples=300, deadline=None)
def test_cut_agrees_with_find(text: str) -> None:
    around, found = cut(text)
    rebuilt = around[0] + "".join(t.value + p for t, p in zip(found, around[1:], strict=True))
    assert rebuilt == text
    try:
        expected = tunables.find(text)
    except ValueError:
        return
    assert {t.name: t for t in found} == expected
