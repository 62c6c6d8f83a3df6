"""Keys that a stored run names are taken out of the environment by whoever works on that run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evaluators.catalog import CatalogError
from evolve import replay
from evolve.authors.keys import drop, named, named_near
from evolve.recording import take
from evolve.store import Store
from evolve.verification import verify
from tests.llm import sample_run

KEY = "sk-planted-0123456789abcdef"
LLM = {
    "models": [
        {"name": "m", "base_url": "http://localhost/v1", "key_env": "PLANTED_KEY"},
        {"name": "n", "base_url": "http://localhost/v1"},
    ]
}
SHARES = {"count": 2, "emitters": {"llm": 1.0}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that named a key, of an operator that is not here: nothing can be started for it."""
    monkeypatch.setenv("PLANTED_KEY", KEY)
    store = sample_run.make(tmp_path / "run")
    store.set_meta({"config": sample_run.meta(llm=LLM, islands=SHARES)["config"]})
    store.close()
    return tmp_path / "run"


def test_a_replay_drops_the_key_before_it_starts_anything(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="scale_rows"):
        replay.replay(run, tmp_path / "results", "again", None, False, False, quiet=True)
    assert "PLANTED_KEY" not in os.environ


@pytest.mark.parametrize("inside", ["", "champion", "champion/solution.json"])
def test_verifying_drops_the_key_before_it_starts_anything(run: Path, inside: str) -> None:
    with pytest.raises(Exception, match=r"champion|solution"):
        verify(run / inside, "cpu", seed=1, peers=False, quiet=True)
    assert "PLANTED_KEY" not in os.environ


def test_a_replay_remembers_the_names_for_its_own_resume(run: Path) -> None:
    store = Store.open(run, readonly=True)
    kept = take(store).model_dump(mode="json")
    assert kept["keys"] == ["PLANTED_KEY"]
    assert KEY not in str(kept)
    meta: dict[str, Any] = {"config": {"operator": "x"}, "replay": kept}
    assert named(meta) == ("PLANTED_KEY",)


def test_what_is_not_there_is_left_alone(tmp_path: Path) -> None:
    environ = {"OTHER": "1"}
    drop(("ABSENT",), environ)
    assert environ == {"OTHER": "1"}
    assert named_near(tmp_path) == ()
