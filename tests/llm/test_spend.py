"""Budgets are hard whatever is in flight."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.llm.exchange import Usage
from evolve.llm.spend import Reservation, Spend

STEPS = st.lists(
    st.tuples(st.integers(0, 500), st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=40
)


@given(STEPS, st.integers(1, 2000), st.floats(0.1, 5))
def test_spent_and_reserved_never_exceed_a_limit(
    steps: list[tuple[int, float, float, bool]], max_tokens: int, max_cost: float
) -> None:
    spend = Spend(max_cost, max_tokens)
    held: list[Reservation] = []
    for tokens, cost, used, settle in steps:
        fits = spend.could_fit(tokens, cost)
        if reservation := spend.reserve(tokens, cost):
            assert fits
            held.append(reservation)
        if settle and held:
            oldest = held.pop(0)
            share = Usage(input_tokens=int(oldest.tokens * used), cost=oldest.cost * used)
            spend.settle(oldest, share)
        totals = spend.totals
        assert totals.tokens + totals.reserved_tokens <= max_tokens
        assert totals.cost + totals.reserved_cost <= max_cost + 1e-9


def test_threads_share_one_budget() -> None:
    spend = Spend(max_tokens=1000)
    taken: list[Reservation] = []

    def take() -> None:
        for _ in range(50):
            if reservation := spend.reserve(7, 0.0):
                taken.append(reservation)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1000 // 7
    for reservation in taken:
        spend.release(reservation)
    assert spend.totals.reserved_tokens == 0
    assert spend.reserve(1000, 0.0) is not None


def test_a_settlement_counts_once() -> None:
    spend = Spend()
    reservation = spend.reserve(10, 0.1)
    assert reservation is not None
    spend.settle(reservation, Usage(input_tokens=3, output_tokens=4, cost=0.05))
    with pytest.raises(KeyError):
        spend.release(reservation)
    assert (spend.totals.requests, spend.totals.tokens, spend.totals.cost) == (1, 7, 0.05)


def test_a_bill_above_the_reservation_is_charged_in_full_and_ends_it() -> None:
    spend = Spend(max_tokens=100)
    reservation = spend.reserve(50, 0.0)
    assert reservation is not None
    spend.settle(reservation, Usage(input_tokens=500))
    assert spend.totals.tokens == 500
    assert not spend.could_fit(0, 0.0)


def test_a_resumed_run_starts_with_what_it_spent() -> None:
    earlier = [Usage(input_tokens=30, cost=0.5), Usage(output_tokens=40, cost=0.4)]
    spend = Spend(max_cost=1.0, earlier=earlier)
    assert spend.totals.tokens == 70
    assert spend.reserve(1, 0.2) is None
    assert spend.reserve(1, 0.05) is not None


def test_rounding_does_not_pile_up() -> None:
    spend, rng = Spend(max_cost=1.0), np.random.default_rng(0)
    for _ in range(2000):
        reservation = spend.reserve(1, float(rng.random()) / 3)
        assert reservation is not None
        spend.release(reservation)
    assert spend.reserve(1, 1.0) is not None
