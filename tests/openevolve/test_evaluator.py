"""OpenEvolve's own evaluator calling ours: a real kernel, a wrong one, one that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openevolve.config import EvaluatorConfig, load_config
from openevolve.evaluation_result import EvaluationResult
from openevolve.evaluator import Evaluator

from evaluators.schema import Solution
from evolve.errors import UserError
from evolve.openevolve.evaluator import Judge
from evolve.openevolve.project import write
from tests.openevolve.conftest import OPERATOR

SMALL = {"workloads": 1, "seed": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the command writes, for a small sample."""
    out = tmp_path_factory.mktemp("project")
    written = write(OPERATOR, None, "cpu", "cpp", out)
    assert sorted(Path(file).name for file in written["written"]) == [
        "config.yaml", "evaluator.py", "initial_program.cpp"
    ]  # fmt: skip
    text = (out / "evaluator.py").read_text()
    small = text.replace("device=", "workloads=1, device=")
    assert small != text
    (out / "evaluator.py").write_text(small)
    return out


def test_files_that_are_there_are_kept(project: Path) -> None:
    before = {path.name: path.read_bytes() for path in project.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="is there already"):
        write("gqa_paged_decode", None, "cpu", None, project)
    assert {n: (project / n).read_bytes() for n in before} == before


@pytest.fixture(scope="module")
def theirs(project: Path) -> Iterator[Evaluator]:
    """OpenEvolve's evaluator, configured by the file written."""
    config = load_config(project / "config.yaml")
    found = Evaluator(config.evaluator, str(project / "evaluator.py"), suffix=config.file_suffix)
    yield found
    found.evaluate_function.close()


def score(theirs: Evaluator, program: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics = asyncio.run(theirs.evaluate_program(program, name))
    return dict(metrics), theirs.get_pending_artifacts(name) or {}


def test_the_initial_program_scores(theirs: Evaluator, project: Path) -> None:
    program = (project / "initial_program.cpp").read_text()
    assert "EVOLVE-BLOCK-START" in program
    metrics, artifacts = score(theirs, program, "initial")
    assert metrics["correct"] == 1.0
    assert metrics["combined_score"] == pytest.approx(1.0, rel=0.5), "it is the anchor itself"
    assert metrics["speedup_low"] <= metrics["combined_score"] <= metrics["speedup_high"]
    assert artifacts["status"] == "PASSED"
    assert "speedup" in artifacts["latency"]


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        (("0.7978845608f", "0.9f"), "INCORRECT_NUMERICAL", "output"),
        (("#include <cmath>", "#include <cmath>\n#include <fstream>"), "INVALID_SOURCE", "fstream"),
        (("return y / (", "return y // ("), "COMPILE_ERROR", "error"),
    ],
)
def test_a_program_that_is_not_correct_scores_nothing_and_learns_why(
    theirs: Evaluator, project: Path, change: tuple[str, str], status: str, told: str
) -> None:
    program = (project / "initial_program.cpp").read_text()
    assert change[0] in program
    metrics, artifacts = score(theirs, program.replace(*change), status)
    assert metrics == {"combined_score": 0.0, "correct": 0.0}
    assert artifacts["status"] == status
    assert told in artifacts["log"]


def test_the_configuration_is_openevolve_s(project: Path) -> None:
    config = load_config(project / "config.yaml")
    assert (config.language, config.file_suffix) == ("cpp", ".cpp")
    assert isinstance(config.evaluator, EvaluatorConfig)
    assert not config.evaluator.cascade_evaluation
    message = config.prompt.system_message
    assert "TVM_FFI_DLL_EXPORT_TYPED_FUNC" in message
    assert "`weight`" in message


def test_a_program_that_says_no_language_is_told_so(tmp_path: Path) -> None:
    judge = Judge(OPERATOR, device="cpu", **SMALL)
    file = tmp_path / "program.py"
    file.write_text("print('hello')\n")
    judge._worker = lambda: None  # type: ignore[method-assign, return-value, assignment]
    judge._device, judge._definition = "cpu", judge._operator.definition(None, "cpu")
    found = judge(file)
    assert isinstance(found, EvaluationResult)
    assert found.metrics["combined_score"] == 0.0
    assert "--language" in str(found.artifacts["log"])


def test_seeds_are_chosen_by_name(tmp_path: Path, seed: Solution) -> None:
    write(OPERATOR, None, "cpu", "seed_cpp", tmp_path)
    assert seed.entry_source in (tmp_path / "initial_program.cpp").read_text()
    with pytest.raises(UserError, match=r"unknown seed 'absent', known: .*seed_cpp"):
        write(OPERATOR, None, "cpu", "absent", tmp_path)
