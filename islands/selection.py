"""How parents are chosen from an archive."""

from __future__ import annotations

import numpy as np

from islands.archive import Archive, Elite

UNIFORM_SHARE = 0.3
"""Share of choices that are uniform over the niches: keeps every tile strategy in play."""
BEST_SHARE = 0.2
"""Share of choices that take the best elite."""
TOURNAMENT = 3
"""Elites drawn, of which the best is taken, for the remaining choices."""


def select(archive: Archive, rng: np.random.Generator) -> Elite:
    """A parent: uniform, the best, or a tournament's winner; O(1). LookupError when empty."""
    draw = rng.random()
    if draw < UNIFORM_SHARE:
        return archive.sample(rng)
    best = archive.best()
    if best is not None and draw < UNIFORM_SHARE + BEST_SHARE:
        return best
    return max((archive.sample(rng) for _ in range(TOURNAMENT)), key=lambda elite: elite.score)


def ranked(archive: Archive) -> list[Elite]:
    """All elites, best first; equals by program id, so that the order is defined."""
    return sorted((e for _, e in archive.items()), key=lambda e: (-e.score, e.program.id))
