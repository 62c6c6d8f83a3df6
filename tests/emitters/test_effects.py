"""Main effects: sums are recovered, draws repeat and narrow, and wild inputs do no harm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evolve.emitters.effects import LIMIT, Effects
from evolve.emitters.space import Assignment, Space

CHOICES = (("1", "2", "4"), ("16", "32"), ("a", "b", "c", "d"))
TERMS = {"1": 0.0, "2": 0.5, "4": -0.5, "16": 0.2, "32": -0.2, "a": 0, "b": 0.1, "c": 0.4, "d": -1}


def space(choices: tuple[tuple[str, ...], ...] = CHOICES) -> Space:
    names = tuple(f"T{i}" for i in range(len(choices)))
    return Space("key", names, choices, ("",) * (len(choices) + 1))


def truth(values: Assignment) -> float:
    return sum(TERMS[v] for v in values)


def learned(rounds: int) -> Effects:
    effects = Effects(space())
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for values in itertools.product(*CHOICES):
            effects.note(values, 3.0 + truth(values) + rng.normal(0, 0.02))
    return effects


def test_a_sum_is_recovered() -> None:
    effects = learned(4)
    draw = effects.draw(np.random.default_rng(1))
    predicted = [effects.predict(draw, v) for v in itertools.product(*CHOICES)]
    expected = np.array([truth(v) for v in itertools.product(*CHOICES)])
    assert predicted == pytest.approx(list(expected - expected.mean()), abs=0.1)


def test_draws_repeat_with_their_seed_and_narrow_with_outcomes() -> None:
    def spread(effects: Effects) -> float:
        draws = [effects.draw(np.random.default_rng(k)) for k in range(50)]
        return float(np.std(draws, axis=0).mean())

    few = Effects(space())
    for values in list(itertools.product(*CHOICES))[::5]:
        few.note(values, truth(values))
    assert (few.draw(np.random.default_rng(3)) == few.draw(np.random.default_rng(3))).all()
    assert spread(learned(4)) < 0.5 * spread(few)


def test_without_outcomes_nothing_is_promised() -> None:
    effects = Effects(space())
    draw = effects.draw(np.random.default_rng(0))
    assert effects.predict(draw, ("1", "16", "a")) == 0.0


def test_a_disaster_counts_for_little() -> None:
    one, other = learned(2), learned(2)
    one.note(("1", "16", "d"), -3.0)
    other.note(("1", "16", "d"), -300.0)
    rng = np.random.default_rng
    assert one.draw(rng(5)) == pytest.approx(other.draw(rng(5)))


def test_a_value_that_is_no_choice_and_a_huge_space() -> None:
    effects = Effects(space((tuple(map(str, range(5000))), ("x", "y"))))
    effects.note(("7", "x"), 1.0)
    effects.note(("no choice", "y"), 0.5)
    assert len(effects.draw(np.random.default_rng(0))) == LIMIT
