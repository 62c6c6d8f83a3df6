"""Every command over one finished run, as a person and as a program use it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from evolve.store import FILE, Store
from tests.cli.conftest import BUDGET, Evolve, Finished, Stopped

COMMANDS = ("run", "resume", "status", "list", "export", "verify", "plot")
PNG = b"\x89PNG\r\n\x1a\n"


def test_help_lists_the_commands(evolve: Evolve) -> None:
    called = evolve("--help")
    assert called.code == 0
    assert all(re.search(rf"^ *{command} ", called.out, re.M) for command in COMMANDS)
    assert evolve().out == called.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(evolve: Evolve, command: str) -> None:
    called = evolve(command, "--help")
    assert called.code == 0
    assert f"Example: evolve {command}" in called.out
    assert "--json" in called.out


def test_list(evolve: Evolve) -> None:
    called = evolve("list", "--json")
    found = {(row["operator"], row["device"]): row for row in called.document if row["default"]}
    assert set(found) == {
        (operator, device)
        for operator in ("matmul_bias_gelu", "gqa_paged_decode")
        for device in ("cuda", "cpu")
    }
    assert all(row["seeds"] for row in called.document)
    text = evolve("list").out
    assert all(row["definition"] in text for row in called.document)


# -- a run ----------------------------------------------------------------------------------------


def test_status_while_it_runs(stopped: Stopped) -> None:
    assert stopped.status.code == 0, stopped.status.err
    facts = stopped.status.document
    assert 1 <= facts["evaluations"] < BUDGET == facts["budget"]
    assert facts["champion"] is None
    assert facts["best"] > 0


def test_status_after(evolve: Evolve, finished: Finished) -> None:
    facts = evolve("status", finished.run_dir, "--json").document
    assert facts["evaluations"] == facts["budget"] == BUDGET
    assert facts["pending"] == 0
    assert sum(facts["by_status"].values()) == sum(facts["by_emitter"].values()) == BUDGET + 1
    assert facts["champion"] == finished.called.document["report"]["champion"]["program_id"]
    lines = evolve("status", finished.run_dir).out
    assert f"{BUDGET}/{BUDGET}" in lines
    assert facts["champion"] in lines


def test_status_finds_a_run_by_name_under_results(
    evolve: Evolve, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.run_dir, tmp_path / "results" / "mine")
    monkeypatch.chdir(tmp_path)
    assert evolve("status", "mine", "--json").document["evaluations"] == BUDGET


def test_report_of_a_run_as_json(finished: Finished) -> None:
    report = finished.called.document["report"]
    by_role = {entry["role"]: entry for entry in report["entries"]}
    assert set(by_role) == {"champion", "seed"}
    labels = [row["label"] for row in by_role["champion"]["results"]]
    assert labels == [row["label"] for row in by_role["seed"]["results"]]
    assert len(labels) == len(report["workloads"]) > 1
    assert all(row["latency_ms"] > 0 for row in by_role["champion"]["results"])


def test_run_leaves_champion_tables_and_plots(finished: Finished, tmp_path: Path) -> None:
    files = {p.name for p in finished.run_dir.rglob("*") if p.is_file()}
    expected = {"solution.json", "definition.json", "README.md", "check.py", "kernel.cpp"}
    assert expected | {"report.md", "evaluations.csv", "comparison.csv"} <= files
    # All of the run is in its one file: a copy without SQLite's log has it.
    shutil.copy(finished.run_dir / FILE, tmp_path / FILE)
    assert Store.open(tmp_path, readonly=True).counts()["search"] == BUDGET
    for name in ("trajectory.png", "archive.png", "latency.png"):
        assert (finished.run_dir / name).read_bytes().startswith(PNG)


def test_export_writes_a_folder_of_its_own(
    evolve: Evolve, finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "published" / "here"
    called = evolve("export", finished.run_dir, "--out", out, "--json")
    assert called.code == 0
    written = [Path(p) for p in called.document["written"]]
    assert {p.relative_to(out).as_posix() for p in written} >= {
        "champion/solution.json",
        "report.md",
        "trajectory.png",
    }
    assert all(p.stat().st_size for p in written)
    solution = json.loads((out / "champion" / "solution.json").read_text())
    assert solution["sources"][0]["content"] == (out / "champion" / "kernel.cpp").read_text()


def test_plot_draws_where_it_is_told(evolve: Evolve, finished: Finished, tmp_path: Path) -> None:
    called = evolve("plot", finished.run_dir, "--out", tmp_path / "drawn", "--json")
    drawn = {Path(p) for p in called.document["drawn"]}
    assert drawn == set((tmp_path / "drawn").iterdir())
    assert {p.name for p in drawn} == {"trajectory.png", "archive.png", "latency.png"}
    again = evolve("plot", finished.run_dir)
    assert str(finished.run_dir / "trajectory.png") in again.out


def test_a_moved_run_is_read_where_it_is(
    evolve: Evolve, finished: Finished, tmp_path: Path
) -> None:
    moved = shutil.copytree(finished.run_dir, tmp_path / "moved")
    assert evolve("status", moved, "--json").document["run"] == str(moved)


# -- without a GPU --------------------------------------------------------------------------------


def test_compile_only_tells_facts_of_cuda_kernels(evolve: Evolve) -> None:
    arguments = ("--compile-only", "sm_90a", "--language", "triton")
    called = evolve("run", "matmul_bias_gelu", *arguments, "--json")
    assert called.code == 0, called.err
    assert len(called.document) >= 2
    for fact in called.document:
        assert fact["status"] == "PASSED", fact["log"]
        assert fact["build"]["target"].startswith("sm_90")
        assert fact["build"]["shared_bytes"] > 0
        assert "score" not in fact
