"""On CUDA: whose kernels did the work, and what compute-sanitizer says of a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evaluators import catalog, sanitizer
from evaluators.catalog import Operator
from evaluators.pipeline import Evaluator
from evaluators.sanitizer import Sanitized
from evaluators.schema import Language, Solution
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import (
    DEFINITION,
    GOOD,
    TRITON,
    WORKLOADS,
    evaluator,
    operator_folder,
    solution,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SETTINGS = EvaluatorSettings(slots=2, run_deadline_s=10, latency_s=0.1)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    made = evaluator(tmp_path_factory.mktemp("double"), SETTINGS, "cuda")
    yield made
    made.close()


def triton(text: str = TRITON % 1) -> Solution:
    return solution(text, Language.TRITON)


def test_a_kernel_that_does_the_work_is_confirmed(judge: Evaluator) -> None:
    found = judge.replay(triton(), 8)
    assert found.failures == ()
    assert found.launches == ""
    assert found.calls == 8


def test_a_library_that_does_the_work_is_named(judge: Evaluator) -> None:
    found = judge.replay(solution(GOOD), 4)
    assert found.failures == ()
    assert "none of its own kernels ran" in found.launches
    assert "elementwise" in found.launches


def test_replays_hold_no_device_memory(judge: Evaluator) -> None:
    found = judge.replay(triton(), 40)
    assert found.device == "cuda"
    assert found.final_bytes <= found.start_bytes + (1 << 20)


def checked(tmp_path: Path, text: str) -> dict[str, Sanitized]:
    folder = operator_folder(tmp_path)
    module = catalog.load_module(Operator("double", folder, {DEFINITION.name: DEFINITION}))
    found = sanitizer.check(triton(text), DEFINITION, module, "cuda", WORKLOADS[:1])
    if any(record.outcome == "not available" for record in found):
        pytest.skip(found[0].text)
    return {record.tool: record for record in found}


def test_memcheck_and_racecheck_let_a_good_kernel_pass(tmp_path: Path) -> None:
    found = checked(tmp_path, TRITON % 1)
    assert {record.outcome for record in found.values()} == {"clean"}, found
    assert all(record.calls for record in found.values())


def test_memcheck_finds_a_store_past_the_end(tmp_path: Path) -> None:
    text = (TRITON % 1).replace("value * scale, mask=place < n)", "value * scale)")
    found = checked(tmp_path, text)
    assert found["memcheck"].outcome == "errors", found
    assert "Invalid" in found["memcheck"].text
