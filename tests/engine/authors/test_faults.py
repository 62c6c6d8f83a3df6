"""Faults of models and agents in whole searches: none costs budget, blocks, or ends the run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from evolve.authors.calls import ANSWERED, LOST, Call, Calls
from evolve.authors.commissions import standing
from evolve.authors.desk import DENIALS
from evolve.exchanges import Verdict
from evolve.llm.exchange import Usage
from tests.engine.authored import (
    Search,
    Serve,
    alive,
    asked,
    by_emitter,
    calls,
    config,
    how,
    model,
    replies,
    run_agents,
    with_agent,
    writes,
)
from tests.llm import server
from tests.llm.server import Behaviour, answers

KEY = "sk-planted-0123456789abcdef"


# -- programs -------------------------------------------------------------------------------------


def test_answers_that_are_never_usable_end_the_search_and_cost_no_evaluation(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(answers("I cannot help with that."))
    search = Search(tmp_path / "run", config(model(there.url), llm={"patience": 3}))
    assert search.run() == "exhausted"
    assert search.store.counts()["search"] == 0
    assert 3 <= len(asked(search)) <= 3 + 4
    assert any("3 exchanges in a row gave no new program" in line for line in search.said)


def test_the_same_answer_again_is_a_duplicate_and_is_not_evaluated_again(
    tmp_path: Path, serve: Serve
) -> None:
    same = (
        "<<<<<<< SEARCH\n#include <cmath>\n=======\n#include <cmath>\nint extra();\n>>>>>>> REPLACE"
    )
    settings = config(
        model(serve(writes(text=lambda prompt: same)).url),
        llm={"patience": 2, "concurrency": 1},
    )
    search = Search(tmp_path / "run", settings)
    assert search.run() == "exhausted"
    assert (
        by_emitter(search)["llm"] <= 2
    )  # the seed's child, and the child's where that is a parent
    assert Verdict.DUPLICATE in {r.verdict for r in replies(search)}


def test_programs_of_an_ended_epoch_wait_for_the_next(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes(after_s=0.05))
    settings = config(model(there.url), evaluations=40, epochs={"evaluations": 6})
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    counts = search.store.counts()
    assert counts["search"] + counts["remeasure"] == 40
    assert counts["epoch"] >= 2


# -- models and modes -----------------------------------------------------------------------------


def test_the_model_that_gives_nothing_is_asked_less_and_its_state_is_shown(
    tmp_path: Path, serve: Serve
) -> None:
    good, bad = serve(writes()), serve(answers("no"))
    settings = config(
        model(good.url, name="good"), model(bad.url, name="bad"), evaluations=20,
        llm={"concurrency": 1},
    )  # fmt: skip
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    arms = standing(search.store, settings)["models"]
    assert arms["good"].pulls > 2 * arms["bad"].pulls
    assert arms["good"].rewards > arms["bad"].rewards == 0
    # An exchange in flight when the budget is reached is not settled.
    assert sum(arm.pulls for arm in arms.values()) <= len(asked(search))


# -- limits ---------------------------------------------------------------------------------------


def test_a_call_lost_with_its_process_is_charged_its_worst_case(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(writes())
    dear = model(there.url, output_price=1000.0)
    search = Search(tmp_path / "run", config(dear, evaluations=1))
    search.run()
    from evolve.store import Store

    store = Store.open(search.run_dir)
    worst = Usage(input_tokens=100, output_tokens=500, cost=0.5)
    Calls(store).open(Call(about="0000-diff-000000", emitter="llm", model="m", worst=worst))
    store.close()
    search.config = config(dear, evaluations=50, llm={"max_cost": 0.9})
    assert search.run() == "cost"
    assert how(search)[LOST] == 1
    assert by_emitter(search)["llm"] == 1


# -- faults ---------------------------------------------------------------------------------------


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "429": (server.fails(429), "RATE_LIMITED"),
    "429-retry-after": (server.fails(429, retry_after="0.1"), "RATE_LIMITED"),
    "500": (server.fails(500), "SERVER_ERROR"),
    "hang": (server.hangs, "DEADLINE"),
    "slow-stream": (server.drips, "DEADLINE"),
    "truncated-json": (server.truncated_event, "MALFORMED"),
    "empty": (answers(""), "EMPTY"),
    "wrong-role": (server.says("user", "hello"), "WRONG_ROLE"),
    "huge": (server.floods, "TOO_LARGE"),
    "wrong-key": (server.echoes_key(401), "WRONG_KEY"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_no_evaluation_and_the_run_goes_on(
    tmp_path: Path, serve: Serve, fault: str
) -> None:
    """Three faulty requests, then a service in order: every call is accounted, all budget spent."""
    behaviour, reason = FAULTS[fault]
    there = serve(behaviour, behaviour, behaviour, writes())
    settings = config(
        model(there.url, key_env="PLANTED_KEY"),
        evaluations=5,
        llm={
            "deadline_s": 0.6, "stall_s": 0.3, "attempts": 1, "breaker_failures": 2,
            "breaker_s": 0.2, "breaker_max_s": 0.4, "max_answer_bytes": 8192, "concurrency": 2,
        },
        budget={"evaluations": 5, "time_s": 30.0},
    )  # fmt: skip
    search = Search(tmp_path / "run", settings)
    started = time.monotonic()
    assert search.run(keys={"PLANTED_KEY": KEY}) == "budget"
    assert time.monotonic() - started < 15
    assert by_emitter(search) == {"llm": 5, "seed": 1}
    ends = how(search)
    assert ends[ANSWERED] == 5
    assert set(ends) <= {ANSWERED, reason, "OUTAGE", "CLOSED", "TIMEOUT"}
    assert ends[reason] + ends["TIMEOUT"] >= 1
    assert sum(c.end.requests for c in calls(search) if c.end) == len(there.requests)
    assert not any(c.usage.tokens for c in calls(search) if c.end and c.end.how == "OUTAGE")


def test_an_outage_leaves_the_tuner_working_and_asks_again_after_it(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(*[server.fails(503)] * 3, writes())
    settings = config(
        model(there.url),
        evaluations=60,
        shares={"llm": 1.0, "tuner": 1.0},
        llm={
            "attempts": 1, "breaker_failures": 2, "breaker_s": 1.2, "breaker_max_s": 1.3,
            "concurrency": 1,
        },
    )  # fmt: skip
    search = Search(tmp_path / "run", settings, delay_s=0.05)
    assert search.run() == "budget"
    assert by_emitter(search)["tuner"] > 30  # more than its share: it had the outage for itself
    assert by_emitter(search)["llm"] > 3
    assert any("llm rests for" in line and "SERVER_ERROR" in line for line in search.said)


def test_without_other_emitters_an_outage_lasts_until_the_time_is_up(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(server.fails(500))
    settings = config(
        model(there.url),
        budget={"evaluations": 50, "time_s": 2.0},
        llm={"attempts": 1, "breaker_failures": 1, "breaker_s": 60.0},
    )
    search = Search(tmp_path / "run", settings)
    assert search.run() == "time"
    assert search.store.counts()["search"] == 0
    assert len(there.requests) <= 4
    assert any("rests" in line for line in search.said)


def test_a_model_that_nobody_can_ask_ends_alone_and_early(tmp_path: Path, serve: Serve) -> None:
    """A wrong name: few prompts are stored, and the reason is said."""
    there = serve(server.fails(404, "no such model"))
    search = Search(tmp_path / "run", config(model(there.url), evaluations=50))
    assert search.run() == "exhausted"
    assert set(how(search)) <= {"BAD_REQUEST", "OUTAGE", "CLOSED"}
    assert len(asked(search)) <= DENIALS + search.config.llm.concurrency
    assert any("llm is asked no more" in line and "404" in line for line in search.said)
    assert search.store.counts()["search"] == 0


def test_a_model_that_nobody_can_ask_leaves_the_others_at_work(
    tmp_path: Path, serve: Serve
) -> None:
    good, bad = serve(writes()), serve(server.fails(404, "no such model"))
    settings = config(
        model(good.url), model(bad.url, name="misnamed"), evaluations=12, llm={"patience": 2}
    )
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    assert by_emitter(search)["llm"] == 12
    assert 0 < len(bad.requests) <= DENIALS + 4
    modes = [arm.pulls for arm in standing(search.store, settings)["modes"].values()]
    assert sum(modes) == 12


def test_a_failing_service_uses_up_no_patience(tmp_path: Path, serve: Serve) -> None:
    there = serve(*[server.fails(500)] * 8, writes())
    settings = config(
        model(there.url),
        evaluations=3,
        llm={
            "patience": 1, "attempts": 1, "breaker_failures": 1, "breaker_s": 0.1,
            "breaker_max_s": 0.1, "concurrency": 1,
        },
    )  # fmt: skip
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    assert how(search)["SERVER_ERROR"] == 8
    assert by_emitter(search)["llm"] == 3


# -- agents ---------------------------------------------------------------------------------------


def test_an_agent_beyond_its_deadline_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    extra = (
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'a').write(f'{{child.pid}} ')\n"
        f"if len(open({str(pids)!r}).read().split()) < 3: time.sleep(60)\n"
    )
    search = Search(tmp_path / "run", with_agent(tmp_path, extra, 2, deadline_s=1.0, concurrency=1))
    assert run_agents(search) == "budget"
    assert how(search) == {"DEADLINE": 2, ANSWERED: 2}
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 4
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("sys.exit(3)", "SERVER_ERROR"),
        ("print(' '); sys.exit(0)", "EMPTY"),
        ("print('x' * 9000); sys.exit(0)", "TOO_LARGE"),
    ],
    ids=["exit-code", "empty", "huge"],
)
def test_an_agent_that_fails_is_asked_no_more(tmp_path: Path, extra: str, reason: str) -> None:
    settings = with_agent(
        tmp_path, extra, patience=1, concurrency=1, max_answer_bytes=4096, deadline_s=20.0
    )
    search = Search(tmp_path / "run", settings)
    assert run_agents(search) == "exhausted"
    assert set(how(search)) == {reason}
    assert search.store.counts()["search"] == 0


def test_stopping_ends_agents_at_once(tmp_path: Path) -> None:
    search = Search(tmp_path / "run", with_agent(tmp_path, "time.sleep(60)"))
    search.watch = lambda engine: engine.stop() if engine.authors.writing else None
    started = time.monotonic()
    assert run_agents(search) == "interrupted"
    assert time.monotonic() - started < 8
    assert set(how(search)) == {"CLOSED"}
