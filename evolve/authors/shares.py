"""Whose turn it is: emitters get work in proportion to their shares while they can take it.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996): starting
a piece of work moves an emitter's clock on by 1 / share, and nobody's clock runs ahead of the
slowest one's by more than its slack. Who could take no work for a while (an outage, an island
without proposals) goes on where the others are, and makes nothing up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Shares:
    """Turns of emitters by name. `slack`: pieces of work that each may be ahead, at least 1."""

    def __init__(self, shares: Mapping[str, float], slack: Mapping[str, int]) -> None:
        if any(not share > 0 for share in shares.values()):
            raise ValueError("a share must be positive")
        self._step = {name: 1 / share for name, share in shares.items()}
        self._slack = {name: max(1, slack[name]) * self._step[name] for name in shares}
        self._clock = dict.fromkeys(shares, 0.0)
        self._stopped_at = 0.0
        self._able: frozenset[str] = frozenset(shares)

    def able(self, names: Collection[str]) -> None:
        """Says who can take work at present."""
        now = frozenset(names)
        stayed = [self._clock[name] for name in self._able & now]
        if self._able:
            self._stopped_at = max(self._clock[name] for name in self._able)
        # Where nobody stayed, those who come back continue where the last ones stopped.
        level = min(stayed, default=self._stopped_at)
        for name in now - self._able:
            self._clock[name] = max(self._clock[name], level)
        self._able = now

    def may(self, name: str) -> bool:
        """Whether `name`, one of those able, may start a piece of work now."""
        if name not in self._able:
            return False
        others = [self._clock[other] for other in self._able if other != name]
        ahead = self._clock[name] + self._step[name] - min(others, default=float("inf"))
        return ahead <= self._slack[name] + 1e-9

    def started(self, name: str) -> None:
        """Counts a piece of work that `name` has started."""
        self._clock[name] += self._step[name]
