"""From a solution to an `Evaluation`: statuses, results, epochs, several at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.anchor import AnchorError
from evaluators.child import EvaluatorError
from evaluators.pipeline import Evaluator
from evaluators.schema import BuildFacts, Evaluation, Language, Status
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
        (
            "y[:-1] = x[:-1] * scale",
            "1 of 1000 elements not finite where they should be, or the reverse (1 NaN)",
        ),
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
    """The process that all are forked from is killed; who was at work is tried again."""
    settings = FAST.model_copy(update={"slots": 2})
    slow = solution("import time\n" + GOOD + "    time.sleep(0.2)\n")
    found: list[Evaluation] = []
    with evaluator(tmp_path, settings) as shared:
        innocent = threading.Thread(
            target=lambda: found.append(shared.evaluate(slow, trusted=True))
        )
        innocent.start()
        time.sleep(0.3)
        os.kill(shared.processes()[0], signal.SIGKILL)
        innocent.join()
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


@pytest.mark.parametrize("place", ["b[n]", "b[-1]", "b[n + 9000]"])
def test_writing_just_outside_the_outputs_is_a_runtime_error(judge: Evaluator, place: str) -> None:
    # Not in warm calls: their outputs lie in memory that the process needs.
    text = CPP % f"if (b[0] != b[0]) {place} = 0;"
    found = judge.evaluate(solution(text, Language.CPP))
    assert found.status is Status.RUNTIME_ERROR
    assert "output 'y'" in found.log


def test_outputs_that_vary_beyond_rounding_are_nondeterministic(judge: Evaluator) -> None:
    noise = "y.copy_(x * scale * (1 + 1e-3 * torch.rand(())))"
    found = judge.evaluate(solution(kernel(noise)))
    assert found.status is Status.NONDETERMINISTIC, found.log
    assert "differs between two calls on equal inputs" in found.log
    rounding = "y.copy_(x * scale * (1 + 5e-8 * torch.rand(())))"
    found = judge.evaluate(solution(kernel(rounding)))
    assert found.status is Status.PASSED, found.log


def test_every_call_has_values_of_its_own(judge: Evaluator, tmp_path: Path) -> None:
    """Values come twice where two calls are compared, and in the two of a first look."""
    text = "seen = []\n" + kernel(
        "seen.append(float(x[0]))\nopen('notes', 'w').write(repr(seen))\n"
        "assert len(seen) - len(set(seen)) <= 4, sorted(seen)\ntorch.mul(x, scale, out=y)"
    )
    found = judge.evaluate(solution(text), trusted=True)
    assert found.status is Status.PASSED, found.log


def test_memory_that_was_freed_holds_nothing_of_use(judge: Evaluator) -> None:
    body = "float* sum = new float[n]; for (int64_t i = 0; i < n; ++i) sum[i] += a[i] * scale;"
    text = (CPP % body).replace("b[i] = a[i] * scale", "b[i] = sum[i]")
    text = text.replace("}\n\nTVM", "  delete[] sum;\n}\n\nTVM")
    found = judge.evaluate(solution(text, Language.CPP))
    assert found.status in {Status.INCORRECT_NUMERICAL, Status.NONDETERMINISTIC}


def test_a_clock_that_runs_slow_is_implausible(judge: Evaluator) -> None:
    """Without the guard, and faster than any core could be."""
    slow = "import time\nfrom evaluators import stopwatch\nclock = stopwatch.perf_counter_ns\n"
    work = "torch.mul(x, scale, out=y)\nend = clock() + 10_000_000\nwhile clock() < end: pass"
    judge.guarded = False
    try:
        text = slow + "stopwatch.perf_counter_ns = lambda: clock() // 50\n" + kernel(work)
        hidden = judge.evaluate(solution(text), samples_factor=3)
        honest = judge.evaluate(solution(slow + kernel(work)))
    finally:
        judge.guarded = True
    assert hidden.status is Status.IMPLAUSIBLE, hidden.log
    assert "outside the measured time" in hidden.log
    assert honest.status is Status.PASSED, honest.log


def test_work_left_to_a_thread_is_found(judge: Evaluator) -> None:
    """The outputs are whole when the call returns, yet the process goes on working."""
    spin = "std::thread([] { for (volatile int i = 0; i < 20000000; ++i) {} }).detach();"
    text = "#include <thread>\n" + CPP % spin
    judge.guarded = False
    try:
        found = judge.evaluate(solution(text, Language.CPP))
    finally:
        judge.guarded = True
    assert found.status is Status.IMPLAUSIBLE, found.log
    assert "ms of processor time beyond that" in found.log


def test_faster_than_the_device_is_implausible(tmp_path: Path) -> None:
    """An operator that asks for more arithmetic than any processor does in the time of a copy."""
    text = OPERATOR.replace('return axes["n"], 8', "return 1e13, 8")
    with Evaluator("cpu", DEFINITION, operator_folder(tmp_path, text), FAST) as made:
        made.open_epoch(0, WORKLOADS, solution(GOOD))
        found = made.evaluate(solution(GOOD))
        trusted = made.evaluate(solution(GOOD), trusted=True)
    assert found.status is Status.IMPLAUSIBLE
    assert "less than this device can take" in found.log
    assert trusted.status is Status.PASSED


def test_a_program_that_does_not_contend_stops_at_the_screen(judge: Evaluator) -> None:
    asked = []

    def contends(facts: BuildFacts | None, high: float, timed: tuple[str, ...]) -> bool:
        asked.append((high, timed))
        return high > 1e6

    found = judge.evaluate(solution(GOOD), contends=contends)
    assert found.status is Status.PASSED
    assert found.rung == "screen"
    assert len(found.results) == 1
    assert asked == [(found.score_high, ("large",))]
    full = judge.evaluate(solution(GOOD), contends=lambda facts, *_: facts is not None)
    assert full.rung == "full"
    assert [r.workload for r in full.results] == ["small", "large"]
    assert judge.evaluate(solution(GOOD)).rung == "full"


CASES = """

def cases(definition):
    return [({"n": n}, {"label": f"n={n}", "values": "normal"}) for n in (0, 1, 17)]
"""


def test_cases_are_judged_and_not_timed(tmp_path: Path) -> None:
    folder = operator_folder(tmp_path, OPERATOR + CASES)
    with Evaluator("cpu", DEFINITION, folder, FAST) as made:
        made.open_epoch(0, WORKLOADS, solution(GOOD))
        found = made.evaluate(solution(GOOD))
        text = kernel("if len(x) % 2 == 0: torch.mul(x, scale, out=y)")
        odd = made.evaluate(solution(text))
        library = made.evaluate(solution(text), trusted=True)
    assert library.status is Status.PASSED, library.log
    assert [r.workload for r in found.results] == ["small", "large"]
    assert odd.status is Status.INCORRECT_NUMERICAL
    assert "[n=1]" in odd.log


def test_replays_count_calls_and_what_fails(judge: Evaluator) -> None:
    found = judge.replay(solution(GOOD), 40)
    assert (found.calls, found.failures, found.device) == (40, (), "cpu")
    assert 0 < found.start_bytes <= found.peak_bytes
    assert abs(found.final_bytes - found.start_bytes) < 64 << 20
    rare = "calls = 0\n" + kernel(
        "global calls\ncalls += 1\ntorch.mul(x, scale, out=y)\nif calls % 10 == 0: y[7] = 0"
    )
    found = judge.replay(solution(rare), 40, trusted=True)
    assert found.calls == 40
    assert 3 <= len(found.failures) <= 6
    assert "output 'y'" in found.failures[0]
    broken = judge.replay(solution("import nowhere\n" + GOOD), 5, trusted=True)
    assert broken.calls == 0
    assert "COMPILE_ERROR" in broken.failures[0]
