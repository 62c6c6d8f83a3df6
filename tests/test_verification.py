"""What `evolve verify` reads, compares, concludes and writes; tests/cli runs the steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evaluators import catalog
from evaluators.schema import Solution
from evolve.errors import UserError
from evolve.export import load_solution
from evolve.verification import page, regression, subject
from evolve.verification.record import NAMES, Outcome, Report, Step, Table
from evolve.verification.subject import Claim

DEFINITION = "matmul_bias_gelu_f32_k512_n512"


def row(label: str, latency_ms: float, speedup: float = 1.0, width: float = 0.01) -> dict[str, Any]:
    """A result of the report grid; `width` is the half width of its interval in the log."""
    return {
        "label": label,
        "workload": label,
        "latency_ms": latency_ms,
        "anchor_ms": latency_ms * speedup,
        "speedup": speedup,
        "speedup_low": speedup * math.exp(-width),
        "speedup_high": speedup * math.exp(width),
        "flops": 1.0,
        "bytes": 1.0,
        "axes": {},
    }


def entries(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "champion", "role": "champion", "status": "PASSED", "results": list(rows)}]


def claim(*rows: dict[str, Any], anchor: str = "") -> Claim:
    return Claim("the report before", "a cpu", {r["label"]: r for r in rows}, anchor)


# -- regression -----------------------------------------------------------------------------------


def test_equal_latencies_are_within_ten_percent() -> None:
    before = claim(row("a", 1.00), row("b", 2.0))
    step = regression.step(entries(row("a", 1.05), row("b", 1.9)), before, "x")
    assert step.outcome is Outcome.PASSED
    assert "all 2 latencies within 10%" in step.summary
    assert step.facts["within_10_percent"]


def test_a_slower_kernel_fails() -> None:
    before = claim(row("a", 1.0, speedup=2.0), row("b", 2.0, speedup=2.0), anchor="x")
    now = entries(row("a", 1.3, speedup=2 / 1.3), row("b", 2.6, speedup=2 / 1.3))
    step = regression.step(now, before, "x")
    assert step.outcome is Outcome.FAILED
    assert "+30.0%" in step.summary


def test_a_slower_machine_is_said_and_convicts_nobody() -> None:
    before = claim(row("a", 1.0, speedup=2.0), row("b", 2.0, speedup=2.0))
    step = regression.step(
        entries(row("a", 1.3, speedup=2.0), row("b", 2.6, speedup=2.0)), before, "x"
    )
    assert step.outcome is Outcome.PASSED
    assert "NOT within 10% on 2 of 2 shapes" in step.summary
    assert any("common clock" in note for note in step.notes)
    assert not step.facts["within_10_percent"]


def test_one_workload_outside_is_named_as_outside() -> None:
    before = claim(row("a", 1.0), row("b", 1.0), row("c", 1.0))
    step = regression.step(
        entries(row("a", 1.2, 1 / 1.2), row("b", 1.0), row("c", 1.0)), before, "x"
    )
    assert step.outcome is Outcome.PASSED
    assert "NOT within 10% on 1 of 3" in step.summary


def test_intervals_too_wide_are_said() -> None:
    before = claim(row("a", 1.0, width=0.3), row("b", 1.0))
    step = regression.step(entries(row("a", 1.0), row("b", 1.0)), before, "x")
    assert any("too wide" in note and "a" in note for note in step.notes)
    noisy = claim(row("a", 1.0, speedup=3.0, width=0.2))
    slower = regression.step(entries(row("a", 3.0, speedup=1.0)), noisy, "x")
    assert slower.outcome is Outcome.NOT_AVAILABLE
    assert "too wide to tell" in slower.summary
    assert not slower.facts["within_10_percent"]


def test_another_anchor_does_not_convict() -> None:
    before = claim(row("a", 1.0, speedup=2.0), anchor="x")
    step = regression.step(entries(row("a", 1.5, speedup=1.0)), before, "y")
    assert step.outcome is Outcome.PASSED
    assert any("anchor" in note for note in step.notes)


def test_nothing_to_compare_with_is_not_available() -> None:
    assert regression.step([], "nothing here", "x").outcome is Outcome.NOT_AVAILABLE
    other = regression.step(entries(row("a", 1.0)), claim(row("z", 1.0)), "x")
    assert other.outcome is Outcome.NOT_AVAILABLE


# -- what is given --------------------------------------------------------------------------------


@pytest.fixture
def solution() -> Solution:
    operator = catalog.load_operator("matmul_bias_gelu")
    return catalog.seeds(operator, operator.definitions[DEFINITION], "cpu")[0]


def foreign(solution: Solution) -> dict[str, Any]:
    """As FlashInfer-Bench writes and reads it: nulls, and fields that only it knows."""
    made = solution.model_dump(mode="json")
    made["spec"] |= {"dependencies": None, "build_commands": ["make"], "binding": "tvm-ffi"}
    made["sources"][0]["sha"] = "0"
    return {**made, "description": None, "hash": "abc"}


def test_a_flashinfer_bench_solution_is_read(tmp_path: Path, solution: Solution) -> None:
    file = tmp_path / "some_kernel.json"
    file.write_text(json.dumps(foreign(solution)))
    given = subject.read(file)
    assert given.solution.digest() == solution.digest()
    assert given.definition.name == DEFINITION
    assert given.folder == tmp_path / "verification" / "some_kernel"
    assert given.claim is None


def test_a_solution_without_what_it_needs_is_refused(tmp_path: Path, solution: Solution) -> None:
    made = foreign(solution)
    made["spec"]["entry_point"] = None
    (tmp_path / "solution.json").write_text(json.dumps(made))
    with pytest.raises(Exception, match="entry_point"):
        load_solution(tmp_path)


def test_an_exported_folder_brings_its_claim(tmp_path: Path, solution: Solution) -> None:
    champion = tmp_path / "champion"
    champion.mkdir()
    (champion / "solution.json").write_text(solution.model_dump_json())
    results = {"device": {"name": "a cpu"}, "entries": entries(row("a", 1.0))}
    (champion / "results.json").write_text(json.dumps(results))
    for path in (champion, champion / "solution.json", tmp_path):
        given = subject.read(path)
        assert given.folder == champion / "verification"
        assert given.claim is not None
        assert given.claim.device == "a cpu"
        assert set(given.claim.rows) == {"a"}


def test_a_definition_of_the_same_name_and_another_shape_is_refused(
    tmp_path: Path, solution: Solution
) -> None:
    record = catalog.load_operator("matmul_bias_gelu").definitions[DEFINITION]
    data = record.model_dump(mode="json")
    (tmp_path / "solution.json").write_text(solution.model_dump_json())
    (tmp_path / "definition.json").write_text(json.dumps({**data, "description": "other words"}))
    assert subject.read(tmp_path).definition == record
    data["inputs"]["x"]["dtype"] = "bfloat16"
    (tmp_path / "definition.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="not the one known here"):
        subject.read(tmp_path)


def test_an_unknown_definition_is_refused(tmp_path: Path, solution: Solution) -> None:
    other = solution.model_copy(update={"definition": "fft_4096"})
    (tmp_path / "solution.json").write_text(other.model_dump_json())
    with pytest.raises(UserError, match="fft_4096"):
        subject.read(tmp_path)


# -- the report -----------------------------------------------------------------------------------


def report(*found: Step, **changes: Any) -> Report:
    """A report whose other steps were not reached."""
    known = {step.name: step for step in found}
    steps = tuple(known.get(n) or Step(name=n, outcome=Outcome.NOT_REACHED) for n in NAMES)
    fields: dict[str, Any] = {
        "solution": "k", "digest": "d1", "definition": DEFINITION, "language": "cpp",
        "entry_point": "kernel.cpp::run", "device": "a cpu", "seed": 1, "started": 0.0,
    }  # fmt: skip
    return Report(**fields | {"steps": steps} | changes)


def done(name: str, outcome: Outcome = Outcome.PASSED, **more: Any) -> Step:
    return Step(name=name, outcome=outcome, **more)


def test_only_a_report_in_which_every_step_holds_passes() -> None:
    held = [done(name) for name in NAMES]
    assert report(*held).passed
    absent = [*held[:-1], done("regression", Outcome.NOT_AVAILABLE)]
    assert report(*absent).verdict == "PASSED"
    assert report(*held[:-1]).verdict == "UNDECIDED"
    failed = report(*held[:2], done("correctness", Outcome.FAILED, summary="3 of\n200 wrong"))
    assert failed.verdict == "FAILED"
    assert failed.reason == "correctness: 3 of 200 wrong"
    assert report(done("environment", Outcome.BROKEN, summary="no anchor")).verdict == "UNDECIDED"


def test_a_report_has_all_steps_in_order() -> None:
    with pytest.raises(ValidationError, match="has the steps"):
        report(steps=(done("build"),))


def test_the_page_shows_what_was_found_and_what_was_not_reached(tmp_path: Path) -> None:
    table = Table(title="Latency", rows=({"workload": "a|b", "latency_us": 12.3456},))
    found = report(
        done("environment"),
        done("build", notes=("slow",), facts={"shared_bytes": 4096}, tables=(table,)),
        done("correctness", Outcome.FAILED, summary="wrong", log="[a] output 'y' is off"),
    )
    page.write(found, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for part in (
        "# FAILED: k on a cpu", "correctness: wrong", "| benchmark | NOT REACHED |",
        "**Note:** slow", "| shared (bytes) | 4,096 |", "| workload | latency (µs) |",
        "| a\\|b | 12.35 |", "[a] output 'y' is off",
    ):  # fmt: skip
        assert part in text, part
    assert "## Benchmark" not in text
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["verdict"] == "FAILED"
    assert [step["name"] for step in document["steps"]] == list(NAMES)
    shown = page.text(found, tmp_path)
    assert shown.splitlines()[:2] == ["FAILED  k on a cpu", "correctness: wrong"]
    assert "note (build): slow" in shown


def test_a_page_of_a_battery_that_was_interrupted_says_so() -> None:
    text = page.markdown(report(done("environment")))
    assert text.startswith("# UNDECIDED")
    assert "ended before all steps were done" in text
    assert "Every step holds" not in text


def test_the_report_before_is_found_again_for_the_same_kernel(tmp_path: Path) -> None:
    held = [done(name) for name in NAMES]
    page.write(report(*held, entries=entries(row("a", 1.5)), anchor="x"), tmp_path)
    before = subject.earlier(tmp_path / "report.json", "d1")
    assert before is not None
    assert before.rows["a"]["latency_ms"] == 1.5
    assert (before.device, before.anchor) == ("a cpu", "x")
    assert subject.earlier(tmp_path / "report.json", "another") is None
    assert subject.earlier(tmp_path / "absent.json", "d1") is None
    (tmp_path / "report.json").write_text('{"digest": "d1", "device": 3}')
    assert subject.earlier(tmp_path / "report.json", "d1") is None


def test_folders_that_cannot_be_written_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        page.make(tmp_path / "file" / "report")
