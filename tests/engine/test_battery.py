"""The battery over a deterministic evaluator: its order, its end, and that there is a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators import catalog
from evolve import cluster
from evolve.config import parse
from evolve.plan import Plan
from evolve.pool import EvaluatorPool
from evolve.verification.battery import Battery
from evolve.verification.progress import Watch
from evolve.verification.record import NAMES, Report
from evolve.verification.steps import Bench
from evolve.verification.subject import Claim, Subject
from tests.engine.odd_evaluators import (
    FailsAnchor,
    FailsVerification,
    Reliable,
    Unstable,
    spawn,
)

OPERATOR, DEFINITION = "matmul_bias_gelu", "matmul_bias_gelu_f32_k512_n512"


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    ray.shutdown()


def battery(kind: type[Reliable], before: Claim | str = "nothing here") -> Report:
    operator = catalog.load_operator(OPERATOR)
    definition = operator.definitions[DEFINITION]
    seeds = catalog.seeds(operator, definition, "cpu")
    config = parse({"operator": OPERATOR, "definition": DEFINITION, "device": "cpu"})
    found = Plan(config, operator, definition, "cpu", 1, seeds)
    pool = EvaluatorPool([lambda: spawn(kind)])
    given = Subject(seeds[0], operator, definition, Path("unused"))
    try:
        with Watch(quiet=True) as watch:
            made = Battery(given, Bench(seeds[0], found, pool, 1, watch), [], before)
            made.run()
            return made.report("a cpu")
    finally:
        pool.close()


def outcomes(report: Report) -> list[str]:
    return [step.outcome.value for step in report.steps]


def test_every_step_is_done_in_order() -> None:
    report = battery(Reliable)
    assert [step.name for step in report.steps] == list(NAMES)
    assert outcomes(report) == [*["PASSED"] * 5, "NOT AVAILABLE"]
    assert report.verdict == "PASSED"
    assert report.entries[0]["results"]


def test_a_kernel_that_fails_now_and_then_fails_at_correctness() -> None:
    report = battery(Unstable)
    assert outcomes(report)[:4] == ["PASSED", "PASSED", "FAILED", "NOT REACHED"]
    assert "3 of 64 calls failed" in report.reason
    assert report.verdict == "FAILED"


def test_a_kernel_that_fails_on_unseen_workloads_fails() -> None:
    report = battery(FailsVerification)
    assert report.verdict == "FAILED"
    assert "wrong beyond 64 tokens" in report.reason
    assert "NOT REACHED" in outcomes(report)


def test_what_cannot_be_carried_out_decides_nothing() -> None:
    report = battery(FailsAnchor)
    assert outcomes(report) == ["BROKEN", *["NOT REACHED"] * 5]
    assert report.verdict == "UNDECIDED"
    assert "COMPILE_ERROR: no | such | header" in report.reason
