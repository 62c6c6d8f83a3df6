"""Programs put into the store between two searches: evaluated first, within the budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators import tunables
from evolve import cluster
from evolve.config import RunConfig, parse
from evolve.engine import Engine
from evolve.pool import EvaluatorPool
from evolve.store import Store
from islands.program import Program
from tests.engine.driver import SOURCE, definition, seed_solution
from tests.engine.odd_evaluators import Reliable, spawn


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    ray.shutdown()


def settings(evaluations: int) -> RunConfig:
    return parse(
        {
            "operator": "toy",
            "seed": 5,
            "budget": {"evaluations": evaluations},
            "islands": {"count": 2},
            "epochs": {"evaluations": 1000},
        }
    )


def search(store: Store, evaluations: int, moved: bool = False) -> str:
    pool = EvaluatorPool([lambda: spawn(Reliable, slots=3)])
    try:
        engine = Engine(store, settings(evaluations), definition(), [seed_solution()], pool)
        engine.new_epoch_first = moved
        return engine.run()
    finally:
        pool.close()


def put(store: Store, count: int) -> list[str]:
    """Programs with a function of their own, so that no emitter proposes them."""
    found = []
    for number in range(count):
        source = (
            tunables.assign(SOURCE, {"BLOCK_M": "32"}) + f"\n\ndef extra_{number}(x):\n    pass\n"
        )
        program = Program.of(
            seed_solution().with_entry_source(source),
            island=number % 2,
            emitter="mailbox",
            ordinal=store.proposed_by_island().get(number % 2, (0, 0))[1],
            note=f"number {number}",
        )
        assert store.propose(program)
        found.append(program.id)
    return found


def searched(store: Store) -> list[str]:
    return [r.program_id for r in store.evaluations() if r.kind == "search"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "run", {"operator": "toy"})
    assert search(store, 10) == "budget"
    return store


def test_they_are_evaluated_first_and_count(store: Store) -> None:
    mine = put(store, 4)
    assert search(store, 20) == "budget"
    assert set(searched(store)[10:14]) == set(mine)
    assert store.counts()["search"] == 20
    outcomes = {r.program_id: r for r in store.evaluations() if r.emitter == "mailbox"}
    assert all(outcomes[p].niche and outcomes[p].status_in_archive for p in mine)


def test_more_than_the_budget_has_room_for_wait_on(store: Store) -> None:
    mine = put(store, 9)
    assert search(store, 14) == "budget"
    assert store.counts()["search"] == 14
    assert len(store.pending()) == 5
    assert search(store, 19) == "budget"
    assert set(searched(store)[10:19]) == set(mine)
    assert not store.pending()


def test_none_is_evaluated_without_budget(store: Store) -> None:
    put(store, 2)
    assert search(store, 10) == "budget"
    assert len(store.pending()) == 2


def test_they_are_not_forgotten_on_another_device(store: Store) -> None:
    mine = put(store, 3)
    assert search(store, 30, moved=True) == "budget"
    assert store.counts()["epoch"] == 1
    assert set(mine) <= set(searched(store))
