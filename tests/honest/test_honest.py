"""Every correct kernel of the corpus passes: nobody is convicted for an unusual style.

Without a GPU the CUDA kernels stop after guard and compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluators import guard
from tests.hacks import cases
from tests.hacks.cases import Case, Judges

CASES = cases.read(Path(__file__).parent / "corpus")
ON_CPU = [c for c in CASES if c.device == "cpu"]
ON_CUDA = [c for c in CASES if c.device == "cuda"]


BEGIN: dict[str, Callable[[Judges, Case], object]] = {
    "test_it_passes": lambda j, c: j.start(c),
    "test_it_compiles_for_an_absent_device": lambda j, c: (
        cases.can_compile(c) and j.start(c, compiling=True)
    ),
}
"""What the tests wait for."""


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="module")
def judges(request: pytest.FixtureRequest) -> Iterator[Judges]:
    """All chosen cases begin at once."""
    made = Judges()
    for item in request.session.items:
        begin = BEGIN.get(getattr(item, "originalname", ""))
        if item.path == request.path and begin is not None:
            begin(made, item.callspec.params["case"])
    yield made
    made.close()


def parameters(found: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in found]


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 25
    assert {c.fields["language"] for c in CASES} == {"triton", "tilelang", "cuda", "cpp"}
    assert {c.expected.pop() for c in CASES} == {"PASSED"}
    assert len({c.fields["style"] for c in CASES}) == len(CASES)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_guard_lets_it_pass(case: Case) -> None:
    assert guard.check(case.solution, case.definition) == []


@pytest.mark.parametrize("case", parameters(ON_CPU))
def test_it_passes(case: Case, judges: Judges) -> None:
    found = judges.evaluate(case)
    assert found.status.value == "PASSED", found.log


@pytest.mark.parametrize("case", parameters(ON_CUDA))
def test_it_compiles_for_an_absent_device(case: Case, judges: Judges) -> None:
    if not cases.can_compile(case):
        pytest.skip("not compiled here")
    found = judges.compile(case)
    assert found.passed, found.log


@pytest.mark.parametrize("case", parameters(ON_CUDA))
def test_it_passes_on_cuda(case: Case, judges: Judges) -> None:
    if not has_cuda():
        pytest.skip("needs a CUDA device")
    found = judges.evaluate(case)
    assert found.status.value == "PASSED", found.log
