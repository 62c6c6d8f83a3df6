"""A new structure that gained is tuned at once; what a screen says is never a gain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluators.schema import Evaluation
from evolve.emitters import Crossover, Tuner
from evolve.emitters.rewrites import OUTCOMES
from evolve.emitters.space import read
from islands.island import Island
from islands.program import Program
from tests.islands.samples import failed, passed, program, solution, tunable_source

CHOICES = {name: [1, 2, 4, 8, 16] for name in ("BLOCK_M", "BLOCK_N", "NUM_WARPS", "GROUP")}
SEED = tunable_source(CHOICES)
HELPER = "\n\ndef helper(x):\n    return x\n"


def written(source: str, emitter: str = "mailbox", parents: tuple[str, ...] = ()) -> Program:
    return Program.of(solution(source), emitter=emitter, parents=parents)


def searched(share: float = 1.0) -> Island:
    """An island that mostly does crossover, with a seed and a few tuned programs."""
    emitters = [(Tuner(), share), (Crossover(), 1e9)]
    island = Island(0, 3, "sample", emitters)
    island.tell(Program.of(solution(SEED)), passed(1.0))
    for value in (2, 4, 8):
        source = SEED.replace("BLOCK_N = 1 ", f"BLOCK_N = {value} ")
        island.tell(Program.of(solution(source), emitter="tuner"), passed(1.0 + value / 100))
    return island


def is_of(proposed: Program | None, source: str) -> bool:
    mine, theirs = (proposed and read(proposed.solution)), read(solution(source))
    return bool(mine and theirs and mine[0].key == theirs[0].key)


def turns(island: Island, count: int, score: float = 0.5) -> list[Program | None]:
    found = []
    for _ in range(count):
        found.append(island.ask())
        if found[-1] is not None:
            island.tell(found[-1], passed(score))
    return found


def test_the_next_turns_tune_the_new_structure() -> None:
    island = searched()
    rewrite = written(SEED + HELPER)
    island.tell(rewrite, passed(2.0))
    after = turns(island, OUTCOMES + 6)
    first, rest = after[:OUTCOMES], after[OUTCOMES:]
    assert all(p is not None and p.emitter == "tuner" for p in first)
    assert all(is_of(p, rewrite.solution.entry_source) for p in first)
    assert not all(p is not None and p.emitter == "tuner" for p in rest), "then turns as ever"


@pytest.mark.parametrize(
    ("source", "emitter", "evaluation"),
    [
        (SEED + HELPER, "mailbox", passed(0.1)),  # correct and slower
        (SEED + HELPER, "mailbox", failed()),
        (SEED + HELPER, "mailbox", passed(9.0).model_copy(update={"rung": "screen"})),
        (SEED + HELPER, "seed", passed(2.0)),
        (SEED.replace("GROUP = 1", "GROUP = 2"), "mailbox", passed(2.0)),  # values alone
        (HELPER, "mailbox", passed(2.0)),  # nothing to tune
    ],
)
def test_nothing_else_asks_for_it(source: str, emitter: str, evaluation: Evaluation) -> None:
    island = searched()
    island.tell(written(source, emitter), evaluation)
    found = island._emitters[0].follow_up(island.archive, np.random.default_rng(0))
    assert found is None


def test_a_new_niche_counts_when_the_program_beats_its_parents() -> None:
    wide = (SEED + HELPER).replace("BLOCK_M = 1 ", "BLOCK_M = 16 ").replace("N = 1 ", "N = 16 ")
    parent = program(SEED)
    for score, is_followed in ((0.9, False), (1.1, True)):
        island = searched()
        assert island.tell(written(wide, parents=(parent.id,)), passed(score)).value == "NEW"
        found = island._emitters[0].follow_up(island.archive, np.random.default_rng(0))
        assert (found is not None) == is_followed


def test_it_goes_on_from_the_best_of_the_structure() -> None:
    island = searched()
    island.tell(written(SEED + HELPER), passed(2.0))
    better = island.ask()
    assert better is not None
    island.tell(better, passed(3.0))
    parents = [p.parents for p in turns(island, 3) if p is not None]
    assert parents == [(better.id,)] * 3


def test_an_exhausted_structure_gives_the_turn_back() -> None:
    island = searched()
    small = "A = 1  # tune: 1 2\n" + HELPER
    island.tell(written(small), passed(2.0))
    after = turns(island, 4)
    assert is_of(after[0], small)
    assert not any(is_of(p, small) for p in after[1:])


def test_a_resumed_island_goes_on_alike() -> None:
    one, told = searched(), []
    for step in range(30):
        if step % 10 == 5:
            late = written(SEED + HELPER + f"# {step}\n\ndef more_{step}():\n    pass\n")
            told.append((late, passed(2.0 + step)))
            one.tell(*told[-1])
        proposed = one.ask()
        assert proposed is not None
        told.append((proposed, passed(1.0 + step / 50)))
        one.tell(*told[-1])
    other = searched()
    for pair in told:
        other.tell(*pair)
    other.resume_at(one.ordinal)
    for _ in range(20):
        mine, theirs = one.ask(), other.ask()
        assert mine == theirs
        assert mine is not None
        assert one.tell(mine, passed(1.0)) is other.tell(mine, passed(1.0))


def test_a_screened_score_is_no_gain_for_the_tuner() -> None:
    """Few workloads may say 3x where all say 1x; values are ranked by what was measured in full."""
    tuner, found = Tuner(), read(solution(SEED))
    assert found is not None
    lucky = SEED.replace("GROUP = 1", "GROUP = 16")
    island = Island(0, 3, "sample", [(tuner, 1.0)])
    island.tell(program(SEED), passed(1.0))
    island.tell(program(lucky), passed(3.0).model_copy(update={"rung": "screen"}))
    (experience,) = tuner._experiences.values()
    assert experience.best == pytest.approx(0.0)
    assert experience.values[3, "16"].best <= 0.0
    assert experience.values[3, "16"].passed == 1
    assert math.log(3.0) > experience.best
