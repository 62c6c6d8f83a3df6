"""Checkpoints that OpenEvolve's own database wrote, read and queued in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openevolve.config import DatabaseConfig
from openevolve.database import Program as TheirProgram
from openevolve.database import ProgramDatabase
from openevolve.utils.metrics_utils import get_fitness_score

from evaluators import tunables
from evaluators.schema import Definition, Language, Solution
from evolve.errors import UserError
from evolve.lock import sole_writer
from evolve.openevolve.checkpoint import Foreign, fitness, read
from evolve.openevolve.importing import How, import_checkpoint, report_lines, solution_of
from evolve.store import Store
from islands.program import program_id

TRITON = """\
import triton
import triton.language as tl


@triton.jit
def kernel(x, y):
    tl.store(y, tl.load(x))


def fused(x, weight, bias):
    kernel[(1,)](x, bias)
    return bias
"""


def tuned(seed: Solution, value: int) -> str:
    return tunables.assign(seed.entry_source, {"TILE_K": str(value)})


def saved(folder: Path, programs: list[dict[str, Any]]) -> Path:
    """A checkpoint with these programs, each on an island of OpenEvolve's."""
    database = ProgramDatabase(DatabaseConfig(num_islands=len(programs)))
    for number, facts in enumerate(programs):
        metrics = {"combined_score": float(facts.pop("score")), "complexity": 100.0}
        made = TheirProgram(id=f"{number:08x}-1", metrics=metrics, iteration_found=number, **facts)
        database.add(made, iteration=number, target_island=number)
    database.save(str(folder), iteration=len(programs))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, seed: Solution) -> Path:
    commented = tuned(seed, 128).replace("namespace {", "namespace {  // EVOLVE-BLOCK-START", 1)
    return saved(
        tmp_path / "out" / "checkpoints" / "checkpoint_10",
        [
            {"code": tuned(seed, 128), "score": 1.1, "language": "cpp"},
            {"code": tuned(seed, 256), "score": 1.7, "language": "cpp",
             "changes_description": "wider slices of K"},
            {"code": commented, "score": 1.6, "language": "cpp"},
            {"code": seed.entry_source, "score": 1.0, "language": "cpp"},
            {"code": "#include <fstream>\n" + seed.entry_source, "score": 9.0, "language": "cpp"},
            {"code": "print('hello')\n", "score": 0.5, "language": "python"},
        ],
    )  # fmt: skip


def test_the_best_programs_are_queued_with_their_provenance(
    run_dir: Path, checkpoint: Path, seed: Solution
) -> None:
    report = import_checkpoint(run_dir, checkpoint, How())
    store = Store.open(run_dir, readonly=True)
    queued = [p for p in store.pending() if p.emitter == "openevolve"]
    assert queued[0].solution.entry_source == tuned(seed, 256), "the best first"
    assert len(queued) == report["queued"] == 2
    assert [p.island for p in queued] == [0, 1]
    first = queued[0]
    assert "iteration 1" in first.note
    assert "fitness 1.7" in first.note
    assert "wider slices of K" in first.note
    assert first.id == program_id(seed.with_entry_source(tuned(seed, 256)))
    assert first.solution.spec.language is Language.CPP


def test_every_program_is_accounted_for(run_dir: Path, checkpoint: Path) -> None:
    report = import_checkpoint(run_dir, checkpoint, How())
    found = {facts["id"]: facts for facts in report["programs"]}
    assert [facts["fitness"] for facts in report["programs"]] == [9.0, 1.7, 1.6, 1.1, 1.0, 0.5]
    states = {key[7]: facts["state"] for key, facts in found.items()}
    # Number 2 ranks before number 0, which differs from it in a comment alone; 3 is the run's seed.
    assert states == {
        "0": "DUPLICATE", "1": "QUEUED", "2": "QUEUED", "3": "DUPLICATE", "4": "REFUSED",
        "5": "REFUSED",
    }  # fmt: skip
    reasons = {key[7]: facts["reason"] for key, facts in found.items()}
    assert "fstream" in reasons["4"]
    assert "--language" in reasons["5"]
    lines = report_lines(report, run_dir)
    assert any("REFUSED" in line and "fstream" in line for line in lines)
    assert lines[-1].startswith("2 pending; evaluate with: evolve resume")


def test_importing_again_queues_nothing(run_dir: Path, checkpoint: Path) -> None:
    import_checkpoint(run_dir, checkpoint, How())
    again = import_checkpoint(run_dir, checkpoint, How())
    assert (again["queued"], again["pending"]) == (0, 2)
    assert {f["state"] for f in again["programs"]} == {"DUPLICATE", "REFUSED"}


def test_a_count_takes_the_best_new_ones(run_dir: Path, checkpoint: Path) -> None:
    report = import_checkpoint(run_dir, checkpoint, How(), count=1)
    assert [f["state"] for f in report["programs"]] == ["REFUSED", "QUEUED"]
    more = import_checkpoint(run_dir, checkpoint, How(), count=1)
    assert [f["state"] for f in more["programs"]] == ["REFUSED", "DUPLICATE", "QUEUED"]


def test_a_dry_run_keeps_nothing(run_dir: Path, checkpoint: Path) -> None:
    report = import_checkpoint(run_dir, checkpoint, How(), dry=True)
    assert report["queued"] == 2
    assert report_lines(report, run_dir)[-1] == "dry run: nothing was kept"
    assert import_checkpoint(run_dir, checkpoint, How())["queued"] == 2


def test_a_busy_run_is_refused(run_dir: Path, checkpoint: Path) -> None:
    with sole_writer(run_dir), pytest.raises(UserError, match="another process"):
        import_checkpoint(run_dir, checkpoint, How())


def test_an_output_folder_stands_for_its_latest_checkpoint(
    run_dir: Path, checkpoint: Path, tmp_path: Path, seed: Solution
) -> None:
    newest = saved(
        tmp_path / "out" / "checkpoints" / "checkpoint_100",
        [{"code": tuned(seed, 512), "score": 1.0, "language": "cpp"}],
    )
    report = import_checkpoint(run_dir, tmp_path / "out", How())
    assert report["checkpoint"] == str(newest)
    assert len(report["programs"]) == 1


def test_damaged_files_are_named_and_the_rest_is_read(run_dir: Path, checkpoint: Path) -> None:
    (checkpoint / "programs" / "cut.json").write_text('{"id": "x", "code": "in')
    (checkpoint / "programs" / "empty.json").write_text('{"id": "x", "code": " "}')
    (checkpoint / "programs" / "list.json").write_text("[1]")
    (checkpoint / "metadata.json").write_text("{")
    report = import_checkpoint(run_dir, checkpoint, How())
    assert report["damaged"] == ["cut.json", "empty.json", "list.json"]
    assert report["queued"] == 2


def test_no_checkpoint_is_one_line(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no OpenEvolve checkpoint") as told:
        import_checkpoint(run_dir, tmp_path, How())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("code", "said", "language"),
    [
        ("import tilelang\nimport triton\n", "python", Language.TILELANG),
        ("from triton import language as tl\n", "python", Language.TRITON),
        ("__global__ void k() {}\n", "cpp", Language.CUDA),
        ("#include <cmath>\n", "cpp", Language.CPP),
        ("#include <cmath>\n", "C++", Language.CPP),
        ("import torch\n", "python", None),
        ("fn main() {}\n", "rust", None),
    ],
)
def test_the_language_is_read_from_the_source(
    code: str, said: str, language: Language | None
) -> None:
    assert Foreign("x", code, said, 1.0, 0, "").language_here() is language


def test_entry_point_and_returned_outputs_can_be_told(definition: Definition) -> None:
    foreign = Foreign("x", TRITON, "python", 1.0, 0, "")
    solution = solution_of(foreign, definition, "cpu", How(entry="fused", returns=True))
    assert isinstance(solution, Solution)
    assert solution.spec.entry_point == "kernel.py::fused"
    assert not solution.spec.destination_passing_style
    refused = solution_of(foreign, definition, "cpu", How(Language.CPP, returns=True))
    assert isinstance(refused, str)
    assert "cannot return" in refused


@pytest.mark.parametrize(
    "metrics",
    [
        {"combined_score": 1.5, "speed": 9.0},
        {"speed": 2.0, "accuracy": 1.0, "complexity": 500.0},
        {"error": 0.0, "timeout": True},
        {"speed": float("nan"), "accuracy": 0.5},
        {"complexity": 3.0},
        {"combined_score": "high", "speed": 2.0},
        {},
    ],
)
def test_programs_are_ranked_as_openevolve_does(metrics: dict[str, Any]) -> None:
    features = ["complexity", "diversity"]
    assert fitness(metrics, tuple(features)) == pytest.approx(get_fitness_score(metrics, features))


def test_the_map_s_dimensions_are_no_score(tmp_path: Path) -> None:
    """Without a combined_score a program must not rank by its length."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, metrics in (("a", {"speed": 1.0, "length": 900}), ("b", {"speed": 2.0, "length": 1})):
        program = {"id": name, "code": "x = 1\n", "metrics": metrics}
        (folder / f"{name}.json").write_text(json.dumps(program))
    (tmp_path / "metadata.json").write_text(json.dumps({"feature_stats": {"length": {}}}))
    assert [p.id for p in read(tmp_path).programs] == ["b", "a"]
