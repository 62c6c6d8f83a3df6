"""Main effects: how much each value of each tunable adds to the log score of its template.

Latencies of tiled kernels are products of factors to a first approximation, so log scores are sums:
one term for each value. The terms come from ridge regression on the outcomes so far, which is the
posterior mean under a Gaussian prior; drawing from that posterior and following the draw (Thompson
sampling for linear bandits, Agrawal & Goyal, ICML 2013) weighs what is known against what is not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evolve.emitters.space import Assignment, Space

PRIOR = 0.5
"""Ridge: how many outcomes the prior (no effect) counts for."""
SPREAD = 0.5
"""Scale of a draw's deviation from the mean; below 1 exploits more."""
OUTLIER = 2.0
"""Log scores further below the mean than this count as this far: disasters teach no detail."""
LIMIT = 512
"""Most values modelled; those of later tunables count as having no effect."""
REFIT = 16
"""A fit is renewed once the outcomes have grown by a sixteenth."""


class Effects:
    """The model of one template. The same outcomes in the same order give the same draws."""

    def __init__(self, space: Space) -> None:
        self._places: dict[tuple[int, str], int] = {}
        for i, choices in enumerate(space.choices):
            for value in choices:
                if len(self._places) < LIMIT:
                    self._places[i, value] = len(self._places)
        n = len(self._places)
        self._gram = np.zeros((n, n))
        self._moment = np.zeros(n)  # sum of log scores by value
        self._sums = np.zeros(3)  # outcomes, their log scores, the squares of these
        self._mean = np.zeros(n)
        self._factor = np.zeros((n, n))  # of the posterior covariance
        self._renew_at = 1.0

    def note(self, values: Assignment, log_score: float) -> None:
        """Takes the log score of one assignment."""
        count, total, _ = self._sums
        if count:
            log_score = max(log_score, total / count - OUTLIER)
        on = self._on(values)
        self._gram[np.ix_(on, on)] += 1
        self._moment[on] += log_score
        self._sums += (1, log_score, log_score**2)
        if self._sums[0] >= self._renew_at:
            self._fit()
            self._renew_at = self._sums[0] * (1 + 1 / REFIT)

    def _on(self, values: Assignment) -> list[int]:
        """Places of the values in the model; one that is not a choice has none."""
        return [self._places[key] for key in enumerate(values) if key in self._places]

    def _fit(self) -> None:
        count, total, squares = self._sums
        level = total / count
        moment = self._moment - level * np.diag(self._gram)
        covariance = np.linalg.inv(self._gram + PRIOR * np.eye(len(moment)))
        self._mean = covariance @ moment
        explained = 2 * self._mean @ moment - self._mean @ self._gram @ self._mean
        residual = float(squares - count * level**2 - explained)
        # One prior outcome with a deviation of 0.3 keeps the first few fits from certainty.
        variance = (max(residual, 0.0) + 0.3**2) / (count + 1)
        factor = np.linalg.cholesky((covariance + covariance.T) / 2)
        self._factor = np.asarray(factor * math.sqrt(variance), dtype=np.float64)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Effects drawn from the posterior: float64 [values of all tunables], in log score."""
        draw = rng.standard_normal(len(self._mean))
        effects: NDArray[np.float64] = self._mean + SPREAD * (self._factor @ draw)
        return effects

    def predict(self, effects: NDArray[np.float64], values: Assignment) -> float:
        """Sum of an assignment's drawn effects: its log score against the template's mean."""
        return float(sum(effects[i] for i in self._on(values)))
