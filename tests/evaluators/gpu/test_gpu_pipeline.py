"""The evaluator on CUDA: shared device memory, hostile kernels, graphs, several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from evaluators.pipeline import Evaluator
from evaluators.schema import Evaluation, Language, Status
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import GOOD, TRITON, WORKLOADS, evaluator, solution

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SETTINGS = EvaluatorSettings(slots=4, run_deadline_s=5, latency_s=0.1)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    made = evaluator(tmp_path_factory.mktemp("double"), SETTINGS, "cuda")
    yield made
    made.close()


def triton(times: int = 1):
    return solution(TRITON % times, Language.TRITON)


def kernel(body: str, later: bool = False):
    """A torch kernel; with `later` the body runs only in calls after the build's two."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = "import torch\ncalls = 0\ndef run(x, scale, y):\n    global calls\n    calls += 1\n"
    text += "    torch.mul(x, scale, out=y)\n"
    return solution(text + f"    if calls <= {2 if later else 0}: return\n{lines}\n")


def passes(judge: Evaluator) -> Evaluation:
    found = judge.evaluate(triton())
    assert found.status is Status.PASSED, found.log
    return found


def test_a_triton_kernel_passes_with_graph_and_facts(judge: Evaluator) -> None:
    found = passes(judge)
    assert found.build is not None
    assert found.build.kernels == ("double",)
    assert found.build.registers > 0
    for result in found.results:
        assert result.graph_ms is not None
        assert 0.0005 < result.latency_ms < 1


def test_a_call_that_waits_for_the_device_has_no_graph(judge: Evaluator) -> None:
    found = judge.evaluate(kernel("torch.cuda.synchronize()"))
    assert found.status is Status.PASSED, found.log
    assert all(r.graph_ms is None for r in found.results)
    passes(judge)


def test_a_side_stream_is_refused(judge: Evaluator) -> None:
    text = (
        "import torch\nside = torch.cuda.Stream()\n"
        "def run(x, scale, y):\n"
        "    with torch.cuda.stream(side):\n        torch.mul(x, scale, out=y)\n"
        "    if not torch.cuda.is_current_stream_capturing(): side.synchronize()\n"
    )
    found = judge.evaluate(solution(text).model_copy(update={"spec": triton().spec}))
    assert found.status is Status.INVALID_SOURCE, found.log
    assert "torch.cuda.stream" in found.log
    passes(judge)


@pytest.mark.parametrize("body", ["y.zero_()", "y.fill_(float('nan'))", "y.copy_(3 * x)"])
def test_wrong_numbers_are_incorrect(judge: Evaluator, body: str) -> None:
    assert judge.evaluate(kernel(body)).status is Status.INCORRECT_NUMERICAL


def test_modified_inputs_are_an_error_and_are_restored(judge: Evaluator) -> None:
    found = judge.evaluate(kernel("x.add_(1)", later=True))
    assert found.status is Status.RUNTIME_ERROR
    assert "modified" in found.log
    passes(judge)


def test_a_hanging_kernel_is_a_timeout(judge: Evaluator) -> None:
    found = judge.evaluate(kernel("torch.cuda._sleep(1 << 42)", later=True), trusted=True)
    assert found.status is Status.TIMEOUT
    passes(judge)


def test_an_illegal_access_is_a_runtime_error(judge: Evaluator) -> None:
    text = TRITON.replace("tl.store(y + place", "tl.store(y + place + (1 << 40)") % 1
    found = judge.evaluate(solution(text, Language.TRITON))
    assert found.status is Status.RUNTIME_ERROR
    passes(judge)


def test_too_much_device_memory_is_out_of_memory(judge: Evaluator) -> None:
    found = judge.evaluate(kernel("torch.empty(1 << 44, device='cuda')"))
    assert found.status is Status.OUT_OF_MEMORY
    passes(judge)


def test_more_work_takes_longer(judge: Evaluator) -> None:
    judge.open_epoch(7, [WORKLOADS[1].model_copy(update={"axes": {"n": 1 << 26}})], triton())
    found = judge.evaluate(triton(3))
    judge.open_epoch(8, WORKLOADS, solution(GOOD))
    assert found.status is Status.PASSED, found.log
    assert found.results[0].speedup_high < 0.95


def test_the_anchor_against_itself_is_even(judge: Evaluator) -> None:
    judge.open_epoch(9, WORKLOADS, triton())
    found = judge.evaluate(triton(), samples_factor=2.0)
    judge.open_epoch(10, WORKLOADS, solution(GOOD))
    assert 0.9 < found.score < 1.1


def test_several_at_once(judge: Evaluator) -> None:
    found: dict[int, Evaluation] = {}

    def work(number: int) -> None:
        found[number] = judge.evaluate(kernel("y.zero_()") if number % 2 else triton())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [found[n].status for n in range(8)]
    assert statuses == [Status.PASSED, Status.INCORRECT_NUMERICAL] * 4


def test_many_candidates_leave_no_device_memory(judge: Evaluator) -> None:
    passes(judge)
    before = torch.cuda.mem_get_info()[0]
    for _ in range(6):
        passes(judge)
    assert torch.cuda.mem_get_info()[0] > before - (256 << 20)


def test_facts(judge: Evaluator) -> None:
    facts = judge.facts()
    assert facts["kind"] == "cuda"
    assert facts["ceilings"]["copy_gbps"] > 50
