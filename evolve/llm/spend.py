"""Hard budgets for tokens and money: the worst case is reserved before anything is sent."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from evolve.llm.exchange import Usage


@dataclass(frozen=True, eq=False)
class Reservation:
    """The most that one request can take. Identity, not value, tells reservations apart."""

    tokens: int
    cost: float


@dataclass(frozen=True)
class Totals:
    """Spent so far and reserved by requests in flight; cost in USD."""

    requests: int
    tokens: int
    cost: float
    reserved_tokens: int
    reserved_cost: float


class Spend:
    """What a run has spent on models, and whether one more request fits.

    At any moment spent + reserved <= limit, so no number of requests in flight can exceed it; an
    endpoint that bills more than the request allowed is charged in full, and nothing fits any more.
    Thread-safe. A resumed run passes the usages of its recorded calls as `earlier`.
    """

    def __init__(
        self,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        earlier: Iterable[Usage] = (),
    ) -> None:
        self._max_cost = math.inf if max_cost is None else max_cost
        self._max_tokens = math.inf if max_tokens is None else max_tokens
        self._lock = threading.Lock()
        self._open: set[Reservation] = set()
        self._spent = Usage()
        self._requests = 0
        for usage in earlier:
            self._spent += usage

    def reserve(self, tokens: int, cost: float) -> Reservation | None:
        """Room for a request of at most so many tokens and USD; None when it does not fit now."""
        with self._lock:
            held_tokens, held_cost = self._held()
            if self._exceeds(held_tokens + tokens, held_cost + cost):
                return None
            reservation = Reservation(tokens, cost)
            self._open.add(reservation)
            return reservation

    def could_fit(self, tokens: int, cost: float) -> bool:
        """Whether it would fit if all requests in flight ended free of charge."""
        with self._lock:
            return not self._exceeds(tokens, cost)

    def limit(self, tokens: int, cost: float) -> str:
        """`tokens` or `cost`, whichever limit keeps such a request from ever fitting, or empty."""
        with self._lock:
            if self._spent.tokens + tokens > self._max_tokens:
                return "tokens"
            return "cost" if self._spent.cost + cost > self._max_cost else ""

    def settle(self, reservation: Reservation, usage: Usage) -> None:
        """Replaces a reservation by what was used. KeyError when it was settled before."""
        with self._lock:
            self._open.remove(reservation)
            self._spent += usage
            self._requests += 1

    def release(self, reservation: Reservation) -> None:
        """Gives a reservation back: nothing was sent. KeyError when it was settled before."""
        with self._lock:
            self._open.remove(reservation)

    @property
    def totals(self) -> Totals:
        with self._lock:
            tokens, cost = self._held()
            return Totals(self._requests, self._spent.tokens, self._spent.cost, tokens, cost)

    def _held(self) -> tuple[int, float]:
        # Summed anew each time: adding and subtracting would let rounding errors pile up.
        return sum(r.tokens for r in self._open), math.fsum(r.cost for r in self._open)

    def _exceeds(self, tokens: int, cost: float) -> bool:
        over_tokens = self._spent.tokens + tokens > self._max_tokens
        return over_tokens or self._spent.cost + cost > self._max_cost
