"""The search loop over a deterministic evaluator: budget, epochs, migration, failures, closing."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluators.schema import Solution, SourceFile, Status
from evolve import closing, cluster
from evolve.config import RunConfig, parse
from evolve.engine import Engine, SeedFailed
from evolve.errors import UserError
from evolve.pool import EvaluatorPool
from evolve.progress import Progress
from evolve.store import FILE, Row, Store
from islands.program import Program
from tests.engine.driver import definition, seed_solution
from tests.engine.odd_evaluators import (
    DiesOf,
    FailsAnchor,
    FailsSeeds,
    FailsVerification,
    Reliable,
    spawn,
)

SMALL_SPACE = """\
import triton

BLOCK_M = 16  # tune: 16 32 64
NUM_WARPS = 2  # tune: 2 4 8 16


def run(x, output):
    output.copy_(x)
"""


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    ray.shutdown()


def with_source(solution: Solution, source: str) -> Solution:
    return solution.model_copy(update={"sources": (SourceFile(path="kernel.py", content=source),)})


def settings(evaluations: int, **changes: Any) -> RunConfig:
    data: dict[str, Any] = {
        "operator": "toy",
        "seed": 5,
        "budget": {"evaluations": evaluations},
        "islands": {"count": 1},
        "epochs": {"evaluations": 1000},
    }
    return parse({**data, **changes})


class Search:
    """One store, searched once or again."""

    def __init__(self, run_dir: Path, kind: type[Reliable] = Reliable, **how: Any) -> None:
        self.kind, self.how = kind, how
        self.store = Store.create(run_dir, {"operator": "toy"})
        self.seeds = [seed_solution()]
        self.pool: EvaluatorPool
        self.engine: Engine
        self.seen: list[Progress] = []

    def run(self, config: RunConfig, moved: bool = False) -> str:
        self.pool = EvaluatorPool([lambda: spawn(self.kind, **self.how)])
        self.engine = Engine(self.store, config, definition(), self.seeds, self.pool, self.watch)
        self.engine.new_epoch_first = moved
        return self.engine.run()

    def watch(self, progress: Progress) -> None:
        self.seen.append(progress)

    def rows(self, *kinds: str) -> list[Row]:
        return [r for r in self.store.evaluations() if not kinds or r.kind in kinds]

    def programs(self) -> dict[str, Program]:
        return {p.id: p for p in self.store.programs()}


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    found = Search(tmp_path / "run")
    yield found
    found.pool.close()


def search_of(tmp_path: Path, kind: type[Reliable], **how: Any) -> Search:
    return Search(tmp_path / "run", kind, **how)


# -- budget ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 4])
def test_budget_is_spent_exactly_and_seeds_are_free(tmp_path: Path, in_flight: int) -> None:
    search = search_of(tmp_path, Reliable, slots=in_flight)
    reason = search.run(settings(53, epochs={"evaluations": 15}, in_flight=in_flight))
    assert reason == "budget"
    assert len(search.rows("search", "remeasure")) == 53
    assert len(search.rows("seed")) == 1
    assert search.seen[-1].done == 53
    assert max(p.in_flight for p in search.seen) <= in_flight
    search.pool.close()


def test_time_ends_a_search(tmp_path: Path) -> None:
    search = search_of(tmp_path, Reliable, delay_s=0.05)
    started = time.monotonic()
    assert search.run(settings(10_000, budget={"evaluations": 10_000, "time_s": 1.0})) == "time"
    assert time.monotonic() - started < 10
    assert 2 <= len(search.rows("search")) <= 25
    search.pool.close()


def test_stopping_records_what_is_in_flight(tmp_path: Path) -> None:
    search = search_of(tmp_path, Reliable, slots=3, delay_s=0.3)
    submitted: list[str] = []

    def stop_once_busy(progress: Progress) -> None:
        if progress.done >= 1 and progress.in_flight >= 2 and not search.engine.stopping:
            jobs = search.engine._flight.evaluations.values()
            submitted.extend(job.program.id for job in jobs)
            search.engine.stop()

    search.watch = stop_once_busy  # type: ignore[method-assign]
    assert search.run(settings(100, in_flight=3)) == "interrupted"
    recorded = {row.program_id for row in search.rows()}
    assert len(submitted) >= 2
    assert recorded >= set(submitted)
    assert len(recorded) < 20
    search.pool.close()


def test_a_searched_out_space_ends_the_run_and_duplicates_cost_nothing(search: Search) -> None:
    search.seeds = [with_source(seed_solution(), SMALL_SPACE)]
    assert search.run(settings(100, islands={"count": 2})) == "exhausted"
    evaluated = Counter(row.program_id for row in search.rows())
    assert len(evaluated) == 3 * 4, "every assignment, the seed's among them"
    assert set(evaluated.values()) == {1}
    assert {p.island for p in search.programs().values()} == {0, 1}


# -- epochs and migration -------------------------------------------------------------------------


def test_an_epoch_redraws_workloads_and_measures_its_elites_again(search: Search) -> None:
    search.run(settings(200, epochs={"evaluations": 25}))
    epochs = search.store.epochs()
    assert len(epochs) >= 3
    for epoch, workloads in epochs.items():
        uuids = {w.uuid for w in workloads}
        rows = [row for row in search.rows() if row.epoch == epoch]
        for row in rows:
            measured = {r.workload for r in row.evaluation.results}
            assert measured == uuids or (measured < uuids and row.evaluation.rung == "screen")
        assert not any(uuids & {w.uuid for w in epochs[other]} for other in epochs if other < epoch)
    first = [r for r in search.rows() if r.epoch == 0 and r.evaluation.rung == "full"]
    best_of_niche = {}
    for row in first:
        key = (row.island if row.kind == "search" else 0, row.niche)
        if key not in best_of_niche or row.evaluation.score > best_of_niche[key][0]:
            best_of_niche[key] = (row.evaluation.score, row.program_id)
    again = {row.program_id for row in search.rows("remeasure") if row.epoch == 1}
    overall = max(first, key=lambda row: row.evaluation.score)
    assert overall.program_id in again
    assert again <= {row.program_id for row in first}
    assert len(again) <= len(best_of_niche) < len(first)


@pytest.mark.parametrize("migrants", [0, 2])
def test_elites_migrate_along_the_ring(search: Search, migrants: int) -> None:
    islands = {"count": 2, "migration_interval": 5, "migrants": migrants}
    search.run(settings(60, islands=islands))
    programs = search.programs()
    strangers = [
        (programs[parent].island, program.island)
        for program in programs.values()
        for parent in program.parents
        if programs[parent].emitter != "seed" and programs[parent].island != program.island
    ]
    assert bool(strangers) == bool(migrants)
    assert {p.island for p in programs.values()} == {0, 1}


# -- failures -------------------------------------------------------------------------------------


def test_a_failing_seed_spends_nothing_and_says_why(tmp_path: Path) -> None:
    search = search_of(tmp_path, FailsSeeds)
    with pytest.raises(
        SeedFailed, match=r"seed_toy fails .*RUNTIME_ERROR.*divides by zero"
    ) as told:
        search.run(settings(50))
    assert "\n" not in str(told.value)
    assert search.rows() == []
    search.pool.close()


def test_a_failing_anchor_spends_nothing_and_says_why(tmp_path: Path) -> None:
    search = search_of(tmp_path, FailsAnchor)
    with pytest.raises(UserError, match=r"seed_toy fails: COMPILE_ERROR: no \| such \| header"):
        search.run(settings(50))
    assert search.rows() == []
    search.pool.close()


def test_a_killed_evaluator_is_replaced_and_its_programs_tried_again(tmp_path: Path) -> None:
    in_flight = 3
    search = search_of(tmp_path, Reliable, slots=in_flight, delay_s=0.4)
    killed: list[int] = []

    def kill_once(progress: Progress) -> None:
        if progress.done >= 2 and progress.in_flight == in_flight and not killed:
            killed.append(search.pool.facts["pid"])
            os.kill(killed[0], signal.SIGKILL)

    search.watch = kill_once  # type: ignore[method-assign]
    assert search.run(settings(8, in_flight=in_flight)) == "budget"
    assert killed
    assert search.pool.accounting()[0]["pid"] != killed[0]
    rows = search.rows("search")
    assert len(rows) == 8
    assert all(row.evaluation.passed for row in rows)
    search.pool.close()


def test_a_program_that_kills_its_evaluator_twice_is_recorded_as_failed(tmp_path: Path) -> None:
    search = search_of(tmp_path, DiesOf)
    source = SMALL_SPACE.replace("# tune: 16 32 64", "").replace("# tune: 2 4 8 16", "")
    search.seeds = [with_source(seed_solution(), source + "\n\nGROUP_M = 1  # tune: 1 8\n")]
    assert search.run(settings(9)) == "exhausted"
    (row,) = search.rows("search")
    assert "GROUP_M = 8" in search.programs()[row.program_id].solution.entry_source
    assert row.evaluation.status is Status.RUNTIME_ERROR
    assert "died twice" in row.evaluation.log
    search.pool.close()


# -- resume ---------------------------------------------------------------------------------------


def test_pending_programs_are_evaluated_on_resume(search: Search) -> None:
    search.run(settings(10))
    search.pool.close()
    solution = with_source(seed_solution(), SMALL_SPACE)
    owed = Program.of(solution, island=0, emitter="tuner", ordinal=99)
    assert search.store.propose(owed)
    assert search.run(settings(12)) == "budget"
    assert search.rows()[11].program_id == owed.id
    assert not search.store.pending()
    assert len(search.rows("search")) == 12


def test_resume_of_a_spent_budget_does_nothing(search: Search) -> None:
    search.run(settings(10))
    search.pool.close()
    before = search.rows()
    assert search.run(settings(10)) == "budget"
    assert search.rows() == before


def test_another_device_measures_the_elites_again(search: Search) -> None:
    search.run(settings(20))
    search.pool.close()
    elites = {program.id for _, program, _ in search.engine.population.elites()}
    assert search.run(settings(40), moved=True) == "budget"
    assert max(search.store.epochs()) == 1
    remeasured = search.rows("remeasure")
    assert {row.program_id for row in remeasured} == elites
    assert {row.epoch for row in remeasured} == {1}
    assert {row.epoch for row in search.rows()[21:]} == {1}


@pytest.mark.parametrize("budget", [60, 75, 90, 110, 140])
def test_the_last_epoch_is_searched_not_only_measured_again(search: Search, budget: int) -> None:
    search.run(settings(budget, epochs={"evaluations": 30}))
    last = max(search.store.epochs())
    kinds = [row.kind for row in search.rows() if row.epoch == last]
    assert kinds.count("search") >= 15
    assert len(search.rows("search")) + len(search.rows("remeasure")) == budget


def test_a_run_that_is_continued_by_little_has_epochs_too(search: Search) -> None:
    for budget in range(12, 97, 12):
        search.run(settings(budget, epochs={"evaluations": 20}))
        search.pool.close()
    assert len(search.store.epochs()) > 1
    first = [row for row in search.rows("search") if row.epoch == 0]
    assert 20 <= len(first) <= 50
    assert len(search.rows("search")) + len(search.rows("remeasure")) == 96


def test_every_epoch_measures_the_best_seed(search: Search) -> None:
    search.run(settings(120, epochs={"evaluations": 30}))
    seed = search.store.best_seed()
    epochs = search.store.epochs()
    assert len(epochs) > 1
    for epoch in epochs:
        assert any(r.program_id == seed and r.epoch == epoch for r in search.rows())
        assert search.store.standing(epoch)[1] > 0


# -- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, 1, 99])
def test_closing_takes_the_best_of_those_that_pass_verification(
    tmp_path: Path, failures: int
) -> None:
    search = search_of(tmp_path, FailsVerification, failures=failures)
    search.run(settings(40))
    elites = search.engine.population.elites()
    leading = [program for _, program, _ in elites[: closing.CANDIDATES]]
    assert len(elites) > closing.CANDIDATES
    said: list[str] = []
    found = closing.verify(search.pool, search.seeds[0], 9, 5, elites, said.append)
    refused = [line.split()[0] for line in said if "fails verification" in line]
    assert len(refused) == min(failures, closing.CANDIDATES)
    passing = [program for program in leading if program.id[:8] not in refused]
    if passing:
        assert found is not None
        assert found[0] == passing[0]
        assert {r.workload.partition("-")[0] for r in found[1].results} == {"verification"}
    else:
        assert found is None
    search.pool.close()


# -- cost -----------------------------------------------------------------------------------------


def test_memory_stays_flat_and_disk_small(search: Search) -> None:
    process = psutil.Process()
    sizes: list[tuple[int, int]] = []
    search.watch = lambda p: sizes.append((p.done, process.memory_info().rss))  # type: ignore[method-assign]
    search.run(settings(300, epochs={"evaluations": 100}))
    early = next(size for done, size in sizes if done >= 50)
    assert sizes[-1][1] - early < 20 << 20
    programs = len(search.programs())
    search.store.close()
    disk = sum(file.stat().st_size for file in search.store.run_dir.glob(f"{FILE}*"))
    assert disk / programs <= 8 * 1024


# -- evaluators that die between evaluations -------------------------------------------------------


def test_a_dead_evaluator_is_replaced_and_its_successor_asked() -> None:
    import ray

    actors = []

    def start() -> object:
        actors.append(spawn(Reliable))
        return actors[-1]

    def kill(actor: Any) -> None:
        ray.kill(actor)
        with pytest.raises(ray.exceptions.RayActorError):  # it dies a moment later
            ray.get([actor.facts.remote() for _ in range(500)])

    pool = EvaluatorPool([start])
    (workload,) = pool.sample("search", 0, 1, 1)
    expected = pool.costs([workload])
    kill(actors[0])
    assert pool.cost(workload) == expected[0]
    kill(actors[1])
    assert [w.axes for w in pool.sample("search", 0, 1, 1)] == [workload.axes]
    assert len(actors) == 3
    pool.close()
