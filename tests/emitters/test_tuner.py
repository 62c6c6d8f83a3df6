"""The tuner: never the same program twice, a clean end, and a better search than chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evaluators import tunables
from evaluators.schema import Evaluation, Solution, Status
from evolve.emitters import Tuner
from evolve.emitters.space import read
from islands.emitter import Emitter, Proposal
from islands.island import Island
from islands.program import Program
from tests.islands.samples import failed, passed, program, solution, tunable_source

NAMES = ("BLOCK_M", "BLOCK_N", "NUM_WARPS", "SPLIT_K", "GROUP", "UNROLL", "VECTOR")
BIG = {name: [1, 2, 4, 8, 16] for name in NAMES}


def values_of(proposed: Program) -> tuple[int, ...]:
    found = tunables.find(proposed.solution.entry_source)
    return tuple(int(t.value) for t in found.values())


def test_2000_proposals_without_a_duplicate() -> None:
    island = Island(0, 1, "sample", [(Tuner(), 1.0)], [solution(tunable_source(BIG))])
    seen: set[tuple[int, ...]] = set()
    for number in range(2000):
        proposed = island.ask()
        assert proposed is not None
        seen.add(values_of(proposed))
        rng = np.random.default_rng(number)
        island.tell(proposed, passed(math.exp(rng.normal(0, 0.2)), 0.01))
    assert len(seen) == 2000


def test_one_to_three_values_change_and_the_rest_stays() -> None:
    island = Island(0, 1, "sample", [(Tuner(), 1.0)], [solution(tunable_source(BIG))])
    told: dict[str, Program] = {}
    changes = set()
    for _ in range(150):
        proposed = island.ask()
        assert proposed is not None
        told[proposed.id] = proposed
        island.tell(proposed, passed(1.0))
        if proposed.parents:
            parent = told[proposed.parents[0]]
            source = proposed.solution.entry_source
            assert tunables.template(source) == tunables.template(parent.solution.entry_source)
            pairs = zip(values_of(proposed), values_of(parent), strict=True)
            changes.add(sum(a != b for a, b in pairs))
            assert len(proposed.note.split(", ")) == sum(
                a != b for a, b in zip(values_of(proposed), values_of(parent), strict=True)
            )
    assert changes == {1, 2, 3}


def exhaust(choices: dict[str, list[int]], outcome) -> list[tuple[int, ...]]:
    island = Island(0, 2, "sample", [(Tuner(), 1.0)], [solution(tunable_source(choices))])
    seen = []
    while (proposed := island.ask()) is not None:
        seen.append(values_of(proposed))
        island.tell(proposed, outcome(seen[-1]))
        assert len(seen) <= 1000
    assert island.ask() is None
    return seen


def test_a_small_space_is_gone_through_and_then_it_ends() -> None:
    choices = {"BLOCK_M": [16, 32, 64], "NUM_WARPS": [1, 2, 4, 8], "GROUP": [1, 2], "FIXED": [7]}
    seen = exhaust(choices, lambda values: passed(sum(values)))
    assert sorted(seen) == sorted(itertools.product(*choices.values()))


def test_failures_are_gone_through_too() -> None:
    """What failed often is put off, not given up."""
    choices = {"BLOCK_M": [16, 32, 64, 128], "NUM_WARPS": [1, 2, 4, 8], "GROUP": [1, 2, 3]}
    seen = exhaust(choices, lambda v: failed() if v[0] > 16 or v[1] > 1 else passed(1.0))
    assert sorted(seen) == sorted(itertools.product(*choices.values()))


@pytest.mark.parametrize(
    "source",
    [
        "def run(x):\n    pass\n",
        "A = 1  # tune: 1\n",
        "A = 1  # tune: 1 2\nA = 1  # tune: 1 2\n",
    ],
)
def test_nothing_to_tune_is_no_proposal(source: str) -> None:
    island = Island(0, 2, "sample", [(Tuner(), 1.0)], [solution(source)])
    proposed = island.ask()
    assert proposed is not None
    island.tell(proposed, passed(1.0))
    assert island.ask() is None


def test_a_value_outside_its_choices_is_kept_or_replaced() -> None:
    island = Island(
        0, 2, "sample", [(Tuner(), 1.0)], [solution("A = 5  # tune: 1 2\nB = 1  # tune: 1 2\n")]
    )
    seen = []
    while (proposed := island.ask()) is not None:
        seen.append(values_of(proposed))
        island.tell(proposed, passed(1.0))
    assert sorted(seen) == [(1, 1), (1, 2), (2, 1), (2, 2), (5, 1), (5, 2)]


def test_what_fails_is_avoided() -> None:
    """One pair of values runs out of memory; the tuner learns that faster than chance would."""
    choices = {name: [1, 2, 4, 8] for name in NAMES}
    island = Island(0, 4, "sample", [(Tuner(), 1.0)], [solution(tunable_source(choices))])
    failures = 0
    for number in range(300):
        proposed = island.ask()
        assert proposed is not None
        values = values_of(proposed)
        bad = values[0] >= 4 and values[1] >= 4  # a quarter of the space
        failures += bad and number >= 100
        rng = np.random.default_rng(number)
        outcome = failed(Status.OUT_OF_MEMORY) if bad else passed(math.exp(rng.normal(0, 0.1)))
        island.tell(proposed, outcome)
    assert 0 < failures < 0.5 * 200 / 4


class Uniform(Emitter):
    """Draws every value uniformly: what the tuner has to beat."""

    name = "uniform"

    def propose(self, archive, rng):
        parent = archive.best().program
        space, _ = read(parent.solution)
        values = tuple(c[int(rng.integers(len(c)))] for c in space.choices)
        return Proposal(parent.solution.with_entry_source(space.render(values)), (parent.id,))


class Landscape:
    """Log score = a sum of one smooth, noisy term for each tunable; 0 is the optimum."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        count = len(BIG["GROUP"])
        distance = abs(np.arange(count) - rng.integers(count, size=(len(BIG), 1)))
        terms = -distance * rng.exponential(0.1, (len(BIG), 1))
        terms += rng.normal(0, 0.02, terms.shape)
        self.terms = terms - terms.max(axis=1, keepdims=True)

    def log_score(self, values: tuple[int, ...]) -> float:
        places = [BIG["GROUP"].index(v) for v in values]
        return float(sum(self.terms[i, place] for i, place in enumerate(places)))

    def evaluate(self, proposed: Program) -> Evaluation:
        return passed(math.exp(self.log_score(values_of(proposed))), 0.005)


def regret(emitter: Emitter, seed: int, budget: int = 100) -> float:
    landscape = Landscape(seed)
    island = Island(0, seed, "sample", [(emitter, 1.0)], [solution(tunable_source(BIG))])
    best = -math.inf
    for _ in range(budget):
        proposed = island.ask()
        assert proposed is not None
        best = max(best, landscape.log_score(values_of(proposed)))
        island.tell(proposed, landscape.evaluate(proposed))
    return -best


def test_it_beats_chance_on_a_separable_landscape() -> None:
    tuner = np.mean([regret(Tuner(), seed) for seed in range(10)])
    chance = np.mean([regret(Uniform(), seed) for seed in range(10)])
    assert tuner < 0.4 * chance
    assert tuner < 0.1


def test_spaces_of_two_templates_are_apart() -> None:
    one = solution(tunable_source(BIG))
    other = solution(tunable_source(BIG, "# the other\n"))
    tuned = one.with_entry_source(tunables.assign(one.entry_source, {"GROUP": "4"}))
    assert key(one) == key(tuned) != key(other)


def key(of: Solution) -> str:
    found = read(of)
    assert found is not None
    return found[0].key


def test_a_space_renders_its_own_source() -> None:
    source = "A = 1  # tune: 1 2\nx = 3\n#define B 4  // tune: 4 5  \nend"
    found = read(program(source).solution)
    assert found is not None
    space, values = found
    assert (space.names, values) == (("A", "B"), ("1", "4"))
    assert space.render(values) == source
    assert list(space.near(values)) == [("2", "4"), ("1", "5"), ("2", "5")]
