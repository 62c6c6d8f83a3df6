"""Runs with a model from the command line: nothing of its key is left, and Ctrl-C is quick."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from evolve.authors.calls import LOST, Calls
from evolve.exchanges import Exchanges
from evolve.store import FILE, Store
from tests.cli.conftest import SMALL, Evolve
from tests.cli.terminal import CTRL_C, Terminal, assert_all_end, wait_for
from tests.engine.authored import prompt_of, writes
from tests.llm import server
from tests.llm.server import ScriptedServer

KEY = "sk-planted-0123456789abcdef"
LLM = """
[llm]
batch = 0
backoff_s = 0.1
breaker_s = 0.2
breaker_max_s = 0.5

[[llm.models]]
name = "m"
base_url = "{url}"
key_env = "PLANTED_KEY"
output_price = 2.0
"""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)


@pytest.fixture
def slow_then_fine() -> Iterator[ScriptedServer]:
    script = [server.echoes_key(401), server.echoes_key(500), writes(after_s=0.3)]
    with ScriptedServer(script) as found:
        yield found


def started(folder: Path, url: str, *options: str) -> Terminal:
    settings = folder / "run.toml"
    settings.write_text(SMALL.replace("count = 2", "count = 1") + LLM.format(url=url))
    fixed = ("--config", str(settings), "--results", str(folder), "--name=run")
    return Terminal("run", *fixed, *options)


def test_a_key_is_nowhere_but_in_requests(
    tmp_path: Path, slow_then_fine: ScriptedServer, evolve: Evolve
) -> None:
    before = time.time()
    terminal = started(tmp_path, slow_then_fine.url, "--evaluations", "4")
    seen: set[int] = set()
    try:
        while terminal.process.poll() is None:
            for process in terminal.family() if terminal.process.poll() is None else []:
                if not (tmp_path / "run" / FILE).exists():
                    break  # the key leaves the environment before the run begins, not at once
                with suppress(psutil.Error, OSError):
                    assert KEY not in repr(process.environ()), process.cmdline()
                    seen.add(process.pid)
            assert time.time() - before < 180
            time.sleep(0.2)
        assert terminal.wait(5) == 0, terminal.screen[-3000:]
    finally:
        terminal.end()
    assert len(seen) > 5
    assert any(KEY in x.headers["authorization"] for x in slow_then_fine.requests)
    assert KEY not in terminal.screen
    exported = evolve("export", str(tmp_path / "run"), "--out", str(tmp_path / "exported"))
    assert exported.code == 0, exported.err
    assert (tmp_path / "exported" / "champion" / "solution.json").is_file()
    assert list((tmp_path / "exported" / "exchanges").glob("*.answer.md"))
    sessions = Path("/tmp/ray").glob("session_2*")
    folders = [tmp_path, *(s for s in sessions if s.stat().st_mtime >= before - 1)]
    for folder in folders:
        for file in folder.rglob("*"):
            with suppress(OSError):
                assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    facts = json.loads(evolve("status", str(tmp_path / "run"), "--json").out)["authors"]
    assert facts["exchanges"]["llm"] > 0
    assert facts["cost"] > 0
    assert facts["bandits"]["models"]["m"]["pulls"] > 0
    shown = evolve("status", str(tmp_path / "run")).out
    assert "spent" in shown
    assert "modes" in shown


def test_ctrl_c_ends_calls_at_once_and_says_what_is_left(tmp_path: Path) -> None:
    with ScriptedServer([server.hangs]) as hanging:
        terminal = started(tmp_path, hanging.url, "--evaluations", "4", "--search-only")
        try:
            wait_for(lambda: bool(hanging.requests), 90, "a request")
            family = terminal.family()
            terminal.press(CTRL_C)
            pressed = time.monotonic()
            assert terminal.wait(60) == 130, terminal.screen[-3000:]
            assert time.monotonic() - pressed < 45  # evaluations of the tuner in flight are awaited
            assert_all_end(family)
        finally:
            terminal.end()
    assert "have no answer yet; resume asks them again" in terminal.screen
    store = Store.open(tmp_path / "run", readonly=True)
    assert Exchanges(store).all()
    assert {call.end.how for call in Calls(store).all() if call.end} == {"CLOSED"}
    assert not Exchanges(store).answered()


def test_a_killed_run_pays_once_and_asks_again(tmp_path: Path, evolve: Evolve) -> None:
    with ScriptedServer([server.hangs] * 2 + [writes()]) as model:
        terminal = started(tmp_path, model.url, "--evaluations", "3", "--search-only")
        try:
            wait_for(lambda: len(model.requests) == 2, 90, "two requests")
            family = terminal.family()
            terminal.process.kill()
            assert_all_end(family)
        finally:
            terminal.end()
        run_dir = tmp_path / "run"
        first = [e.id for e in Exchanges(Store.open(run_dir, readonly=True)).all()]
        again = Terminal("resume", str(run_dir), "--search-only")
        try:
            assert again.wait(150) == 0, again.screen[-3000:]
        finally:
            again.end()
    store = Store.open(run_dir, readonly=True)
    lost = [c for c in Calls(store).all() if c.end and c.end.how == LOST]
    assert [c.about for c in lost] == first
    assert all(c.usage.cost == c.worst.cost > 0 for c in lost)
    sent = [prompt_of(x) for x in model.requests]
    prompts = {e.id: e.prompt for e in Exchanges(store).all()}
    assert [sent.count(prompts[name]) for name in first] == [2, 2]
    assert any(r.exchange in first for n in first for r in Exchanges(store).replies(n))
