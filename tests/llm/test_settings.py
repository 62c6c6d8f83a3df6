"""The `[llm]` section: what it takes, what it refuses, and that it holds no secret."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evolve.llm.settings import LlmSettings

ROOT = Path(__file__).resolve().parents[2]
MODEL: dict[str, Any] = {"name": "m", "base_url": "https://host/v1"}


def test_a_section_reads_from_toml() -> None:
    text = """
    [llm]
    concurrency = 8
    max_cost = 2.5
    [[llm.models]]
    name = "large"
    base_url = "https://api.example.com/v1"
    key_env = "EXAMPLE_KEY"
    input_price = 3.0
    output_price = 15.0
    [[llm.models]]
    name = "local"
    base_url = "http://127.0.0.1:8080/v1"
    """
    settings = LlmSettings.model_validate(tomllib.loads(text)["llm"])
    assert [model.name for model in settings.models] == ["large", "local"]
    assert settings.models[0].cost(1_000_000, 100_000) == pytest.approx(4.5)
    assert settings.models[1].cost(10**9, 10**9) == 0.0


@pytest.mark.parametrize(
    "bad",
    [
        {"models": []},
        {"models": [MODEL, MODEL]},
        {"models": [MODEL], "unknown": 1},
        {"models": [{**MODEL, "key": "sk-1"}]},
        {"models": [{**MODEL, "weight": 0}]},
        {"models": [{**MODEL, "input_price": -1}]},
        {"models": [{**MODEL, "key_env": "sk-not-a-name"}]},
        {"models": [{**MODEL, "base_url": "host/v1"}]},
        {"models": [{**MODEL, "base_url": "https://host:port/v1"}]},
        {"models": [{**MODEL, "base_url": "https://host/v1?key=abc"}]},
        {"models": [{**MODEL, "extra": {"n": 4}}]},
        {"models": [{**MODEL, "extra": {"max_tokens": 10**6}}]},
        {"models": [MODEL], "deadline_s": 0},
        {"models": [MODEL], "max_cost": 0},
    ],
)
def test_what_cannot_work_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LlmSettings.model_validate(bad)


def test_a_password_in_an_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError) as raised:
        LlmSettings.model_validate({"models": [{**MODEL, "base_url": "https://u:pass@host/v1"}]})
    assert "pass@" not in raised.value.errors()[0]["msg"]


def test_reading_the_section_loads_no_client() -> None:
    code = "import sys, evolve.llm.settings, evolve.llm.diff; print('openai' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
