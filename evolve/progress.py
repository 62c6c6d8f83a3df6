"""How far a search is: a record for displays, made from the store when somebody looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from evolve.store import Store

SHOW_S = 0.25
"""Least time between two looks, unless one is forced."""


@dataclass
class Progress:
    """What a display shows. Times in seconds; scores are speedups over the anchor.

    `authors` is a line about models and agents, `note` about what goes on before the search.
    """

    done: int
    budget: int
    elapsed_s: float
    time_left_s: float | None
    rate: float
    epoch: int
    best: float
    seed_best: float
    niches: int
    statuses: dict[str, int]
    in_flight: int
    note: str = ""
    authors: str = ""


Watch = Callable[[Progress], None]


class Observer:
    """Tells `watch` where the search of `store` stands. The clock begins with `start`."""

    def __init__(self, store: Store, budget: int, time_s: float | None, watch: Watch) -> None:
        self._store, self._budget, self._time_s, self._watch = store, budget, time_s, watch
        self._last = 0.0
        self._done_before = 0
        self._started = time.monotonic()

    def start(self) -> None:
        """The search begins: time and rate count from here."""
        self._started = time.monotonic()
        self._done_before = self._done(self._store.counts())

    @property
    def time_left(self) -> float | None:
        """Seconds left of the time budget; None without one."""
        if self._time_s is None:
            return None
        return self._time_s - (time.monotonic() - self._started)

    def show(
        self, in_flight: int, authors: Callable[[], str], force: bool = False, note: str = ""
    ) -> None:
        """Tells `watch`, at most every `SHOW_S`."""
        now = time.monotonic()
        if not force and now - self._last < SHOW_S:
            return
        self._last = now
        counts = self._store.counts()
        done, elapsed = self._done(counts), now - self._started
        best, seed_best, niches = self._store.standing(counts["epoch"])
        self._watch(
            Progress(
                done=done,
                budget=self._budget,
                elapsed_s=elapsed,
                time_left_s=self.time_left,
                rate=(done - self._done_before) / elapsed if elapsed > 1 else 0.0,
                epoch=counts["epoch"],
                best=best,
                seed_best=seed_best,
                niches=niches,
                statuses=self._store.by("status"),
                in_flight=in_flight,
                note=note,
                authors=authors(),
            )
        )

    def _done(self, counts: dict[str, int]) -> int:
        return counts["search"] + counts["remeasure"]
