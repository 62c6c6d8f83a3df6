"""Searches whose programs come from models and agents: budgets, interruption, secrets."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evolve import mailbox
from evolve.authors.calls import ANSWERED
from evolve.errors import UserError
from evolve.exchanges import Verdict
from evolve.llm.exchange import Usage
from evolve.lock import sole_writer
from tests.engine.authored import (
    Search,
    Serve,
    agent,
    asked,
    by_emitter,
    calls,
    config,
    edit,
    how,
    model,
    prompt_of,
    replies,
    run_agents,
    with_agent,
    writes,
)
from tests.llm import server

KEY = "sk-planted-0123456789abcdef"


# -- programs -------------------------------------------------------------------------------------


def test_a_model_alone_spends_the_budget(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes())
    search = Search(tmp_path / "run", config(model(there.url, output_price=3.0), evaluations=8))
    assert search.run() == "budget"
    assert by_emitter(search) == {"llm": 8, "seed": 1}
    assert len(asked(search)) == len(there.requests) == 8
    assert all(r.verdict is Verdict.QUEUED and r.model == "m" for r in replies(search))
    assert how(search) == {ANSWERED: 8}
    assert all(
        c.usage == Usage(input_tokens=20, output_tokens=10, cost=3e-5) for c in calls(search)
    )
    programs = {p.id: p for p in search.store.programs()}
    for exchange, reply in zip(asked(search), replies(search), strict=True):
        program = programs[reply.program or ""]
        assert program.parents == exchange.parents
        assert program.island == exchange.island
        assert program.note.startswith(f"{exchange.mode.value}: function number")


def test_prompts_are_stored_as_they_were_sent(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes())
    search = Search(tmp_path / "run", config(model(there.url), evaluations=4))
    search.run()
    assert sorted(e.prompt for e in asked(search)) == sorted(prompt_of(x) for x in there.requests)


def test_an_unusable_answer_is_returned_once_with_the_reason(tmp_path: Path, serve: Serve) -> None:
    def second_is_usable(prompt: str) -> str:
        return edit(prompt) if "could not be used" in prompt else "CHANGE: none\n\nno idea"

    there = serve(writes(text=second_is_usable))
    search = Search(tmp_path / "run", config(model(there.url), evaluations=3))
    assert search.run() == "budget"
    verdicts = [(r.attempt, r.verdict) for r in replies(search)]
    assert verdicts == [(1, Verdict.UNREADABLE), (2, Verdict.QUEUED)] * 3
    second = next(prompt_of(x) for x in there.requests if "could not be used" in prompt_of(x))
    assert "no idea" in second
    assert replies(search)[0].reason in second


def test_staleness_is_recorded(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes(after_s=0.4))
    settings = config(
        model(there.url),
        evaluations=12,
        shares={"llm": 0.5, "tuner": 0.5},
        llm={"concurrency": 3},
    )
    search = Search(tmp_path / "run", settings)
    search.run()
    rows = list(search.store.evaluations())
    late = [r.staleness for r in replies(search)]
    assert all(s is not None and 0 <= s <= len(rows) for s in late)
    assert any(late), "the tuner went on while the model wrote"
    assert [e.told for e in asked(search)] == sorted(e.told for e in asked(search))


# -- limits ---------------------------------------------------------------------------------------


def test_the_search_ends_when_tokens_are_used_up_and_says_so(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes(inputs=10_000))
    worst = 60_000  # of one prompt: a token a byte, and the longest answer
    settings = config(model(there.url), evaluations=500, llm={"max_tokens": 2 * worst})
    search = Search(tmp_path / "run", settings)
    assert search.run() == "tokens"
    assert 0 < sum(c.usage.tokens for c in calls(search)) <= 2 * worst
    assert search.store.pending() == []
    assert any("max_tokens is reached" in line for line in search.said)


def test_the_others_go_on_when_the_money_is_spent(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes())
    settings = config(
        model(there.url, output_price=1000.0),  # 10 tokens cost 0.01; at worst 500 cost 0.50
        evaluations=60,
        shares={"llm": 1.0, "tuner": 1.0},
        llm={"max_cost": 0.53, "concurrency": 1},
    )
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    assert sum(c.usage.cost for c in calls(search)) <= 0.53
    assert by_emitter(search)["llm"] == 4
    assert by_emitter(search)["tuner"] == 56
    assert any("max_cost is reached" in line for line in search.said)


# -- stopping and going on ------------------------------------------------------------------------


def test_stopping_cancels_calls_at_once_and_a_resumed_run_asks_them_again(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(*[server.hangs] * 3, writes())
    settings = config(model(there.url), evaluations=4, llm={"concurrency": 3})
    search = Search(tmp_path / "run", settings)
    stopped: list[float] = []

    def stop(engine: Any) -> None:
        if len(there.requests) == 3 and not stopped:
            stopped.append(time.monotonic())
            engine.stop()

    search.watch = stop
    assert search.run() == "interrupted"
    assert time.monotonic() - stopped[0] < 3
    assert how(search) == {"CLOSED": 3}
    first = [e.id for e in asked(search)]
    assert len(first) == 3
    assert replies(search) == []

    assert search.run() == "budget"
    assert [e.id for e in asked(search)][:3] == first
    assert {r.exchange for r in replies(search)} >= set(first)
    assert Counter(prompt_of(x) for x in there.requests)[asked(search)[0].prompt] == 2


def test_the_mailbox_is_refused_while_a_search_runs(tmp_path: Path, serve: Serve) -> None:
    search = Search(tmp_path / "run", config(model(serve(writes()).url), evaluations=1))
    search.run()
    (tmp_path / "mail").mkdir()
    with sole_writer(search.run_dir):
        with pytest.raises(UserError, match="another process is working"):
            mailbox.ask(search.run_dir, 1, tmp_path / "mail", None, 8000)
        with pytest.raises(UserError, match="another process is working"):
            mailbox.tell(search.run_dir, tmp_path / "mail")
    assert len(mailbox.ask(search.run_dir, 1, tmp_path / "mail", None, 8000)) == 1


# -- agents ---------------------------------------------------------------------------------------


def test_a_command_writes_programs(tmp_path: Path) -> None:
    search = Search(tmp_path / "run", with_agent(tmp_path))
    assert run_agents(search) == "budget"
    assert by_emitter(search) == {"agent": 4, "seed": 1}
    assert {e.emitter for e in asked(search)} == {"agent"}
    assert {c.model for c in calls(search)} == {Path(sys.executable).name}


def test_what_a_command_has_learned_is_in_later_prompts(tmp_path: Path) -> None:
    told = "one more function costs nothing at all"
    settings = with_agent(tmp_path, f"print('INSIGHT: {told}')", evaluations=5, concurrency=1)
    search = Search(tmp_path / "run", settings)
    assert run_agents(search) == "budget"
    first, *later = [exchange.prompt for exchange in asked(search)]
    assert told not in first
    assert told in later[-1]
    assert not search.store.connection.execute("SELECT * FROM consultations").fetchall()


# -- secrets --------------------------------------------------------------------------------------


def test_keys_are_nowhere_in_the_run(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that repeat the key, answers that repeat it, an agent that prints what it sees."""
    import zlib

    from evolve.authors.keys import withdraw

    said = serve(
        server.echoes_key(401), server.echoes_key(500), writes(text=lambda p: KEY + edit(p))
    )
    shows = "sys.stderr.write(repr(dict(os.environ))); print(dict(os.environ)); time.sleep(1)"
    settings = config(
        model(said.url, key_env="PLANTED_KEY"),
        evaluations=8,
        shares={"llm": 0.5, "agent": 0.5},
        agent=agent(tmp_path, shows),
        llm={"breaker_max_s": 0.2, "breaker_s": 0.1, "batch": 2},
    )
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setenv("OTHER_API_KEY", KEY[::-1])
    keys = withdraw(settings, os.environ)
    assert "PLANTED_KEY" not in os.environ
    search = Search(tmp_path / "run", settings)
    assert search.run(keys=keys, environ=dict(os.environ)) == "budget"
    assert by_emitter(search)["llm"] > 0
    assert by_emitter(search)["agent"] > 0
    assert any(KEY in x.headers["authorization"] for x in said.requests)

    texts = [*search.said, *(p.authors for p in search.seen)]
    store = search.store
    for (table,) in list(store.connection.execute("SELECT name FROM sqlite_master")):
        if table.startswith("sqlite_") or "_by_" in table:
            continue
        for row in store.connection.execute(f"SELECT * FROM {table}"):
            texts += [_text(value, zlib) for value in row]
    assert any("[key]" in text for text in texts)
    for secret in (KEY, KEY[::-1]):
        assert not any(secret in text for text in texts)
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert secret.encode() not in file.read_bytes(), file


def _text(value: object, zlib: Any) -> str:
    if isinstance(value, bytes):
        return str(zlib.decompress(value).decode())
    return str(value)
