"""`evolve verify` on real kernels: the battery, its report, its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators import catalog
from evaluators.schema import Solution
from evolve import closing
from evolve.store import Store
from evolve.verification import page, steps
from evolve.verification.record import NAMES, Outcome, Report, Step
from tests.cli.conftest import Called, Evolve, Finished

STEPS = ["environment", "build", "correctness", "benchmark", "stability", "regression"]
SMALL = "matmul_bias_gelu_f32_k512_n512"


@pytest.fixture(autouse=True)
def short_of_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a person wants: these tests look at verdicts, not at numbers."""
    monkeypatch.setattr(closing, "FINAL_SAMPLES", 0.1)
    monkeypatch.setattr(steps, "CHECKS", 12)
    monkeypatch.setattr(closing, "REPLAYS", 20)


def outcomes(called: Called) -> dict[str, str]:
    return {step["name"]: step["outcome"] for step in called.document["steps"]}


def seed() -> Solution:
    operator = catalog.load_operator("matmul_bias_gelu")
    return catalog.seeds(operator, operator.definitions[SMALL], "cpu")[0]


def written(folder: Path, solution: Solution) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "solution.json").write_text(solution.model_dump_json())
    return folder


def changed(solution: Solution, old: str, new: str) -> Solution:
    assert old in solution.entry_source
    return solution.with_entry_source(solution.entry_source.replace(old, new))


def planted(finished: Finished, folder: Path) -> None:
    """A report of an earlier verification of the run's champion, with the latencies of the run."""
    store = Store.open(finished.run_dir, readonly=True)
    closed, device = store.report(), str(store.meta["device"]["name"])
    store.close()
    assert closed is not None
    solution = Solution.model_validate(closed["champion"]["solution"])
    anchor = seed()
    report = Report(
        solution=solution.name, digest=solution.digest(), definition=solution.definition,
        language="cpp", entry_point=solution.spec.entry_point, device=device, seed=0, started=0.0,
        steps=tuple(Step(name=name, outcome=Outcome.PASSED) for name in NAMES),
        entries=tuple(closed["entries"]), anchor=anchor.digest(),
    )  # fmt: skip
    page.make(folder)
    page.write(report, folder)


def test_a_run_whose_kernel_holds(evolve: Evolve, finished: Finished, tmp_path: Path) -> None:
    planted(finished, tmp_path)
    arguments = ("--device", "cpu", "--no-peers", "--seed", 7, "--quiet", "--out", tmp_path)
    called = evolve("verify", finished.run_dir, *arguments)
    found = json.loads((tmp_path / "report.json").read_text())
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == STEPS
    # a busy machine may be slower than it was; nothing else may be found
    assert {s["outcome"] for s in found["steps"][:-1]} == {"PASSED"}, found["reason"]
    assert called.code == (0 if found["passed"] else 1)
    assert called.out.startswith(found["verdict"])
    assert "tokens=512" in called.out
    assert str(tmp_path / "report.md") in called.out
    assert not called.err
    assert f"# {found['verdict']}" in (tmp_path / "report.md").read_text()
    assert found["entries"][0]["role"] == "champion"
    # cases and workloads, each with the part of its error budget
    judged = steps["correctness"]["tables"][0]["rows"]
    assert {row["kind"] for row in judged} == {"case", "workload"}
    assert sum(row["calls"] for row in judged) == 12
    assert all(0 < row["error_percent_of_allowed"] < 100 for row in judged)
    latency = steps["benchmark"]["tables"][0]["rows"]
    assert len(latency) == 5
    assert all(row["latency_us"] > 0 and row["percent_of_roof"] > 0 for row in latency)
    assert steps["stability"]["facts"]["calls"] == 20
    assert steps["stability"]["facts"]["peak_bytes"] > 0
    (checker,) = steps["stability"]["tables"][-1]["rows"]
    assert checker["outcome"] in ("clean", "not available")
    assert steps["regression"]["facts"]["before"] == "the report before"
    assert len(steps["regression"]["tables"][0]["rows"]) == 5


def test_a_wrong_kernel_fails_at_correctness(evolve: Evolve, tmp_path: Path) -> None:
    wrong = changed(seed(), "0.044715f", "0.5f")
    called = evolve("verify", written(tmp_path, wrong), "--device", "cpu", "--json")
    assert called.code == 1
    assert called.document["verdict"] == "FAILED"
    assert called.document["reason"].startswith("correctness: INCORRECT_NUMERICAL")
    assert list(outcomes(called).values()) == [
        "PASSED", "PASSED", "FAILED", "NOT REACHED", "NOT REACHED", "NOT REACHED",
    ]  # fmt: skip
    (report,) = tmp_path.glob("verification/*/report.md")
    assert "| benchmark | NOT REACHED |" in report.read_text()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("#include <cmath>", "#include <cmath>\n#include <thread>", "build: INVALID_SOURCE"),
        ("0.044715f", "0.044715f_", "build: COMPILE_ERROR"),
    ],
)
def test_a_kernel_that_is_refused_or_not_built_fails_at_build(
    evolve: Evolve, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    given = written(tmp_path, changed(seed(), old, new))
    called = evolve("verify", given, "--device", "cpu", "--quiet")
    assert called.code == 1
    assert called.out.splitlines()[0].startswith("FAILED")
    assert called.out.splitlines()[1].startswith(reason)


def test_a_report_that_cannot_be_written_is_bad_input(evolve: Evolve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("--device", "cpu", "--out", tmp_path / "file" / "out", "--quiet")
    called = evolve("verify", written(tmp_path / "k", seed()), *arguments)
    assert called.code == 2
    assert "cannot write the report" in called.err
