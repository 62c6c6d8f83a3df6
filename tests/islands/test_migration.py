"""The ring: who sends to whom, and when."""

from __future__ import annotations

import pytest

from islands.migration import Ring


def test_due_every_interval() -> None:
    ring = Ring(islands=3, interval=5)
    assert [n for n in range(16) if ring.due(n)] == [5, 10, 15]


def test_everyone_sends_and_everyone_receives() -> None:
    ring = Ring(islands=3, interval=5)
    assert ring.targets() == ((0, 1), (1, 2), (2, 0))
    assert [ring.target(k) for k in range(3)] == [1, 2, 0]


def test_a_lone_island_never_migrates() -> None:
    ring = Ring(islands=1, interval=5)
    assert not any(ring.due(n) for n in range(20))
    assert ring.targets() == ()


@pytest.mark.parametrize(("islands", "interval"), [(0, 5), (3, 0), (3, -1)])
def test_bad_numbers_are_refused(islands: int, interval: int) -> None:
    with pytest.raises(ValueError, match="ring"):
        Ring(islands, interval)
