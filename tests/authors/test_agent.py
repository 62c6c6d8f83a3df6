"""A command as an author: what it gets, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evolve.authors.agent import Agent
from evolve.authors.settings import AgentSettings
from evolve.llm.exchange import Answer, Prompt, Reason, Refused

NAME = Path(sys.executable).name


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    """Makes agents of Python programs, closed with the test."""
    agents: list[Agent] = []

    def make(code: str, environ: dict[str, str] | None = None, **changes: Any) -> Agent:
        settings = AgentSettings(command=(sys.executable, "-c", code), **changes)
        agents.append(Agent(settings, {**os.environ, **(environ or {})}))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def asked(agent: Agent, text: str = "hello") -> Answer | Refused:
    return agent.send(Prompt(user=text), NAME).result(timeout=30)


def test_the_prompt_arrives_on_stdin_and_the_answer_comes_from_stdout(made: Any) -> None:
    text = "Größe\n" * 50_000
    agent = made("import sys; print(len(sys.stdin.read())); sys.stderr.write('noise ' * 9999)")
    outcome = asked(agent, text)
    assert isinstance(outcome, Answer)
    assert outcome.text.strip() == str(len(text))
    assert (outcome.model, outcome.usage.tokens) == (NAME, 0)


def test_it_runs_in_an_empty_folder_of_its_own_with_our_environment(made: Any) -> None:
    agent = made(
        "import json, os; print(json.dumps([os.getcwd(), os.listdir(), os.environ.get('MARK')]))",
        {"MARK": "here"},
        concurrency=2,
    )
    first, second = (json.loads(asked(agent).text) for _ in range(2))  # type: ignore[union-attr]
    assert first[0] != second[0] != os.getcwd()
    assert first[1:] == second[1:] == [[], "here"]
    assert not Path(first[0]).exists()


def test_secrets_of_the_environment_are_cut_out(made: Any) -> None:
    shows = "import os, sys; print(os.environ['MY_TOKEN']); {}"
    secret = {"MY_TOKEN": "tok-0123456789"}
    outcome = asked(made(shows.format("pass"), secret))
    assert isinstance(outcome, Answer)
    assert outcome.text.strip() == "[key]"
    failed = asked(made(shows.format("sys.exit('bad ' + os.environ['MY_TOKEN'])"), secret))
    assert isinstance(failed, Refused)
    assert failed.detail == "the command ended with 1: bad [key]"


def test_a_command_that_keeps_failing_rests(made: Any) -> None:
    agent = made("raise SystemExit(1)")
    for _ in range(3):
        assert agent.models()[NAME] == 0
        assert asked(agent).reason is Reason.SERVER_ERROR  # type: ignore[union-attr]
    assert agent.models()[NAME] > 20
    outcome = asked(agent)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.attempts) == (Reason.OUTAGE, 0)


def test_closing_ends_what_runs_and_what_waits(made: Any) -> None:
    agent = made("import time; time.sleep(60)", concurrency=1)
    futures = [agent.send(Prompt(user="x"), NAME) for _ in range(3)]
    time.sleep(0.3)
    started = time.monotonic()
    agent.close()
    assert time.monotonic() - started < 5
    assert {f.result().reason for f in futures} == {Reason.CLOSED}
    assert agent.send(Prompt(user="x"), NAME).result().reason is Reason.CLOSED


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    driver = (
        "import os, sys, time\nfrom evolve.authors.agent import Agent\n"
        "from evolve.authors.settings import AgentSettings\n"
        "from evolve.llm.exchange import Prompt\n"
        f"a = Agent(AgentSettings(command=(sys.executable, '-c', {code!r})), os.environ)\n"
        f"a.send(Prompt(user='x'), {NAME!r})\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", driver],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    agent = psutil.Process(int(pid.read_text()))
    parent.kill()
    parent.wait()
    while agent.is_running() and agent.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
