"""OpenEvolve's evaluators through the adapter, against what OpenEvolve itself makes of them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from openevolve.config import EvaluatorConfig
from openevolve.evaluator import Evaluator

from evolve.errors import UserError
from evolve.openevolve.adapter import ForeignEvaluator, Outcome

PROGRAM = "value = 3\n"
RESULT = "from openevolve.evaluation_result import EvaluationResult\n"
READ = """
from pathlib import Path

def read(path):
    return int(Path(path).read_text().split()[2])

"""
PLAIN = READ + "def evaluate(path):\n    return {'combined_score': read(path) / 2, 'speed': 7}\n"
STAGES = (
    RESULT
    + READ
    + """
def evaluate(path):
    raise RuntimeError("the stages are wanted")

def evaluate_stage1(path):
    return {"combined_score": 0.6, "first": 1.0, "error": 0.0}

def evaluate_stage2(path):
    if read(path) == 4:
        raise ValueError("four is not possible")
    return EvaluationResult({"combined_score": read(path) / 4, "second": 2}, {"note": "two"})

def evaluate_stage3(path):
    return EvaluationResult({"combined_score": 0.95, "third": 3.5}, {"note": "three"})
"""
)


def evaluator(folder: Path, text: str, **how: Any) -> ForeignEvaluator:
    file = folder / "evaluator.py"
    file.write_text(text)
    return ForeignEvaluator(file, **{"deadline_s": 30.0, **how})


def theirs(file: Path, program: str, thresholds: list[float] | None = None) -> dict[str, Any]:
    config = EvaluatorConfig(
        cascade_evaluation=thresholds is not None,
        cascade_thresholds=thresholds or [],
        max_retries=0,
    )
    found = Evaluator(config, str(file)).evaluate_program(program, "p")
    return dict(asyncio.run(found))


def test_a_dict_of_metrics(tmp_path: Path) -> None:
    foreign = evaluator(tmp_path, PLAIN)
    scored = foreign.score(PROGRAM, ".py")
    assert scored.outcome is Outcome.SCORED
    assert scored.score == 1.5
    assert scored.metrics == theirs(foreign.file, PROGRAM)


def test_an_evaluation_result_with_artifacts(tmp_path: Path) -> None:
    text = RESULT + (
        "def evaluate(path):\n"
        "    print('working')\n"
        "    return EvaluationResult({'a': 1, 'b': 2.0}, {'log': 'fine', 'raw': b'bytes'})\n"
    )
    foreign = evaluator(tmp_path, text)
    scored = foreign.score(PROGRAM, ".py")
    assert scored.metrics == theirs(foreign.file, PROGRAM)
    assert (scored.score, scored.output.strip()) == (1.5, "working")
    assert scored.artifacts == {"log": "fine", "raw": "bytes"}


@pytest.mark.parametrize("value", [1, 3, 4])
@pytest.mark.parametrize("thresholds", [[0.5], [0.7], [0.5, 0.7], [0.5, 0.9]])
def test_the_cascade_stops_where_openevolve_s_does(
    tmp_path: Path, value: int, thresholds: list[float]
) -> None:
    foreign = evaluator(tmp_path, STAGES, thresholds=tuple(thresholds))
    program = f"value = {value}\n"
    scored = foreign.score(program, ".py")
    assert scored.outcome is Outcome.SCORED
    assert scored.metrics == theirs(foreign.file, program, thresholds)


def test_an_evaluator_without_stages_is_called_whole(tmp_path: Path) -> None:
    assert evaluator(tmp_path, PLAIN, thresholds=(0.5,)).score(PROGRAM, ".py").score == 1.5


def test_modules_beside_it_and_the_program_s_suffix(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 10\n")
    text = (
        "from helper import FACTOR\n\n"
        "def evaluate(path):\n    return {'combined_score': FACTOR * path.endswith('.cu')}\n"
    )
    assert evaluator(tmp_path, text).score("__global__ void k() {}", ".cu").score == 10


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no such kernel')", "no such kernel"),
        ("import os; print('bye', flush=True); os._exit(0)", "bye"),
        ("import os; os.abort()", "exit code -6"),
        ("return 1.5", "not a dict"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_what_an_evaluator_does_wrong_is_an_outcome(tmp_path: Path, body: str, told: str) -> None:
    scored = evaluator(tmp_path, f"def evaluate(path):\n    {body}\n").score(PROGRAM, ".py")
    assert scored.outcome is Outcome.FAILED
    assert told in scored.output
    assert (scored.score, scored.metrics) == (0.0, {})


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_deadline_ends_it_and_what_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, time\nfrom pathlib import Path\n\ndef evaluate(path):\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        f"    Path({str(tmp_path)!r}, 'child').write_text(str(child.pid))\n"
        "    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    started = time.monotonic()
    scored = evaluator(tmp_path, text, deadline_s=2.0).score(PROGRAM, ".py")
    assert time.monotonic() - started < 20
    assert (scored.outcome, scored.output.strip()) == (Outcome.TIMEOUT, "begun")
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_no_number_is_an_artifact(tmp_path: Path) -> None:
    text = "def evaluate(path):\n    return {'a': 1.0, 'b': float('nan'), 'c': 'fast', 'd': True}\n"
    scored = evaluator(tmp_path, text).score(PROGRAM, ".py")
    assert scored.score == 1.0
    assert scored.metrics == {"a": 1.0, "d": True}
    assert scored.artifacts == {"metric b": "nan", "metric c": "fast"}


def test_it_sees_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted")
    monkeypatch.setenv("HARMLESS", "kept")
    text = (
        "import os\n\ndef evaluate(path):\n    print(sorted(os.environ.items()))\n    return {}\n"
    )
    scored = evaluator(tmp_path, text).score(PROGRAM, ".py")
    assert "planted" not in scored.output
    assert "HARMLESS" in scored.output
    assert os.environ["SOME_API_KEY"] == "planted"


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluator at"):
        ForeignEvaluator(tmp_path / "absent.py")
    with pytest.raises(UserError, match="cannot start"):
        evaluator(tmp_path, PLAIN, python=str(tmp_path / "python")).score(PROGRAM, ".py")
