"""`evolve compare` with its measurement: real kernels as champions of stores made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve import closing
from tests.cli.conftest import Evolve
from tests.cli.test_compare import FAST, SLOW, champion_of, refused

WRONG = (("0.044715f", "0.5f"),)


@pytest.fixture(autouse=True)
def short_of_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than a person wants."""
    monkeypatch.setattr(closing, "FINAL_SAMPLES", 0.1)


def test_a_faster_champion_is_told_from_a_slower_one(evolve: Evolve, tmp_path: Path) -> None:
    run, control = (champion_of(tmp_path / n, *c) for n, c in (("fast", FAST), ("slow", SLOW)))
    called = evolve("compare", run, control, "--out", tmp_path / "out", "--json")
    assert called.code == 0, called.err
    found = called.document
    assert found["verdict"] == "FASTER"
    met = found["duel"]
    assert met["mean"]["low"] > 1
    assert len(met["workloads"]) == 5
    for row in met["workloads"]:
        assert row["ratio"]["low"] <= row["ratio"]["speedup"] <= row["ratio"]["high"]
        assert row["run_us"] > 0 < row["base_us"]
    over = met["over_anchor"]
    assert over["run"]["speedup"] > over["base"]["speedup"]
    assert found["environment"]["name"]
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "geometric mean" in page
    assert "**FASTER.**" in page


def test_a_champion_that_is_wrong_is_not_measured(evolve: Evolve, tmp_path: Path) -> None:
    run, control = (champion_of(tmp_path / n, *c) for n, c in (("wrong", WRONG), ("slow", SLOW)))
    called = evolve("compare", run, control, "--out", tmp_path / "out", "--quiet")
    assert called.code == 1
    assert called.out.startswith("FAILED")
    assert "run's champion fails: INCORRECT_NUMERICAL" in called.out
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["duel"]["workloads"] == []


def test_a_device_that_is_absent_here_leaves_nothing_behind(evolve: Evolve, tmp_path: Path) -> None:
    runs = [champion_of(tmp_path / name, *FAST, device="cuda") for name in ("one", "other")]
    called = evolve("compare", *runs, "--out", tmp_path / "out")
    refused(called, "device cuda is absent", "--no-measure")
    assert not (tmp_path / "out").exists()
