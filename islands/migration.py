"""Migration: copies of elites travel from island to island along a ring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ring:
    """Every `interval` evaluations (of all islands together) island k sends to island k + 1.

    Holds no state: when migration is due follows from the count alone, so a resumed run migrates at
    the same moments. ValueError unless both numbers are positive.
    """

    islands: int
    interval: int

    def __post_init__(self) -> None:
        if self.islands < 1 or self.interval < 1:
            raise ValueError("a ring needs at least one island and a positive interval")

    def due(self, evaluations: int) -> bool:
        """Whether elites migrate after evaluation number `evaluations` (counted from 1)."""
        return self.islands > 1 and evaluations > 0 and evaluations % self.interval == 0

    def target(self, island: int) -> int:
        """The island that receives `island`'s emigrants."""
        return (island + 1) % self.islands

    def targets(self) -> tuple[tuple[int, int], ...]:
        """All (source, target) pairs; none for a single island."""
        if self.islands == 1:
            return ()
        return tuple((k, self.target(k)) for k in range(self.islands))
