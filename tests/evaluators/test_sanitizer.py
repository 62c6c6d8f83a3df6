"""Memory checkers over real C++ kernels, as far as g++ has them here."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators import catalog, sanitizer
from evaluators.catalog import Operator
from evaluators.sanitizer import Sanitized
from evaluators.schema import Language, Solution
from tests.evaluators.bench import CPP, DEFINITION, TRITON, WORKLOADS, operator_folder, solution


def checked(tmp_path: Path, given: Solution, device: str = "cpu") -> list[Sanitized]:
    folder = operator_folder(tmp_path)
    module = catalog.load_module(Operator("double", folder, {DEFINITION.name: DEFINITION}))
    return sanitizer.check(given, DEFINITION, module, device, WORKLOADS)


def of_cpp(tmp_path: Path, trick: str) -> Sanitized:
    (found,) = checked(tmp_path, solution(CPP % trick, Language.CPP))
    if found.outcome == "not available" and "has no lib" in found.text:
        pytest.skip(found.text)
    return found


def test_a_good_kernel_is_clean(tmp_path: Path) -> None:
    found = of_cpp(tmp_path, "")
    assert found.outcome == "clean", found.text
    assert found.calls == len(WORKLOADS)


@pytest.mark.parametrize(
    ("trick", "said"),
    [
        ("b[n] = 0.0f;", "heap-buffer-overflow"),
        ("volatile int by = 40; volatile int far = 1 << by; (void)far;", "shift exponent 40"),
    ],
    ids=["write past the end", "undefined"],
)
def test_what_a_kernel_must_not_do_is_found(tmp_path: Path, trick: str, said: str) -> None:
    found = of_cpp(tmp_path, trick)
    assert found.outcome == "errors", found
    assert said in found.text
    assert str(tmp_path) not in found.text


def test_a_kernel_that_does_not_build_is_said(tmp_path: Path) -> None:
    found = of_cpp(tmp_path, "undeclared();")
    assert found.outcome == "not available"
    assert "does not build" in found.text


def test_other_languages_on_the_cpu_have_no_checker(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, solution(TRITON % 1, Language.TRITON))
    assert found.outcome == "not available"
    assert "triton" in found.text


def test_an_absent_tool_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = checked(tmp_path, solution(TRITON % 1, Language.TRITON), "cuda")
    assert [record.tool for record in found] == ["memcheck", "racecheck"]
    assert all("compute-sanitizer is not installed" in record.text for record in found)


def test_a_checker_that_watched_nothing_finds_nothing_clean(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("..")
    log = tmp_path / "racecheck.log"
    log.write_text("========= Error: No attachable process found. compute-sanitizer timed-out.\n")
    found = sanitizer._judged("racecheck", 0, tmp_path, 1.0, 240.0)
    assert found.outcome == "not available"
    assert "No attachable process" in found.text
    log.write_text("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n")
    found = sanitizer._judged("racecheck", 0, tmp_path, 1.0, 240.0)
    assert (found.outcome, found.calls) == ("clean", 2)
