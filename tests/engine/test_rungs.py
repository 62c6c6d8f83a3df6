"""Cheap first: what its niche's elite clearly beats stops after few workloads, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import frames
from evaluators.schema import Evaluation, Solution
from evolve import cluster
from evolve.config import parse
from evolve.engine import Engine
from evolve.pool import EvaluatorPool
from evolve.store import Row, Store
from evolve.summary import summarise
from tests.engine.driver import definition, seed_solution
from tests.engine.odd_evaluators import Reliable, spawn


class Strict(Reliable):
    """Says in the log whether it was given a contest."""

    def evaluate(self, solution: Solution, contends: Any = None, **options: Any) -> Evaluation:
        found = super().evaluate(solution, contends, **options)
        return found.model_copy(update={"log": "contest" if contends else "no contest"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A search over several epochs, two islands, several programs under way."""
    run_dir = tmp_path_factory.mktemp("rungs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        config = parse(
            {
                "operator": "toy",
                "seed": 5,
                "budget": {"evaluations": 120},
                "islands": {"count": 2, "migration_interval": 20},
                "epochs": {"evaluations": 40},
            }
        )
        meta = {"operator": "toy", "definition": "toy_f32", "device": {}}
        store = Store.create(run_dir, {**meta, "config": config.model_dump(mode="json")})
        pool = EvaluatorPool([lambda: spawn(Strict, slots=3)])
        Engine(store, config, definition(), [seed_solution()], pool).run()
        pool.close()
        yield store
    import ray

    ray.shutdown()


def rows(store: Store, rung: str) -> list[Row]:
    return [r for r in store.evaluations() if r.evaluation.passed and r.evaluation.rung == rung]


def test_searched_programs_have_a_contest_and_others_none(store: Store) -> None:
    for row in store.evaluations():
        assert row.evaluation.log == ("contest" if row.kind == "search" else "no contest")


def test_screened_programs_are_clearly_worse_than_an_elite_of_their_niche(store: Store) -> None:
    screened = rows(store, "screen")
    assert len(screened) > 3
    assert {row.status_in_archive for row in screened} == {"REJECTED"}
    whole = rows(store, "full")
    for row in screened:
        rivals = [r for r in whole if (r.epoch, r.niche) == (row.epoch, row.niche)]
        assert max(r.evaluation.score_low for r in rivals) > row.evaluation.score_high
        assert {r.seq for r in rivals if r.seq < row.seq}


def test_elites_were_measured_in_full(store: Store) -> None:
    elites = [r for r in store.evaluations() if r.status_in_archive in {"NEW", "IMPROVED"}]
    assert elites
    assert {r.evaluation.rung for r in elites} == {"full"}


def test_the_rungs_are_counted(store: Store) -> None:
    counts = {"full": len(rows(store, "full")), "screen": len(rows(store, "screen"))}
    assert store.by_rung() == counts
    assert summarise(store.run_dir)["by_rung"] == counts


def test_a_screened_score_competes_with_none(store: Store, tmp_path: Path) -> None:
    """It stands over few workloads: neither the best so far nor a point of a figure."""
    row = rows(store, "screen")[0]
    copy = Store.create(tmp_path / "run", {"operator": "toy"})
    copy.open_epoch(row.epoch, [])
    lucky = row.evaluation.results[0].model_copy(
        update={"speedup": 99.0, "speedup_low": 98.0, "speedup_high": 100.0}
    )
    program = store.program(row.program_id)
    copy.propose(program)
    copy.record(program.id, "search", row.evaluation.model_copy(update={"results": (lucky,)}))
    assert copy.standing(row.epoch)[0] == 0
    (shown,) = frames.evaluations(copy.evaluations()).to_dict("records")
    assert (shown["rung"], shown["status"]) == ("screen", "PASSED")
    assert shown["score"] != shown["score"]  # NaN
