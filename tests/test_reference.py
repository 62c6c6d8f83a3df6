"""What `reference_source` keeps of an operator's module."""

import pytest

from evolve.reference import NoReference, reference_source

MODULE = '''"""Docstring."""

from __future__ import annotations

import math
import os

import torch

SCALE = 2.0
SCALES = {"a": 1.0}
SCALES["b"] = SCALE
UNUSED = os.sep


def decorate(function):
    return function


@decorate
def run(x: torch.Tensor, é: str = "é") -> tuple[torch.Tensor, torch.Tensor]:
    # comments stay
    return _scaled(x), x


def _scaled(x):
    return x * SCALES["b"] * math.pi


def cost(x):
    return len(x)
'''


def test_keeps_what_run_needs_and_nothing_else():
    source = reference_source(MODULE)
    for part in ("import math", "import torch", "SCALE = 2.0", 'SCALES["b"] = SCALE', "@decorate",
                 "# comments stay", "def _scaled", "def decorate"):  # fmt: skip
        assert part in source
    for part in ("Docstring", "import os", "UNUSED", "def cost"):
        assert part not in source
    assert source.startswith("from __future__ import annotations\n\nimport math\nimport torch\n")


def test_run_loses_its_return_annotation_alone():
    assert 'def run(x: torch.Tensor, é: str = "é"):\n' in reference_source(MODULE)


def test_cutting_again_changes_nothing():
    once = reference_source(MODULE)
    assert reference_source(once) == once


def test_the_result_runs():
    names: dict[str, object] = {"__name__": "reference"}
    exec(compile(reference_source(MODULE), "reference", "exec"), names)
    assert names["run"](1.0) == (pytest.approx(2 * 3.14159265), 1.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [("def run(:", "line 1"), ("x = 1", "no top-level function"), ("class run: ...", "no top")],
)
def test_says_why_there_is_none(source, message):
    with pytest.raises(NoReference, match=message):
        reference_source(source)
