"""A command as an author: what it gets, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evolve.authors.agent import Agent, name_of
from evolve.authors.settings import AgentSettings
from evolve.llm.exchange import Answer, Prompt, Reason, Refused

NAME = Path(sys.executable).name
ROOT = Path(__file__).resolve().parents[2]


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


# -- what it leaves behind ------------------------------------------------------------------------

DAEMON = (
    "import subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True); "
    "open({pid!r}, 'w').write(str(p.pid)); "
)
"""Starts what no process group reaches, as an agent's shell does for a server."""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_processes_in_sessions_of_their_own_end_with_the_call(made: Any, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    outcome = asked(made(DAEMON.format(pid=str(pid)) + "print('done')"))
    assert isinstance(outcome, Answer)
    assert gone(int(pid.read_text()))


def test_the_deadline_ends_them_too_and_soon(made: Any, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    agent = made(DAEMON.format(pid=str(pid)) + deaf, deadline_s=1.5)
    started = time.monotonic()
    outcome = asked(agent)
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.DEADLINE
    assert time.monotonic() - started < 10
    assert gone(int(pid.read_text()))


def test_a_command_may_end_by_itself_when_its_time_is_over(made: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    agent = made(
        "import signal, sys, time\n"
        f"def bye(*_): open({str(kept)!r}, 'w').write('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n"
        "time.sleep(60)",
        deadline_s=1.5,
    )
    assert asked(agent).reason is Reason.DEADLINE  # type: ignore[union-attr]
    assert kept.read_text() == "saved"


def test_a_command_that_a_signal_ended_or_that_is_no_program_says_so(
    made: Any, tmp_path: Path
) -> None:
    killed = asked(made("import os; os.kill(os.getpid(), 9)"))
    assert isinstance(killed, Refused)
    assert "the command ended with 137" in killed.detail
    broken = tmp_path / "broken"
    broken.write_text("no program\n")
    broken.chmod(0o755)
    agent = Agent(AgentSettings(command=(str(broken),)), os.environ)
    outcome = agent.send(Prompt(user="x"), "broken").result(timeout=30)
    agent.close()
    assert isinstance(outcome, Refused)
    assert outcome.detail.endswith("the command cannot be started: Exec format error")


# -- what real agents print -----------------------------------------------------------------------


def test_the_documented_commands_are_what_they_seem() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (Claude Code|Codex|OpenCode) \| `(.+)` \|$", readme, re.MULTILINE)
    commands = {agent: AgentSettings(command=line).command for agent, line in rows}
    assert [name_of(command) for command in commands.values()] == ["claude", "codex", "opencode"]
    assert "" in commands["Claude Code"]  # no tools
    assert commands["Codex"][-1] == "-"  # the prompt is on stdin
    assert 'OPENCODE_PERMISSION={"*":"deny"}' in commands["OpenCode"]
    page = (ROOT / "docs" / "agents.md").read_text()
    cells = re.findall(r"`(command = .+)` \|$", page, re.MULTILINE)
    sections = [AgentSettings.model_validate(tomllib.loads(cell)) for cell in cells]
    assert [section.command for section in sections] == list(commands.values())


def test_what_an_agent_is_called() -> None:
    assert name_of(("/opt/bin/codex", "exec", "-")) == "codex"
    assert name_of(("env", 'OPENCODE_PERMISSION={"*":"deny"}', "A=b", "opencode", "run")) == (
        "opencode"
    )
    assert name_of(("env", "A=b")) == "env"


def test_colours_are_taken_out_of_answers_and_complaints(made: Any) -> None:
    coloured = (
        "\x1b[0m\n> build \x1b[1mmodel\x1b[0m\n\x1b]0;title\x07\x1b[91m\x1b[1mError: \x1b[0mno"
    )
    shown = asked(made(f"print({coloured!r})"))
    assert isinstance(shown, Answer)
    assert shown.text == "\n> build model\nError: no\n"
    failed = asked(made(f"import sys; sys.exit({coloured!r})"))
    assert isinstance(failed, Refused)
    assert failed.detail == "the command ended with 1: > build model Error: no"


def test_of_a_log_with_the_whole_prompt_the_end_says_why(made: Any) -> None:
    """Codex logs its settings, the prompt and all tool calls on stderr, and the reason last."""
    agent = made(
        "import sys; sys.stderr.write('user\\n' + sys.stdin.read() + '\\nERROR: wrong key\\n'); "
        "sys.exit(1)"
    )
    outcome = asked(agent, "a line of the prompt\n" * 5000)
    assert isinstance(outcome, Refused)
    assert outcome.detail.endswith("ERROR: wrong key")
    assert len(outcome.detail) <= 400


def test_a_reason_on_stdout_is_told_too(made: Any) -> None:
    """Claude Code says on stdout that nobody is logged in."""
    outcome = asked(made("print('Not logged in'); raise SystemExit(1)"))
    assert isinstance(outcome, Refused)
    assert outcome.detail == "the command ended with 1: Not logged in"


def test_no_rest_of_a_key_is_kept_where_a_complaint_is_cut(made: Any) -> None:
    secret = {"MY_TOKEN": "tok-" + "0123456789" * 3}
    # Of so many spaces and a word the end is read from the middle of the key on.
    code = "import os, sys; sys.exit(os.environ['MY_TOKEN'] + ' ' * 6380 + 'end')"
    outcome = asked(made(code, secret))
    assert isinstance(outcome, Refused)
    assert outcome.detail == "the command ended with 1: end"
