"""The contest: a screened program is compared with its own niche's elite, on the same workloads."""

from __future__ import annotations

import math
import pickle

import pytest

from evaluators.schema import BuildFacts, Evaluation, Status, WorkloadResult
from evolve.emitters import Tuner
from islands.archive import AddStatus, Archive
from islands.contest import Contest
from islands.descriptor import describe
from islands.island import Island
from tests.islands.samples import passed, program, tunable_source

SOURCE = tunable_source({"BLOCK_M": [16, 32, 64], "BLOCK_N": [16, 32, 64], "NUM_STAGES": [1, 2]})
WIDER = SOURCE.replace("BLOCK_N = 16", "BLOCK_N = 64")  # of another tile class
TWIN = SOURCE + "\n\ndef helper(x):\n    return x\n"  # of the same niche


def measured(speedups: dict[str, float], noise: float = 0.01) -> Evaluation:
    """A full evaluation with one result for each workload."""
    results = tuple(
        WorkloadResult(
            workload=name,
            max_absolute_error=0.0,
            max_relative_error=0.0,
            latency_ms=1.0,
            anchor_ms=speedup,
            speedup=speedup,
            speedup_low=speedup * math.exp(-noise),
            speedup_high=speedup * math.exp(noise),
        )
        for name, speedup in speedups.items()
    )
    return Evaluation(status=Status.PASSED, epoch=0, results=results)


def contest(evaluation: Evaluation, build: BuildFacts | None = None) -> Contest:
    """The contest of TWIN with an elite of SOURCE."""
    archive, elite = Archive(), program(SOURCE)
    told = evaluation.model_copy(update={"build": build})
    assert archive.add(elite, told, describe(elite, told)) is AddStatus.NEW
    return Contest.of(program(TWIN).solution, archive)


def test_an_empty_niche_is_open_to_anything() -> None:
    found = contest(measured({"a": 5.0}))
    other = Contest(program(WIDER).solution, found.elites)
    assert other(None, 0.001, ("a",))
    assert not found(None, 0.001, ("a",))


def test_only_what_is_clearly_worse_stops() -> None:
    found = contest(measured({"a": 2.0}, noise=0.05))
    low = 2.0 * math.exp(-0.05)
    assert found(None, low * 1.001, ("a",)), "its interval still reaches the elite's"
    assert not found(None, low * 0.999, ("a",))


def test_the_elite_counts_on_the_screened_workloads_alone() -> None:
    """Its score over all would stop a program that is as fast, or let a slow one through."""
    found = contest(measured({"a": 1.2, "b": 3.0, "c": 3.0}))
    assert found(None, 1.2, ("a",))
    assert not found(None, 2.5, ("b", "c"))
    assert not found(None, 1.2), "without names it is all workloads"


def test_an_elite_not_measured_on_them_decides_nothing() -> None:
    assert contest(measured({"a": 9.0}))(None, 0.1, ("a", "unknown"))


def test_the_niche_follows_from_what_was_built() -> None:
    found = contest(measured({"a": 2.0}), BuildFacts(num_warps=8))
    assert not found(BuildFacts(num_warps=8), 1.0, ("a",))
    assert found(BuildFacts(num_warps=2), 1.0, ("a",))


def test_it_travels_to_another_process() -> None:
    found = contest(measured({"a": 2.0}))
    again = pickle.loads(pickle.dumps(found))
    assert (again(None, 1.0, ("a",)), again(None, 3.0, ("a",))) == (False, True)


def test_an_island_holds_it_with_its_elites_of_the_moment() -> None:
    island = Island(0, 1, "sample", [(Tuner(), 1.0)])
    twin = program(TWIN)
    assert island.contest(twin)(None, 0.5)
    island.tell(program(SOURCE), passed(2.0))
    before = island.contest(twin)
    assert not before(None, 0.5)
    island.open_epoch(1)
    assert island.contest(twin)(None, 0.5), "elites of the last epoch are no rivals"
    assert not before(None, 0.5)


@pytest.mark.parametrize("score", [0.5, 50.0])
def test_a_screened_program_never_becomes_an_elite(score: float) -> None:
    island = Island(0, 1, "sample", [(Tuner(), 1.0)])
    screened = passed(score).model_copy(update={"rung": "screen"})
    assert island.tell(program(SOURCE), screened) is AddStatus.REJECTED
    assert len(island.archive) == 0
    assert island.tell(program(TWIN), passed(1.0)) is AddStatus.NEW
