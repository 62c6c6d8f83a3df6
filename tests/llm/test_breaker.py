"""The breaker by its own clock."""

from __future__ import annotations

import pytest

from evolve.llm.breaker import LONGEST_HOLD_S, Breaker, State


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock) -> Breaker:
    return Breaker(3, 10.0, 35.0, clock)


def fail(subject: Breaker, times: int) -> None:
    for _ in range(times):
        assert subject.allow()
        subject.failure()


def test_it_opens_after_failures_in_a_row_only(clock: Clock) -> None:
    subject = breaker(clock)
    fail(subject, 2)
    assert subject.allow()
    subject.success()
    fail(subject, 2)
    assert (subject.state, subject.pause_left) == (State.CLOSED, 0.0)
    fail(subject, 1)
    assert (subject.state, subject.pause_left) == (State.OPEN, 10.0)
    assert not subject.allow()


def test_each_failed_probe_doubles_the_pause_up_to_the_longest(clock: Clock) -> None:
    subject = breaker(clock)
    fail(subject, 3)
    pauses = []
    for _ in range(4):
        clock.now += subject.pause_left
        assert subject.allow()
        assert subject.state is State.HALF_OPEN
        assert not subject.allow()
        subject.failure()
        pauses.append(subject.pause_left)
    assert pauses == [20.0, 35.0, 35.0, 35.0]


def test_a_probe_that_succeeds_closes_it_and_forgets_the_pauses(clock: Clock) -> None:
    subject = breaker(clock)
    fail(subject, 3)
    clock.now += 10.0
    fail(subject, 1)
    clock.now += 20.0
    assert subject.allow()
    subject.success()
    fail(subject, 3)
    assert subject.pause_left == 10.0


def test_a_probe_without_verdict_lets_the_next_one_through(clock: Clock) -> None:
    subject = breaker(clock)
    fail(subject, 3)
    clock.now += 10.0
    assert subject.allow()
    subject.abandon()
    assert subject.allow()


def test_failures_of_requests_sent_before_it_opened_change_nothing(clock: Clock) -> None:
    subject = breaker(clock)
    assert all(subject.allow() for _ in range(5))
    for _ in range(5):
        subject.failure()
    assert subject.pause_left == 10.0


def test_a_hold_is_kept_and_bounded(clock: Clock) -> None:
    subject = breaker(clock)
    subject.hold(50.0)
    subject.hold(5.0)
    assert subject.pause_left == 50.0
    clock.now += 50.0
    assert subject.allow()
    subject.hold(1e9)
    assert subject.pause_left == LONGEST_HOLD_S
