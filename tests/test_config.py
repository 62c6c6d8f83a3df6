"""Run configuration: TOML and options together, unknown keys refused, everything frozen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from evolve.config import RETIRED, RunConfig, current, load, parse
from evolve.emitters import EMITTERS
from evolve.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('operator = "from_file"\nseed = 3\n[budget]\nevaluations = 9\ntime_s = 60\n')
    overrides = {"operator": "given", "budget.evaluations": 20, "device": None}
    found = load(file, overrides)
    assert found.operator == "given"
    assert found.budget.evaluations == 20
    assert found.budget.time_s == 60
    assert found.seed == 3
    assert found.device == "auto"


def test_options_alone() -> None:
    found = load(None, {"operator": "x", "islands.count": 5, "languages": ["cpp", "triton"]})
    assert found.islands.count == 5
    assert [language.value for language in found.languages] == ["cpp", "triton"]


@given(
    evaluations=st.integers(1, 10**6),
    time_s=st.none() | st.floats(0.1, 1e6),
    count=st.integers(1, 64),
    shares=st.dictionaries(st.sampled_from(sorted(EMITTERS)), st.floats(0.01, 9.0), min_size=1),
    workloads=st.none() | st.integers(1, 100),
    seed=st.integers(0, 2**31),
)
def test_a_configuration_survives_the_store(
    evaluations: int,
    time_s: float | None,
    count: int,
    shares: dict[str, float],
    workloads: int | None,
    seed: int,
) -> None:
    made = parse(
        {
            "operator": "x",
            "seed": seed,
            "budget": {"evaluations": evaluations, "time_s": time_s},
            "islands": {"count": count, "emitters": shares},
            "epochs": {"workloads": workloads},
        }
    )
    assert parse(made.model_dump(mode="json", exclude_none=True)) == made


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "name an operator"),
        ({"operator": "x", "sead": 1}, "unknown config key 'sead'"),
        ({"operator": "x", "islands": {"size": 1}}, "unknown config key 'islands.size'"),
        ({"operator": "x", "evaluator": {"slot": 1}}, "unknown config key 'evaluator.slot'"),
        ({"operator": "x", "islands": {"count": 0}}, "config key 'islands.count'"),
        ({"operator": "x", "islands": {"emitters": {}}}, "at least one emitter"),
        ({"operator": "x", "islands": {"emitters": {"tuner": 0}}}, "'tuner' needs a positive"),
        ({"operator": "x", "islands": {"emitters": {"gpt": 1}}}, "unknown emitter 'gpt', known: "),
        ({"operator": "x", "epochs": {"evaluations": 0}}, "config key 'epochs.evaluations'"),
        ({"operator": "x", "device": "tpu"}, "config key 'device'"),
        ({"operator": "x", "seed": -1}, "config key 'seed'"),
        ({"operator": "x", "in_flight": 0}, "config key 'in_flight'"),
        ({"operator": "x", "budget": 5}, "config key 'budget'"),
    ],
)
def test_refused_in_one_line_that_names_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        parse(data)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("section", "key"), RETIRED)
def test_a_stored_run_may_hold_keys_that_are_gone(section: str, key: str) -> None:
    stored = {"operator": "x", section: {key: 1.0}, "seed": 3}
    assert parse(current(stored)).seed == 3
    assert stored[section] == {key: 1.0}
    with pytest.raises(UserError, match=f"unknown config key '{section}.{key}'"):
        parse(stored)


def test_a_scalar_where_a_table_belongs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("budget = 3\n")
    with pytest.raises(UserError, match="'budget"):
        load(file, {"operator": "x", "budget.evaluations": 4})


def test_frozen() -> None:
    config = parse({"operator": "x"})
    with pytest.raises(ValidationError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.budget.evaluations = 1  # type: ignore[misc]


def fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind)
        else:
            yield name


@pytest.mark.parametrize("name", sorted(set(fields(RunConfig))))
def test_every_setting_is_read_by_code(name: str) -> None:
    files = [*(ROOT / "evolve").rglob("*.py"), *(ROOT / "evaluators").rglob("*.py")]
    read = {
        node.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert name in read
