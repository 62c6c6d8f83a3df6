"""New values for every call on CUDA: in place, through the ring, and what watches over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evaluators import freed
from evaluators.epoch import RING, Epoch
from evaluators.latency import ROUNDS, Series
from evaluators.pipeline import Evaluator
from evaluators.schema import Language, Solution, Status, Workload
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import DEFINITION, GOOD, TRITON, WORKLOADS, evaluator, solution
from tests.evaluators.test_draws import loaded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SETTINGS = EvaluatorSettings(slots=2, run_deadline_s=5, latency_s=0.1)
LONG = Workload(uuid="long", axes={"n": 3 << 28})
"""6.4 GB read and written: more than a millisecond. The judge's exact outputs of six draws take as
much each, and a comparison six times that for a while: about 110 GB of the device."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    made = evaluator(tmp_path_factory.mktemp("double"), SETTINGS, "cuda")
    yield made
    made.close()


def triton() -> Solution:
    return solution(TRITON % 1, Language.TRITON)


def kernel(body: str, before: str = "") -> Solution:
    """A torch kernel, right but for what `body` does after it."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"import torch\n{before}\ndef run(x, scale, y):\n    torch.mul(x, scale, out=y)\n"
    return solution(text + lines + "\n")


def unguarded(judge: Evaluator, candidate: Solution):
    judge.guarded = False
    try:
        return judge.evaluate(candidate)
    finally:
        judge.guarded = True


def passes(judge: Evaluator) -> None:
    found = judge.evaluate(triton())
    assert found.status is Status.PASSED, found.log


def test_short_calls_run_through_the_ring(
    judge: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Series] = []
    fewest = Series.fewest

    def noted(self: Series) -> None:
        taken.append(self)
        fewest(self)

    monkeypatch.setattr(Series, "fewest", noted)
    passes(judge)
    for series in taken:
        rounds, calls = series.paired().candidate.samples.shape
        assert rounds >= ROUNDS[0]
        assert calls == RING


def test_a_slot_travels_to_the_call_and_its_outputs_back(tmp_path: Path) -> None:
    """The candidate's side of the ring, on blocks of its own."""
    from evaluators.candidate import Slots

    epoch = Epoch(3, DEFINITION, loaded(tmp_path), list(WORKLOADS), "cuda", b"one")
    epoch.fill(None, 1)
    call = epoch.calls[1]
    ring = Slots(epoch.blocks.inputs.tensor, epoch.blocks.outputs[0].tensor, call)
    for slot in (1, 2, call.slots):
        epoch.draw(1, slot, slot)
        epoch.know(1, slot, slot)
    epoch.poison(1, 0)
    for slot in (1, 2, call.slots):
        ring.load(slot)
        assert epoch.follows(1, slot)
        (live,) = (e for e in call.live if e.shape is not None)
        x = epoch.blocks.inputs.tensor[live.offset :][: live.nbytes].view(torch.float32)
        (y,) = epoch.outputs(1, 0)
        assert torch.isnan(y).all()
        torch.mul(x, 2.0, out=y)
        ring.keep(slot)
    for slot in (1, 2, call.slots):
        assert epoch.right.compare(1, slot, epoch.outputs(1, 0, slot)).fault == ""
        assert epoch.trespass(1, 0, slot) == ""
    assert epoch.right.compare(1, 1, epoch.outputs(1, 0, 2)).fault


def test_long_calls_are_timed_in_place(judge: Evaluator) -> None:
    judge.open_epoch(20, [LONG], triton())
    found = judge.evaluate(triton())
    wrong = judge.evaluate(kernel("y[-1].zero_()"))
    judge.open_epoch(21, WORKLOADS, solution(GOOD))
    assert found.status is Status.PASSED, found.log
    assert found.results[0].latency_ms > 1
    assert 0.9 < found.score < 1.1
    assert wrong.status is Status.INCORRECT_NUMERICAL


def test_a_cache_by_shape_is_wrong(judge: Evaluator) -> None:
    before = "kept = {}"
    body = "if len(x) not in kept: kept[len(x)] = y.clone()\ny.copy_(kept[len(x)])"
    found = judge.evaluate(kernel(body, before), trusted=True)
    assert found.status is Status.INCORRECT_NUMERICAL
    passes(judge)


def test_a_kernel_that_stops_working_in_timed_calls_is_wrong(judge: Evaluator) -> None:
    body = (
        "if torch.cuda.is_current_stream_capturing(): raise ValueError('no graph')\n"
        "global calls\ncalls += 1\nif calls > 40: y.zero_()"
    )
    found = judge.evaluate(kernel(body, "calls = 0"), trusted=True)
    assert found.status is Status.INCORRECT_NUMERICAL
    assert "in a timed call" in found.log
    passes(judge)


def test_a_graph_that_replays_old_inputs_is_wrong(judge: Evaluator) -> None:
    """Captured on a copy of the values that were there at capture."""
    before = "kept = {}"
    body = (
        "if torch.cuda.is_current_stream_capturing():\n"
        "    y.copy_(kept[len(x)])\nelse:\n    kept[len(x)] = y.clone()\n"
        "    torch.cuda._sleep(200_000)"  # so that the graph is what is timed
    )
    found = judge.evaluate(kernel(body, before), trusted=True)
    assert found.status is Status.INCORRECT_NUMERICAL
    passes(judge)


@pytest.mark.parametrize(("place", "where"), [("-1", "before"), ("n", "behind")])
def test_writing_just_outside_the_outputs_is_a_runtime_error(
    judge: Evaluator, place: str, where: str
) -> None:
    text = TRITON.replace(
        "    tl.store(y + place, value",
        f"    tl.store(y + {place} + tl.arange(0, 1), tl.full((1,), 1.0, tl.float32))\n"
        "    tl.store(y + place, value",
    )
    found = judge.evaluate(solution(text % 1, Language.TRITON))
    assert found.status is Status.RUNTIME_ERROR, found.log
    assert f"{where} output 'y'" in found.log
    passes(judge)


def test_modified_base_inputs_are_repaired(judge: Evaluator) -> None:
    """A candidate that spoils them while it builds harms nobody after it."""
    text = "import torch\ndef run(x, scale, y):\n    x.zero_()\n    torch.mul(x, scale, out=y)\n"
    assert judge.evaluate(solution(text), trusted=True).status is not Status.PASSED
    passes(judge)


def test_work_on_a_side_stream_is_not_there_in_time(judge: Evaluator) -> None:
    text = (
        "import torch\nside = torch.cuda.Stream()\n"
        "def run(x, scale, y):\n"
        "    if torch.cuda.is_current_stream_capturing(): raise ValueError('no graph')\n"
        "    with torch.cuda.stream(side):\n"
        "        torch.cuda._sleep(1_000_000)\n"
        "        torch.mul(x, scale, out=y)\n"
    )
    found = unguarded(judge, solution(text))
    assert found.status in {Status.INCORRECT_NUMERICAL, Status.IMPLAUSIBLE}, found.log
    passes(judge)


def test_waiting_after_the_last_event_is_implausible(judge: Evaluator) -> None:
    """The outputs are there, but a stream of the candidate's own keeps the device busy."""
    text = (
        "import torch\nside = torch.cuda.Stream()\n"
        "def run(x, scale, y):\n"
        "    torch.mul(x, scale, out=y)\n"
        "    if torch.cuda.is_current_stream_capturing(): raise ValueError('no graph')\n"
        "    with torch.cuda.stream(side): torch.cuda._sleep(4_000_000)\n"
    )
    found = unguarded(judge, solution(text))
    assert found.status is Status.IMPLAUSIBLE, found.log
    passes(judge)


def test_freed_device_memory_is_filled_with_nan() -> None:
    blocks = [torch.zeros(size, device="cuda") for size in (100, 5000, 3 << 20, 40 << 20)]
    torch.cuda.synchronize()
    sizes = [b.numel() for b in blocks]
    del blocks
    with freed.poisoned("cuda"):
        again = [torch.empty(size, device="cuda") for size in sizes]
        assert all(bool(torch.isnan(b).all()) for b in again)


def test_a_workspace_that_nobody_zeroes_is_wrong(judge: Evaluator) -> None:
    body = "sums = torch.empty_like(x)\nsums.add_(y)\ny.copy_(sums)"
    found = judge.evaluate(kernel(body), trusted=True)
    assert found.status in {Status.INCORRECT_NUMERICAL, Status.NONDETERMINISTIC}
    passes(judge)


def test_faster_than_memory_is_implausible(judge: Evaluator) -> None:
    """A stopwatch that claims a tenth of a long copy."""
    text = (
        "import torch\nfrom evaluators import stopwatch\n"
        "class Quick(stopwatch.CudaStopwatch):\n"
        "    def time(self, mode, samples):\n"
        "        return [t / 10 for t in super().time(mode, samples)]\n"
    )
    patch = "import sys\nsys.modules['evaluators.candidate'].CudaStopwatch = Quick\n"
    judge.open_epoch(22, [LONG], triton())
    found = unguarded(judge, solution(text + patch + GOOD))
    judge.open_epoch(23, WORKLOADS, solution(GOOD))
    assert found.status is Status.IMPLAUSIBLE, found.log
    assert "less than this device can take" in found.log


def test_replays_on_the_device(judge: Evaluator) -> None:
    found = judge.replay(triton(), 30)
    assert (found.calls, found.failures, found.device) == (30, (), "cuda")
    assert found.final_bytes <= found.start_bytes + (1 << 20)
