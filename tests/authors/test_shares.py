"""Turns in proportion to shares, whoever is slow, away or back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.authors.shares import Shares


def serve(shares: Shares, able: list[str], turns: int) -> dict[str, int]:
    """Everybody able starts as soon as it may, in rounds."""
    counts = dict.fromkeys(able, 0)
    shares.able(able)
    for _ in range(turns):
        for name in able:
            if shares.may(name):
                shares.started(name)
                counts[name] += 1
    return counts


def test_work_is_in_proportion() -> None:
    shares = Shares({"a": 3.0, "b": 1.0}, {"a": 1, "b": 1})
    counts = serve(shares, ["a", "b"], 400)
    assert counts["a"] / counts["b"] == pytest.approx(3, rel=0.1)


def test_nobody_runs_ahead_of_a_slow_one_by_more_than_its_slack() -> None:
    shares = Shares({"fast": 1.0, "slow": 1.0}, {"fast": 4, "slow": 2})
    shares.able(["fast", "slow"])
    started = 0
    while shares.may("fast"):
        shares.started("fast")
        started += 1
    assert started == 4
    shares.started("slow")
    assert shares.may("fast")


def test_alone_one_may_always() -> None:
    shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
    assert serve(shares, ["a"], 50) == {"a": 50}
    shares.able([])
    assert not shares.may("a")


def test_what_was_missed_is_not_made_up() -> None:
    shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
    serve(shares, ["a"], 100)
    counts = serve(shares, ["a", "b"], 100)
    assert abs(counts["a"] - counts["b"]) <= 2


def test_all_come_back_where_the_last_ones_stopped() -> None:
    shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
    serve(shares, ["a"], 100)
    shares.able([])
    counts = serve(shares, ["b", "a"], 100)
    assert abs(counts["a"] - counts["b"]) <= 2


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 10), min_size=1),
    st.lists(st.sets(st.sampled_from("abcd")), min_size=1, max_size=30),
)
def test_somebody_able_may_always_start(weights: dict[str, float], times: list[set[str]]) -> None:
    shares = Shares(weights, dict.fromkeys(weights, 1))
    for names in times:
        able = sorted(names & set(weights))
        shares.able(able)
        may = [name for name in able if shares.may(name)]
        assert bool(may) == bool(able)
        for name in may:
            shares.started(name)


def test_a_share_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Shares({"a": 0.0}, {"a": 1})
