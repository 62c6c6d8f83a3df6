"""OpenEvolve's real package, and a run of ours that its programs can go to."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators import catalog
from evaluators.schema import Definition, Solution
from evolve.config import parse
from evolve.export import definition_json
from evolve.store import Store
from islands.program import Program

pytest.importorskip("openevolve", reason="needs openevolve")

OPERATOR = "matmul_bias_gelu"


@pytest.fixture(scope="session")
def definition() -> Definition:
    return catalog.load_operator(OPERATOR).definition(None, "cpu")


@pytest.fixture(scope="session")
def seed(definition: Definition) -> Solution:
    found = catalog.seeds(catalog.load_operator(OPERATOR), definition, "cpu")
    return next(s for s in found if s.spec.language == "cpp")


@pytest.fixture
def run_dir(tmp_path: Path, definition: Definition, seed: Solution) -> Path:
    """A run of two islands, with its seed stored and nothing evaluated."""
    config = parse({"operator": OPERATOR, "islands": {"count": 2}, "budget": {"evaluations": 3}})
    store = Store.create(
        tmp_path / "run",
        {
            "operator": OPERATOR,
            "definition": definition.name,
            "definition_record": definition_json(definition),
            "device": {"type": "cpu", "name": "a processor"},
            "config": config.model_dump(mode="json", exclude_none=True),
        },
    )
    store.propose(Program.of(seed))
    store.close()
    return tmp_path / "run"
