"""Every cheating candidate of the corpus gets the status that its file names.

Cases that wait for work on the evaluator (`pending`) fail as expected, and strictly: once they are
caught, the mark has to go. Without a GPU the CUDA cases stop after guard and compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluators import guard
from tests.hacks import cases
from tests.hacks.cases import Case, Judges

CASES = cases.read(Path(__file__).parent / "corpus")
REFUSED = [c for c in CASES if c.fields["caught by"] == "guard"]
RUN = [c for c in CASES if c.device == "cpu" and c not in REFUSED]
ON_CUDA = [c for c in CASES if c.device == "cuda" and c not in REFUSED]
UNGUARDED = [c for c in REFUSED if c.device == "cpu" and c.unguarded]


BEGIN: dict[str, Callable[[Judges, Case], object]] = {
    "test_the_evaluator_catches": lambda j, c: j.start(c),
    "test_what_the_guard_refuses_would_not_have_passed": lambda j, c: j.start(c, guarded=False),
    "test_cuda_cases_compile_for_an_absent_device": lambda j, c: (
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
    """Test parameters; pending cases are expected to fail."""
    return [
        pytest.param(
            case,
            id=case.name,
            marks=[pytest.mark.xfail(reason=case.fields["pending"], strict=True)]
            if "pending" in case.fields
            else [],
        )
        for case in found
    ]


def holds(case: Case, status: str, score: float, log: str) -> None:
    assert status in case.expected, f"{status} (score {score:.2f}): {log}"
    if "at most" in case.fields:
        assert score <= float(case.fields["at most"]), f"score {score:.2f}"


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 40
    assert {c.fields["language"] for c in CASES} == {"triton", "tilelang", "cuda", "cpp"}
    assert len(RUN) >= 20
    tricks = Counter(c.fields["trick"] for c in CASES)
    assert [t for t, n in tricks.items() if n > 1] == []
    for case in CASES:
        assert case.fields["caught by"] in cases.STAGES, case.name
        assert (case in REFUSED) == (case.expected == {"INVALID_SOURCE"}), case.name
        assert case.definition.name == case.fields["definition"]


@pytest.mark.parametrize("case", parameters(REFUSED))
def test_the_guard_refuses(case: Case) -> None:
    reasons = guard.check(case.solution, case.definition)
    assert reasons
    lines = len(case.path.read_text().splitlines())
    numbers = [int(r.split(":")[0].removeprefix("line ")) for r in reasons]
    assert all(0 < number <= lines for number in numbers), reasons


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in RUN + ON_CUDA])
def test_the_guard_leaves_the_others_to_the_judge(case: Case) -> None:
    assert guard.check(case.solution, case.definition) == []


@pytest.mark.parametrize("case", parameters(RUN))
def test_the_evaluator_catches(case: Case, judges: Judges) -> None:
    found = judges.evaluate(case)
    holds(case, found.status.value, found.score, found.log)


@pytest.mark.parametrize("case", parameters(UNGUARDED))
def test_what_the_guard_refuses_would_not_have_passed(case: Case, judges: Judges) -> None:
    found = judges.evaluate(case, guarded=False)
    assert found.status.value in case.unguarded, found.log


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in ON_CUDA])
def test_cuda_cases_compile_for_an_absent_device(case: Case, judges: Judges) -> None:
    """So that a GPU judges what they do, and not that they do not build."""
    if not cases.can_compile(case):
        pytest.skip("not compiled here")
    found = judges.compile(case)
    wanted = "COMPILE_ERROR" if case.fields["caught by"] == "build" else "PASSED"
    assert found.status.value == wanted, found.log


@pytest.mark.parametrize("case", parameters(ON_CUDA))
def test_the_evaluator_catches_on_cuda(case: Case, judges: Judges) -> None:
    if not has_cuda():
        pytest.skip("needs a CUDA device")
    found = judges.evaluate(case)
    holds(case, found.status.value, found.score, found.log)
