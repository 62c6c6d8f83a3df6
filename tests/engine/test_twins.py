"""Programs whose built code was evaluated before cost no evaluation, and say whose code it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluators import tunables
from evaluators.schema import BuildFacts, Evaluation, Solution, Status
from evolve import cluster
from evolve.config import RunConfig, parse
from evolve.engine import Engine
from evolve.pool import EvaluatorPool
from evolve.progress import Progress
from evolve.store import Row, Store
from tests.engine.driver import definition, seed_solution
from tests.engine.odd_evaluators import Reliable, spawn


class Compiler(Reliable):
    """GROUP_M and NUM_STAGES change nothing in what it builds."""

    def evaluate(
        self, solution: Solution, twins: Mapping[str, str] | None = None, **options: Any
    ) -> Evaluation:
        values = {n: t.value for n, t in tunables.find(solution.entry_source).items()}
        binary = "-".join(v for n, v in values.items() if n not in ("GROUP_M", "NUM_STAGES"))
        facts = BuildFacts(binary=binary)
        if twins and binary in twins:
            return Evaluation(
                status=Status.DUPLICATE, epoch=self._epoch, log=f"twin {twins[binary]}", build=facts
            )
        return super().evaluate(solution, **options).model_copy(update={"build": facts})


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    ray.shutdown()


def settings() -> RunConfig:
    return parse(
        {
            "operator": "toy",
            "seed": 5,
            "in_flight": 1,
            "budget": {"evaluations": 100},
            "islands": {"count": 1},
            "epochs": {"evaluations": 40},
        }
    )


def search(store: Store, *stops: int) -> list[Row]:
    """A whole search, stopped after so many evaluations and resumed."""
    for stop in stops:
        assert once(store, stop) == "interrupted"
    assert once(store, 1000) == "budget"
    return list(store.evaluations())


def once(store: Store, stop: int) -> str:
    pool = EvaluatorPool([lambda: spawn(Compiler)])

    def watch(progress: Progress) -> None:
        if progress.done >= stop:
            engine.stop()

    engine = Engine(store, settings(), definition(), [seed_solution()], pool, watch)
    try:
        return engine.run()
    finally:
        pool.close()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return search(Store.create(tmp_path_factory.mktemp("run") / "run", {"operator": "toy"}))


def binary(row: Row) -> str:
    assert row.evaluation.build is not None
    return row.evaluation.build.binary


def test_they_cost_no_evaluation(rows: list[Row]) -> None:
    kinds = [row.kind for row in rows]
    assert kinds.count("duplicate") > 5
    assert kinds.count("search") + kinds.count("remeasure") == 100
    for row in rows:
        assert (row.evaluation.status is Status.DUPLICATE) == (row.kind == "duplicate")


def test_no_code_is_searched_twice_in_an_epoch(rows: list[Row]) -> None:
    for epoch in {row.epoch for row in rows}:
        searched = [binary(r) for r in rows if r.epoch == epoch and r.kind == "search"]
        assert len(searched) == len(set(searched))


def test_the_log_names_the_program_with_that_code(rows: list[Row]) -> None:
    seen: dict[tuple[int, str], Row] = {}
    for row in rows:
        if row.kind == "duplicate":
            twin = seen[row.epoch, binary(row)]
            assert twin.program_id in row.evaluation.log
            assert f"{twin.evaluation.score:.3f}x" in row.evaluation.log
            assert row.status_in_archive == "REJECTED"
        else:
            seen.setdefault((row.epoch, binary(row)), row)


def test_elites_are_measured_again_whatever_their_code(rows: list[Row]) -> None:
    again = [row for row in rows if row.kind == "remeasure"]
    assert again
    assert all(row.evaluation.passed for row in again)


def test_a_resumed_run_knows_them_still(rows: list[Row], tmp_path: Path) -> None:
    def told(found: list[Row]) -> list[tuple[str, str, str]]:
        return [(r.program_id, r.kind, r.evaluation.log) for r in found]

    stopped = search(Store.create(tmp_path / "run", {"operator": "toy"}), 17, 55)
    assert told(stopped) == told(rows)
