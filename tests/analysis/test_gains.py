import math

import pandas as pd
import pytest

from analysis import frames, gains


def course(rows):
    return gains.course(frames.evaluations(rows))


HISTORY = [
    {"score": 1.0, "kind": "seed", "emitter": "seed"},
    {"score": 1.5, "emitter": "mailbox"},
    {"score": 1.2},
    {"score": None},
    {"score": 1.8},
    {"score": 1.6, "epoch": 1, "kind": "remeasure"},
    {"score": 1.4, "epoch": 1, "kind": "remeasure", "emitter": "mailbox"},
    {"score": 1.7, "epoch": 1},
    {"score": 2.0, "epoch": 1, "emitter": "mailbox"},
]


@pytest.fixture
def table(row):
    return course([row(i, **facts) for i, facts in enumerate(HISTORY, 1)])


def test_gains_are_summed_within_epochs(table):
    found = gains.by(table, table["emitter"])
    assert set(found.index) == {"mailbox", "tuner"}
    assert found.loc["mailbox", "gain"] == pytest.approx(math.log(1.5) + math.log(2.0 / 1.7))
    assert found.loc["tuner", "gain"] == pytest.approx(math.log(1.8 / 1.5) + math.log(1.7 / 1.6))
    assert list(found["evaluated"]) == [2, 4]
    assert list(found["passed"]) == [2, 3]
    assert list(found["best"]) == pytest.approx([2.0, 1.8])


def test_numbers_are_those_that_the_budget_counts(table):
    assert list(table["number"]) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    found = gains.by(table, table["emitter"])
    assert list(found["last_improvement"]) == [8, 7]


def test_a_duplicate_and_a_seed_gain_nothing(row):
    rows = [
        row(1, 1.0, kind="seed", emitter="seed"),
        row(2, None, kind="duplicate", status="DUPLICATE"),
        row(3, 1.0),
    ]
    table = course(rows)
    assert list(table["gain"]) == [0, 0, 0]
    assert list(table["number"]) == [0, 0, 1]
    found = gains.by(table, table["emitter"])
    assert list(found["evaluated"]) == [1]
    assert pd.isna(found.loc["tuner", "last_improvement"])


def test_a_run_without_searched_programs_has_no_rows(row):
    table = course([row(1, 1.0, kind="seed", emitter="seed")])
    assert gains.by(table, table["emitter"]).empty
