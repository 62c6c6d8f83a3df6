"""The bandit finds the best arm for its cost, shows what it knows, and is a fold over outcomes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evolve.llm.bandit import Bandit, Prior, Pull


def play(
    bandit: Bandit, chances: dict[str, float], costs: dict[str, float], steps: int, seed: int = 0
) -> list[str]:
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    for _ in range(steps):
        arm = bandit.choose(rng)
        chosen.append(arm)
        reward = float(rng.random() < chances[arm])
        bandit.learn(Pull(arm=arm, reward=reward, cost=costs[arm]))
    return chosen


ARMS = {"small": Prior(), "large": Prior()}


@pytest.mark.parametrize("seed", range(5))
def test_the_arm_that_gains_more_is_played_more(seed: int) -> None:
    chosen = play(Bandit(ARMS), {"small": 0.1, "large": 0.6}, {"small": 0, "large": 0}, 300, seed)
    assert chosen[100:].count("large") > 150


@pytest.mark.parametrize("seed", range(5))
def test_cost_decides_where_it_outweighs_the_gain(seed: int) -> None:
    chances, costs = {"small": 0.3, "large": 0.5}, {"small": 0.0, "large": 9.0}
    dear = play(Bandit(ARMS, overhead=1.0), chances, costs, 300, seed)
    assert dear[100:].count("small") > 180
    # The same prices matter little beside a costly evaluation.
    cheap = play(Bandit(ARMS, overhead=1000.0), chances, costs, 600, seed)
    assert cheap[300:].count("large") > 150


@pytest.mark.parametrize("seed", range(5))
def test_it_follows_an_arm_that_becomes_better(seed: int) -> None:
    bandit = Bandit(ARMS, discount=0.95)
    free = {"small": 0.0, "large": 0.0}
    play(bandit, {"small": 0.6, "large": 0.1}, free, 400, seed)
    later = play(bandit, {"small": 0.1, "large": 0.6}, free, 160, seed + 100)
    assert later[80:].count("large") > 50


def test_weights_decide_before_anything_is_known() -> None:
    bandit = Bandit({"trusted": Prior(weight=4.0), "other": Prior(weight=1.0)})
    rng = np.random.default_rng(0)
    chosen = [bandit.choose(rng) for _ in range(400)]
    assert 260 < chosen.count("trusted") < 400


def test_only_arms_that_are_available_are_chosen() -> None:
    bandit, rng = Bandit(ARMS), np.random.default_rng(0)
    assert {bandit.choose(rng, among=["small"]) for _ in range(20)} == {"small"}
    with pytest.raises(ValueError, match="no arm"):
        bandit.choose(rng, among=["resting"])


PULLS = st.lists(
    st.builds(
        Pull,
        arm=st.sampled_from(["small", "large"]),
        reward=st.floats(0, 1),
        cost=st.floats(0, 100),
    ),
    max_size=30,
)


@given(PULLS, st.integers(0, 2**32))
def test_state_is_a_fold_and_the_choice_follows_from_state_and_generator(
    pulls: list[Pull], seed: int
) -> None:
    one, other = Bandit(ARMS).fold(pulls), Bandit(ARMS)
    for pull in pulls:
        other.learn(pull)
    assert one.state() == other.state()
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    assert [one.choose(rngs[0]) for _ in range(5)] == [other.choose(rngs[1]) for _ in range(5)]


@given(PULLS)
def test_state_is_plain_data_within_its_ranges(pulls: list[Pull]) -> None:
    state = Bandit(ARMS).fold(pulls).state()
    assert json.loads(json.dumps({arm: s.model_dump() for arm, s in state.items()}))
    assert sum(s.pulls for s in state.values()) == len(pulls)
    for s in state.values():
        assert 0 < s.reward < 1
        assert s.cost >= 0
        assert 0 < s.rate <= s.reward


def test_bad_outcomes_are_refused() -> None:
    with pytest.raises(KeyError):
        Bandit(ARMS).learn(Pull(arm="other", reward=0.5))
    for bad in ({"reward": 1.1}, {"reward": float("nan")}, {"reward": 0, "cost": -1}):
        with pytest.raises(ValidationError):
            Pull(arm="small", **bad)
