"""Sections of the configuration, keys, and the lock of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evolve.authors.keys import withdraw
from evolve.authors.settings import AgentSettings, command_of
from evolve.config import RunConfig, load, parse
from evolve.errors import UserError
from evolve.lock import sole_writer
from evolve.redaction import redact, secrets

MODEL = {"name": "m", "base_url": "https://example.org/v1", "key_env": "SOME_KEY"}


def made(**sections: Any) -> RunConfig:
    return parse({"operator": "matmul_bias_gelu", **sections})


def test_a_section_gets_a_share_unless_shares_are_given() -> None:
    assert made().islands.emitters == {"tuner": 0.7, "crossover": 0.3}
    assert made(llm={"models": [MODEL]}).islands.emitters["llm"] == 0.5
    both = made(llm={"models": [MODEL]}, agent={"command": "cat"}).islands.emitters
    assert both["llm"] == both["agent"] == 0.25
    assert sum(both.values()) == pytest.approx(1)
    given = made(llm={"models": [MODEL]}, islands={"emitters": {"llm": 1}}).islands.emitters
    assert given == {"llm": 1}


def test_shares_and_sections_go_together() -> None:
    with pytest.raises(UserError, match=r"emitter 'llm' needs a section \[llm\]"):
        made(islands={"emitters": {"llm": 1}})
    with pytest.raises(UserError, match=r"section \[agent\] needs a share"):
        made(agent={"command": "cat"}, islands={"emitters": {"tuner": 1}})
    with pytest.raises(UserError, match=r"unknown emitter 'lm', known: .*llm, agent"):
        made(islands={"emitters": {"lm": 1}})


def test_a_stored_configuration_reads_back() -> None:
    config = made(llm={"models": [MODEL], "max_cost": 2}, agent={"command": "a 'b c'"})
    assert parse(config.model_dump(mode="json", exclude_none=True)) == config
    assert config.agent is not None
    assert config.agent.command == ("a", "b c")


def test_limits_without_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"section \[llm\] needs a"):
        load(None, {"operator": "matmul_bias_gelu", "llm.max_cost": 3.0})
    file = tmp_path / "c.toml"
    file.write_text(
        'operator = "matmul_bias_gelu"\n[[llm.models]]\nname = "m"\n'
        'base_url = "http://127.0.0.1:8000/v1"\n'
    )
    config = load(file, {"llm.max_cost": 3.0, "llm.max_tokens": 5})
    assert config.llm is not None
    assert (config.llm.max_cost, config.llm.max_tokens) == (3.0, 5)


def test_a_command_that_is_not_there() -> None:
    settings = AgentSettings(command=("no-such-agent", "-p"))
    with pytest.raises(UserError, match=r"\[agent\] command 'no-such-agent' is not found"):
        command_of(settings, os.environ)


def test_keys_leave_the_environment() -> None:
    environ = {"SOME_KEY": "sk-0123456789", "PATH": "/bin"}
    assert withdraw(made(llm={"models": [MODEL]}), environ) == {"SOME_KEY": "sk-0123456789"}
    assert environ == {"PATH": "/bin"}
    with pytest.raises(UserError, match="SOME_KEY"):
        withdraw(made(llm={"models": [MODEL]}), environ)


def test_values_that_look_like_secrets_are_cut_out() -> None:
    environ = {"A_TOKEN": "0123456789", "B_KEY": "0123456789ab", "HOME": "/home/somebody"}
    found = secrets(environ)
    assert (
        redact("x 0123456789ab 0123456789 /home/somebody", found) == "x [key] [key] /home/somebody"
    )


def test_one_process_works_on_a_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evolve.lock import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="another process is working on"), sole_writer(tmp_path):
        pass
    other.kill()
    other.wait()
    with sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
