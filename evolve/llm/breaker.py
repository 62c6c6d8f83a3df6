"""A circuit breaker: a model that keeps failing rests, then one probe decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

LONGEST_HOLD_S = 3600.0
"""An endpoint may ask for a longer pause; nobody waits longer than this before a probe."""


class State(StrEnum):
    CLOSED = "CLOSED"  # requests pass
    OPEN = "OPEN"  # none passes until the pause is over
    HALF_OPEN = "HALF_OPEN"  # one probe is under way


class Breaker:
    """Opens after `failures` in a row, for `pause_s`, doubled per failed probe up to `max_pause_s`.

    Each `allow` that returned True is followed by exactly one `success`, `failure` or `abandon`.
    Not thread-safe: one event loop owns it; `pause_left` may be read from elsewhere.
    """

    def __init__(
        self,
        failures: int,
        pause_s: float,
        max_pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._first_pause = failures, pause_s
        self.longest_pause = max(max_pause_s, pause_s)
        self._clock = clock
        self._pause = pause_s
        self._failed = 0
        self._until: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._until is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing else State.OPEN

    @property
    def pause_left(self) -> float:
        """Seconds until a request may pass; 0.0 when one may now."""
        until = self._until
        return 0.0 if until is None else max(0.0, until - self._clock())

    def allow(self) -> bool:
        """Whether a request may be sent now; after a pause, one at a time."""
        if self._until is None:
            return True
        if self._probing or self.pause_left > 0:
            return False
        self._probing = True
        return True

    def success(self) -> None:
        self._failed = 0
        self._pause = self._first_pause
        self._until = None
        self._probing = False

    def failure(self) -> None:
        if self._until is None:
            self._failed += 1
            if self._failed >= self._limit:
                self._open(self._pause)
        elif self._probing:
            self._pause = min(2 * self._pause, self.longest_pause)
            self._open(self._pause)

    def abandon(self) -> None:
        """A request that passed ended without a verdict on the service."""
        self._probing = False

    def hold(self, seconds: float) -> None:
        """Opens for so long at least: the endpoint asked for it, or no request can succeed."""
        self._open(min(max(seconds, self.pause_left), LONGEST_HOLD_S))

    def _open(self, seconds: float) -> None:
        self._until = self._clock() + seconds
        self._probing = False
