"""Calls in the store: worst case first, usage after, nothing forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolve.authors.calls import (
    ANSWERED,
    LOST,
    SENDS,
    Call,
    Calls,
    Ending,
    Purpose,
    may_be_sent_again,
)
from evolve.llm.exchange import Answer, Reason, Refused, Usage
from evolve.store import Store

WORST = Usage(input_tokens=1000, output_tokens=500, cost=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run", {"operator": "toy"})


def call(about: str = "0000-diff-000000", model: str = "m", **changes: object) -> Call:
    return Call(about=about, emitter="llm", model=model, worst=WORST, **changes)  # type: ignore[arg-type]


def ended(*hows: str) -> list[Call]:
    return [call(end=Ending(how=how)) for how in hows]


def test_an_open_call_is_charged_its_worst_case_and_a_closed_one_its_usage(store: Store) -> None:
    calls = Calls(store)
    number = calls.open(call())
    assert calls.usages() == [WORST]
    used = Usage(input_tokens=10, output_tokens=5, cost=0.01)
    calls.close(number, call(), Answer(model="m", text="x", usage=used, attempts=2, seconds=1.5))
    assert calls.usages() == [used]
    (kept,) = calls.all()
    assert kept.end == Ending(
        how=ANSWERED, detail="finish: stop", usage=used, requests=2, seconds=1.5
    )


def test_a_refused_call_keeps_its_reason(store: Store) -> None:
    calls = Calls(store)
    number = calls.open(call(purpose=Purpose.PLAN))
    refused = Refused(model="m", reason=Reason.SERVER_ERROR, detail="HTTP 500", attempts=4)
    calls.close(number, call(purpose=Purpose.PLAN), refused)
    (kept,) = calls.of("0000-diff-000000")
    assert kept.end is not None
    assert (kept.purpose, kept.end.how, kept.end.detail) == (
        Purpose.PLAN, "SERVER_ERROR", "HTTP 500",
    )  # fmt: skip
    assert calls.usages() == [Usage()]


def test_lost_calls_are_closed_at_their_worst(store: Store) -> None:
    calls = Calls(store)
    calls.open(call())
    assert Calls(store).close_lost() == 1
    assert calls.close_lost() == 0
    (kept,) = calls.all()
    assert kept.end is not None
    assert kept.end.how == LOST
    assert kept.usage == WORST.model_copy(update={"estimated": True})


def test_sums_by_model(store: Store) -> None:
    calls = Calls(store)
    for model, how in (("a", "ok"), ("b", "no"), ("a", "ok")):
        number = calls.open(call(model=model))
        used = Usage(input_tokens=1, output_tokens=1, cost=0.25)
        if how == "ok":
            outcome = Answer(model=model, text="x", usage=used, attempts=1, seconds=0)
            calls.close(number, call(model=model), outcome)
        else:
            calls.close(number, call(model=model), Refused(model=model, reason=Reason.TIMEOUT))
    calls.open(call(model="b"))
    a, b = calls.totals()
    assert (a.model, a.calls, a.answered, a.tokens, a.cost, a.open) == ("a", 2, 2, 4, 0.5, 0)
    assert (b.calls, b.answered, b.open, b.ends) == (2, 0, 1, {"TIMEOUT": 1})
    assert calls.charged() == {"0000-diff-000000": ("b", 0.5 + WORST.cost)}


def test_a_run_without_the_table_reads_as_without_calls(store: Store) -> None:
    run_dir = store.run_dir
    store.close()
    calls = Calls(Store.open(run_dir, readonly=True))
    assert (calls.all(), calls.of("x"), calls.charged(), calls.totals()) == ([], [], {}, [])


@pytest.mark.parametrize(
    ("hows", "again"),
    [
        ((), True),
        (("OUTAGE", "CLOSED", "BUDGET") * 3, True),
        (("TIMEOUT",) * (SENDS - 1), True),
        (("TIMEOUT",) * SENDS, False),
        ((LOST,) * (SENDS - 1), True),
        ((LOST, "DEADLINE", "SERVER_ERROR"), False),
        (("EMPTY",), False),
        (("BAD_REQUEST",), False),
        ((ANSWERED,), False),
    ],
)
def test_what_is_sent_again(hows: tuple[str, ...], again: bool) -> None:
    assert may_be_sent_again(ended(*hows)) is again
