"""What the budget and the open epoch still have room for."""

from __future__ import annotations

from collections.abc import Callable, Collection

from evolve.config import RunConfig
from evolve.flight import Flight, Job
from evolve.store import Store

REMEASURE_SHARE = 3
"""Least searches in an epoch per elite measured again at its start."""


class Room:
    """Counts what is stored, under way and queued against the budget and the epoch.

    `elites` tells how many there are now: what a next epoch would measure again.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        flight: Flight,
        queue: Collection[Job],
        elites: Callable[[], int],
    ) -> None:
        self._store = store
        self._budget = config.budget.evaluations
        self._size = config.epochs.evaluations
        self._flight = flight
        self._queue = queue
        self._elites = elites
        self._last_epoch = -1

    def unmade(self) -> int:
        """Evaluations of the budget that are not in the store."""
        counts = self._store.counts()
        return self._budget - counts["search"] - counts["remeasure"]

    def left(self) -> int:
        """Evaluations that nothing queued or under way will need."""
        flight = self._flight
        return self.unmade() - len(self._queue) - len(flight.asks) - len(flight.evaluations)

    def in_epoch(self) -> int:
        """Searches that may still start in this epoch.

        An epoch has at least `REMEASURE_SHARE` times as many searches as elites it measured again,
        so that measuring again never eats the budget.
        """
        counts, flight = self._store.counts(), self._flight
        size = max(self._size, REMEASURE_SHARE * counts["remeasured"])
        waiting = sum(job.kind == "search" for job in (*flight.evaluations.values(), *self._queue))
        started = counts["searched"] + len(flight.asks) + waiting
        left = self.left()
        if started < size:
            return min(left, size - started)
        beyond = started - size
        return left if self._is_last_epoch(counts["epoch"], size, left, beyond) else 0

    def epoch_is_over(self) -> bool:
        """Whether the next epoch has to be opened before anything more can start."""
        return self.in_epoch() <= 0 < self.left() and not self._queue

    def _is_last_epoch(self, epoch: int, size: int, left: int, beyond: int) -> bool:
        """Whether the budget is too short for another epoch: its elites and half its searches.

        Decided once, with nothing in flight, so that a resumed run decides alike. `beyond`: how
        many searches more than its size the epoch has already. A run that is given a little more
        again and again does not stay in one epoch for that.
        """
        if self._last_epoch == epoch:
            return True
        if self._flight.refs() or self._queue:
            return False
        if beyond + left < self._elites() + size // 2:
            self._last_epoch = epoch
        return self._last_epoch == epoch
