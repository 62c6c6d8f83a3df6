"""A cost-aware bandit: which model, or which way of proposing, to use next.

Thompson sampling on the reward per cost. The belief about an arm's mean reward (in [0, 1]) is
Beta(a + sum of rewards, b + sum of shortfalls), the generalisation of Bernoulli sampling to bounded
rewards by their expectation (Agrawal and Goyal, "Analysis of Thompson Sampling for the Multi-armed
Bandit Problem", COLT 2012, section 1); a draw is divided by what a try is expected to cost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from pydantic import Field

from evaluators.schema import Record

PRIOR_TRIES = 2.0
"""How many tries the belief before any outcome counts for."""


class Pull(Record):
    """The outcome of one try of an arm. `cost` in the unit of the bandit's `overhead`."""

    arm: str
    reward: float = Field(ge=0, le=1)
    cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Prior(Record):
    """What is believed of an arm before any outcome: its trust among the arms, its cost a try."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class ArmState(Record):
    """What is known of an arm. Sums are discounted; `pulls` counts all, `rate` ranks the arms.

    `reward` and `cost` are expectations a try; `rate` = reward / (overhead + cost).
    """

    pulls: int
    tries: float
    rewards: float
    costs: float
    reward: float
    cost: float
    rate: float


class Bandit:
    """Chooses among arms by reward per cost.

    `overhead` is what a try costs apart from the arm (its evaluation), in the unit of the pulls'
    costs: the larger it is, the less an arm's own price matters. Every pull fades all that was
    known by `discount`, since gains become rarer as a search goes on. State is a fold over `learn`:
    the same pulls give the same state. All randomness comes from the generator given to `choose`.
    """

    def __init__(
        self, priors: Mapping[str, Prior], *, overhead: float = 1.0, discount: float = 0.99
    ) -> None:
        if not priors:
            raise ValueError("a bandit needs at least one arm")
        if not overhead > 0 or not 0 < discount <= 1:
            raise ValueError("overhead must be positive and discount in (0, 1]")
        self._priors = dict(priors)
        self._heaviest = max(prior.weight for prior in priors.values())
        self._overhead, self._discount = overhead, discount
        self._pulls = dict.fromkeys(priors, 0)
        self._tries = dict.fromkeys(priors, 0.0)
        self._rewards = dict.fromkeys(priors, 0.0)
        self._costs = dict.fromkeys(priors, 0.0)

    def choose(self, rng: np.random.Generator, among: Collection[str] | None = None) -> str:
        """The next arm, of those in `among` (None: any). ValueError when it has no known arm."""
        arms = [arm for arm in self._priors if among is None or arm in among]
        if not arms:
            raise ValueError("no arm to choose from")
        draws = {arm: rng.beta(*self._belief(arm)) / self._price(arm) for arm in arms}
        return max(arms, key=lambda arm: draws[arm])

    def learn(self, pull: Pull) -> None:
        """Takes an outcome. KeyError for an unknown arm."""
        if pull.arm not in self._priors:
            raise KeyError(pull.arm)
        for sums in (self._tries, self._rewards, self._costs):
            for arm in sums:
                sums[arm] *= self._discount
        self._pulls[pull.arm] += 1
        self._tries[pull.arm] += 1.0
        self._rewards[pull.arm] += pull.reward
        self._costs[pull.arm] += pull.cost

    def fold(self, pulls: Iterable[Pull]) -> Bandit:
        """Learns from recorded pulls in order; returns itself."""
        for pull in pulls:
            self.learn(pull)
        return self

    def state(self) -> dict[str, ArmState]:
        """What is known of each arm, for people and for the store."""
        return {arm: self._state(arm) for arm in self._priors}

    def _state(self, arm: str) -> ArmState:
        a, b = self._belief(arm)
        reward, price = a / (a + b), self._price(arm)
        return ArmState(
            pulls=self._pulls[arm],
            tries=self._tries[arm],
            rewards=self._rewards[arm],
            costs=self._costs[arm],
            reward=reward,
            cost=price - self._overhead,
            rate=reward / price,
        )

    def _belief(self, arm: str) -> tuple[float, float]:
        """Parameters of the Beta belief; the heaviest arm starts with the uniform one."""
        trust = self._priors[arm].weight / self._heaviest / 2
        shortfalls = max(0.0, self._tries[arm] - self._rewards[arm])
        return (
            PRIOR_TRIES * trust + self._rewards[arm],
            PRIOR_TRIES * (1 - trust) + shortfalls,
        )

    def _price(self, arm: str) -> float:
        """Expected cost of a try, overhead included; the prior counts for one try."""
        mean = (self._priors[arm].cost + self._costs[arm]) / (1.0 + self._tries[arm])
        return self._overhead + mean
