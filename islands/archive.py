"""The archive of an island: the best program of every niche (MAP-Elites, Mouret & Clune 2015).

Adding and sampling cost the same whatever the number of programs seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from evaluators.schema import Evaluation
from islands.niche import Niche
from islands.program import Program


class AddStatus(StrEnum):
    """What `Archive.add` did."""

    NEW = "NEW"  # first elite of its niche
    IMPROVED = "IMPROVED"  # replaced the elite
    REJECTED = "REJECTED"  # failed, screened out, or no better than the elite beyond the noise


@dataclass(frozen=True, slots=True)
class Elite:
    """The best program of a niche. `noise` is the half width of its log score's 95% interval."""

    program: Program
    evaluation: Evaluation
    niche: Niche
    score: float
    noise: float


class Archive:
    """Elites by niche. Holds PASSED programs only; not thread-safe."""

    def __init__(self) -> None:
        self._elites: dict[Niche, Elite] = {}
        self._niches: list[Niche] = []  # beside the dict, for sampling in O(1)
        self._best: Elite | None = None

    def add(self, program: Program, evaluation: Evaluation, niche: Niche) -> AddStatus:
        """Offers a program to its niche; the archive changes unless the answer is REJECTED.

        An elite is replaced when the gain exceeds the noise: with log scores a (elite) and b
        (candidate) and half widths u and v of their 95% intervals, when b - a > sqrt(u^2 + v^2),
        that is when the 95% interval of the ratio of the scores lies above 1. Half widths add in
        quadrature because the two measurements are independent; asking the intervals not to
        overlap would be needlessly strict (Schenker & Gentleman, The American Statistician 55(3),
        2001).

        A program that stopped at the screen is REJECTED: few workloads say that it is clearly worse
        than an elite, and its score does not compare with one over all of them.
        """
        score = evaluation.score
        if not evaluation.passed or evaluation.rung == "screen" or not score > 0:
            return AddStatus.REJECTED
        elite = self._elites.get(niche)
        if elite is not None and score <= elite.score:
            return AddStatus.REJECTED
        noise = math.log(evaluation.score_high / score)
        if elite is not None and not exceeds_noise(elite.score, elite.noise, score, noise):
            return AddStatus.REJECTED
        self._put(Elite(program, evaluation, niche, score, noise))
        return AddStatus.NEW if elite is None else AddStatus.IMPROVED

    def _put(self, elite: Elite) -> None:
        if elite.niche not in self._elites:
            self._niches.append(elite.niche)
        self._elites[elite.niche] = elite
        if self._best is None or elite.score > self._best.score:
            self._best = elite

    def best(self) -> Elite | None:
        """The elite with the highest score (the first of equals); None when empty."""
        return self._best

    def sample(self, rng: np.random.Generator) -> Elite:
        """An elite, every niche equally likely. LookupError when empty."""
        if not self._niches:
            raise LookupError("the archive is empty")
        return self._elites[self._niches[int(rng.integers(len(self._niches)))]]

    def get(self, niche: Niche) -> Elite | None:
        """The elite of `niche`, if it has one."""
        return self._elites.get(niche)

    def items(self) -> Iterator[tuple[Niche, Elite]]:
        """Niches and their elites, in the order in which the niches were filled."""
        return iter(self._elites.items())

    def clear(self) -> None:
        self._elites.clear()
        self._niches.clear()
        self._best = None

    def __len__(self) -> int:
        return len(self._elites)

    def __contains__(self, niche: object) -> bool:
        return niche in self._elites


def exceeds_noise(score: float, noise: float, rival: float, rival_noise: float) -> bool:
    """Whether `rival` beats `score` by more than both measurements' noise (see `Archive.add`)."""
    return math.log(rival / score) > math.hypot(noise, rival_noise)
