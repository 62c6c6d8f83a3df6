"""From a solution to an `Evaluation`: statuses, results, epochs, several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.anchor import AnchorError
from evaluators.child import EvaluatorError
from evaluators.pipeline import Evaluator
from evaluators.schema import Evaluation, Language, Status
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import (
    CPP,
    DEFINITION,
    GOOD,
    OPERATOR,
    WORKLOADS,
    evaluator,
    operator_folder,
    solution,
)

FAST = EvaluatorSettings(build_deadline_s=30, run_deadline_s=5, latency_s=0.05, samples=4)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    made = evaluator(tmp_path_factory.mktemp("double"), FAST)
    yield made
    made.close()


def kernel(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"import torch\ndef run(x, scale, y):\n{lines}\n"


def test_a_right_kernel_passes_with_every_fact(judge: Evaluator) -> None:
    found = judge.evaluate(solution(GOOD))
    assert found.status is Status.PASSED, found.log
    assert [r.workload for r in found.results] == ["small", "large"]
    assert [r.weight for r in found.results] == [1.0, 2.0]
    assert found.epoch == 3
    assert set(found.seconds) == {"wait", "build", "correctness", "latency"}
    assert found.build is not None
    assert found.started > 0
    assert found.environment["torch"]
    assert 0.2 < found.score < 5
    assert found.score_low <= found.score <= found.score_high
    for result in found.results:
        assert result.max_absolute_error == 0
        assert result.eager_ms == result.latency_ms


def test_a_cpp_kernel_passes(judge: Evaluator) -> None:
    found = judge.evaluate(solution(CPP % "", Language.CPP))
    assert found.status is Status.PASSED, found.log


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("y.copy_(3 * x)", "off by more than"),
        ("y.zero_()", "off by more than"),
        ("pass", "NaN"),
        ("y[:-1] = x[:-1] * scale", "1 of 1000 elements not finite (1 NaN)"),
        ("y.copy_(x * scale); y[5] = float('inf')", "not finite"),
    ],
)
def test_wrong_numbers_are_incorrect(judge: Evaluator, body: str, word: str) -> None:
    found = judge.evaluate(solution(kernel(body)))
    assert found.status is Status.INCORRECT_NUMERICAL
    assert word in found.log
    assert not found.results


def test_a_kernel_right_on_one_workload_only_fails(judge: Evaluator) -> None:
    found = judge.evaluate(solution(kernel("if len(x) == 1000: torch.mul(x, scale, out=y)")))
    assert found.status is Status.INCORRECT_NUMERICAL
    assert "n=100000" in found.log


def test_a_kernel_that_stops_working_while_timed_fails(judge: Evaluator) -> None:
    text = "calls = 0\n" + kernel(
        "global calls\ncalls += 1\nif calls < 6: torch.mul(x, scale, out=y)"
    )
    found = judge.evaluate(solution(text))
    assert found.status is Status.INCORRECT_NUMERICAL


def test_returned_tensors_have_to_fit(judge: Evaluator) -> None:
    shape = judge.evaluate(solution(kernel("return x[:3]")))
    assert shape.status is Status.INCORRECT_SHAPE
    assert "(3,)" in shape.log
    dtype = judge.evaluate(solution(kernel("return x.double()")))
    assert dtype.status is Status.INCORRECT_DTYPE
    assert "float64" in dtype.log
    number = judge.evaluate(solution(kernel("return x * scale, x")))
    assert number.status is Status.INCORRECT_SHAPE


def test_without_destination_passing_the_returned_tensor_counts(judge: Evaluator) -> None:
    text = "def run(x, scale):\n    return x * scale\n"
    found = judge.evaluate(solution(text, passing=False), trusted=True)
    assert found.status is Status.PASSED, found.log
    none = judge.evaluate(solution("def run(x, scale):\n    pass\n", passing=False), trusted=True)
    assert none.status is Status.INCORRECT_SHAPE


def test_source_that_the_guard_refuses_is_invalid(judge: Evaluator) -> None:
    found = judge.evaluate(solution("import subprocess\n" + GOOD))
    assert found.status is Status.INVALID_SOURCE
    assert "subprocess" in found.log


def test_source_that_does_not_compile_is_a_compile_error(judge: Evaluator) -> None:
    found = judge.evaluate(solution(CPP % "int x = ;", Language.CPP))
    assert found.status is Status.COMPILE_ERROR
    assert "error:" in found.log
    assert "/tmp" not in found.log
    broken = judge.evaluate(solution("import no_such_module\n" + GOOD), trusted=True)
    assert broken.status is Status.COMPILE_ERROR
    assert "no_such_module" in broken.log


def test_an_exception_is_a_runtime_error_with_its_line(judge: Evaluator) -> None:
    found = judge.evaluate(solution(kernel("print('half way')\nraise ValueError('no such tile')")))
    assert found.status is Status.RUNTIME_ERROR
    assert "ValueError: no such tile" in found.log
    assert "kernel.py:4" in found.log
    assert "half way" in found.log


def test_a_peer_that_prepares_is_timed_without_its_preparation(judge: Evaluator) -> None:
    text = (
        "import time, torch\n"
        "def prepare(x, scale, y):\n"
        "    time.sleep(0.05)\n"
        "    return lambda: torch.mul(x, scale, out=y)\n"
    )
    peer = solution(text).model_dump()
    peer["spec"]["entry_point"] = "kernel.py::prepare"
    found = judge.evaluate(type(solution(text)).model_validate(peer), trusted=True)
    assert found.status is Status.PASSED, found.log
    assert max(r.latency_ms for r in found.results) < 20


def test_several_at_once_share_the_device(tmp_path: Path) -> None:
    settings = FAST.model_copy(update={"slots": 2})
    wrong = solution(kernel("y.copy_(3 * x)"))
    found: dict[int, Evaluation] = {}
    with evaluator(tmp_path, settings) as shared:

        def work(number: int) -> None:
            found[number] = shared.evaluate(wrong if number % 2 else solution(GOOD))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        facts = shared.facts()
    statuses = [found[n].status for n in range(5)]
    assert statuses == [Status.PASSED, Status.INCORRECT_NUMERICAL] * 2 + [Status.PASSED]
    assert facts["slots"] == 2
    assert facts["busy_s"] > 0


def test_an_innocent_survives_the_death_of_the_nursery(tmp_path: Path) -> None:
    """One candidate kills the process that all are forked from; its neighbour is tried again."""
    settings = FAST.model_copy(update={"slots": 2})
    slow = solution("import time\n" + GOOD + "    time.sleep(0.2)\n")
    killer = (
        "import os, time\ntime.sleep(0.3)\n"
        "keeper = open(f'/proc/{os.getppid()}/stat').read()\n"
        "os.kill(int(keeper.rpartition(')')[2].split()[1]), 9)\n" + GOOD
    )
    found: list[Evaluation] = []
    with evaluator(tmp_path, settings) as shared:
        innocent = threading.Thread(
            target=lambda: found.append(shared.evaluate(slow, trusted=True))
        )
        innocent.start()
        culprit = shared.evaluate(solution(killer), trusted=True)
        innocent.join()
    assert culprit.status is Status.RUNTIME_ERROR
    assert "died" in culprit.log
    assert found[0].status is Status.PASSED, found[0].log


def test_a_new_epoch_brings_new_workloads(tmp_path: Path) -> None:
    with evaluator(tmp_path, FAST) as changing:
        assert changing.evaluate(solution(GOOD)).epoch == 3
        changing.open_epoch(4, WORKLOADS[1:], solution(CPP % "", Language.CPP))
        found = changing.evaluate(solution(GOOD))
        assert found.epoch == 4
        assert [r.workload for r in found.results] == ["large"]
        with pytest.raises(AnchorError, match="INCORRECT_NUMERICAL"):
            changing.open_epoch(5, WORKLOADS, solution(kernel("y.zero_()")))
        with pytest.raises(EvaluatorError, match="no epoch"):
            changing.evaluate(solution(GOOD))
        changing.open_epoch(6, WORKLOADS, solution(GOOD))
        assert changing.evaluate(solution(GOOD)).status is Status.PASSED


def test_an_operator_that_breaks_its_definition_is_the_evaluators_error(tmp_path: Path) -> None:
    text = OPERATOR.replace("return x * scale", "return (x * scale).double()")
    folder = operator_folder(tmp_path, text)
    broken = Evaluator("cpu", DEFINITION, folder, FAST)
    with broken, pytest.raises(EvaluatorError, match="float64"):
        broken.open_epoch(0, WORKLOADS, solution(GOOD))


def test_facts_name_the_device_and_its_ceilings(judge: Evaluator) -> None:
    facts = judge.facts()
    assert facts["kind"] == "cpu"
    assert facts["name"]
    assert facts["ceilings"]["copy_gbps"] > 0.1
    assert facts["ceilings"]["tflops"]["float32"] > 0
    assert facts["slots"] == 1
    assert facts["idle_s"] >= 0
