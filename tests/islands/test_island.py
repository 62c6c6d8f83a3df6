"""An island: seeds first, no program twice, and the same calls give an equal island."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.schema import Evaluation
from evolve.emitters import Crossover, Tuner
from islands.archive import AddStatus
from islands.island import Island
from islands.program import Program, program_id
from tests.islands.samples import failed, passed, solution, tunable_source

CHOICES = {
    "BLOCK_M": [16, 32, 64, 128],
    "BLOCK_N": [16, 32, 64, 128],
    "NUM_WARPS": [2, 4, 8],
    "NUM_STAGES": [1, 2, 3, 4],
    "SPLIT_K": [1, 2, 4],
}
SEEDS = [
    solution(tunable_source(CHOICES)),
    solution(tunable_source(CHOICES, "\n\ndef helper(x):\n    return x\n")),
    solution(tunable_source(CHOICES, "\n\ndef helper(x):\n    return x + 1\n")),
]


def island(index: int = 0, seeds: list = SEEDS) -> Island:
    return Island(index, 11, "sample", [(Tuner(), 0.7), (Crossover(), 0.3)], seeds)


def outcome(program: Program, epoch: int = 0) -> Evaluation:
    """A deterministic outcome that one program in five fails."""
    rng = np.random.default_rng(int(program.id[:12], 16))
    if rng.random() < 0.2:
        return failed(epoch=epoch)
    return passed(float(np.exp(rng.normal(0, 0.3))), 0.01, epoch)


def test_the_seeds_come_first_each_island_from_another() -> None:
    for index in range(4):
        here = island(index)
        first = [here.ask() for _ in SEEDS]
        turned = [*SEEDS[index % 3 :], *SEEDS[: index % 3]]
        assert [p.id for p in first] == [program_id(s) for s in turned]
        assert [(p.emitter, p.ordinal, p.island) for p in first] == [
            ("seed", k, index) for k in range(3)
        ]
        assert here.ask() is None  # nothing was told yet, so there is no parent


def test_no_program_twice_and_both_emitters_serve() -> None:
    here = island()
    seen: list[Program] = []
    for _ in range(300):
        program = here.ask()
        seen.append(program)
        here.tell(program, outcome(program))
    assert len({p.id for p in seen}) == 300
    assert [p.ordinal for p in seen] == list(range(300))
    assert {p.emitter for p in seen} == {"seed", "tuner", "crossover"}
    told = {p.id for p in seen}
    assert all(parent in told for p in seen for parent in p.parents)


def test_programs_under_way_are_not_proposed_again() -> None:
    here = island()
    for program in [here.ask() for _ in SEEDS]:
        here.tell(program, passed(1.0))
    under_way = [here.ask() for _ in range(100)]
    assert len({p.id for p in under_way}) == 100


def test_what_another_island_evaluated_is_not_proposed() -> None:
    here, rival = island(), island()
    for program in [here.ask() for _ in SEEDS]:
        here.tell(program, passed(1.0))
        rival.tell(program, passed(1.0))
    known = here.ask()
    rival.known(known.id)
    assert rival.ask().id != known.id


def test_replay_gives_an_equal_island() -> None:
    here = island()
    calls: list[tuple[str, object]] = []
    guests = [island(1), island(2)]
    for step in range(120):
        program = here.ask()
        epoch = step // 50
        if step in (50, 100):
            here.open_epoch(epoch)
            calls.append(("epoch", epoch))
        here.tell(program, outcome(program, epoch))
        calls.append(("tell", (program, outcome(program, epoch))))
        if step % 20 == 19:
            guest = guests[step % 2]
            elites = [(p, outcome(p, epoch)) for p in [guest.ask() for _ in range(2)] if p]
            elites = [(p, e) for p, e in elites if e.passed]
            here.immigrate(elites)
            calls.append(("immigrate", elites))
        if step % 7 == 0:
            here.known(f"{step:032x}")
            calls.append(("known", f"{step:032x}"))

    again = island()
    for name, value in calls:
        match name:
            case "tell":
                again.tell(*value)
            case "immigrate":
                again.immigrate(value)
            case "known":
                again.known(value)
            case "epoch":
                again.open_epoch(value)
    again.resume_at(here.ordinal)
    assert (again.epoch, again.ordinal) == (here.epoch, here.ordinal)
    assert again.elites() == here.elites()
    assert again.elites()
    for _ in range(30):  # and their streams go on alike
        one, other = here.ask(), again.ask()
        assert one == other
        assert here.tell(one, outcome(one, 2)) is again.tell(other, outcome(other, 2))


def test_a_new_epoch_starts_empty_and_refuses_old_evaluations() -> None:
    here = island()
    programs = [here.ask() for _ in SEEDS]
    for score, program in enumerate(programs, 1):
        here.tell(program, passed(float(score)))
    elites = here.open_epoch(1)
    assert [p.id for p in elites] == [programs[2].id]  # all three share a niche
    assert len(here.archive) == 0
    late = here.ask()  # the old elites are still parents
    assert late is not None
    assert here.tell(late, passed(9.0, epoch=0)) is AddStatus.REJECTED
    assert here.tell(elites[0], passed(0.5, epoch=1)) is AddStatus.NEW
    assert here.archive.best().score == pytest.approx(0.5)


def test_elites_travel() -> None:
    here, there = island(0), island(1)
    for _ in range(60):
        program = here.ask()
        here.tell(program, outcome(program))
    leaving = here.emigrants(3)
    scores = [e.score for _, e in leaving]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == here.archive.best().score
    assert there.immigrate(leaving) == [AddStatus.NEW] * 3
    assert there.immigrate(leaving) == [AddStatus.REJECTED] * 3
    assert [key for key, _, _ in there.elites()] == [there.niche_key(*pair) for pair in leaving]


def test_an_exhausted_island_says_so() -> None:
    here = island(seeds=[solution(tunable_source({"BLOCK_M": [16, 32], "BLOCK_N": [16, 32]}))])
    count = 0
    while (program := here.ask()) is not None:
        here.tell(program, passed(1.0))
        count += 1
    assert count == 4
    assert here.ask() is None


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_must_be_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        Island(0, 0, "sample", [(Tuner(), weight)], SEEDS)


def test_a_seed_of_another_definition_is_refused() -> None:
    with pytest.raises(ValueError, match="other"):
        Island(0, 0, "other", [(Tuner(), 1.0)], SEEDS)
