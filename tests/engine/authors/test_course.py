"""Longer searches with authors: shares, what is learned, plans, limits and answers after a stop."""

from __future__ import annotations

from pathlib import Path

from evolve.authors.calls import Purpose
from evolve.authors.commissions import standing
from evolve.exchanges import Verdict
from evolve.notebook import Notebook, Reading
from tests.engine.authored import (
    Search,
    Serve,
    asked,
    by_emitter,
    calls,
    config,
    model,
    prompt_of,
    replies,
    writes,
)
from tests.llm import server
from tests.llm.server import answers

KEY = "sk-planted-0123456789abcdef"


def test_shares_hold_while_the_model_is_slower_than_the_tuner(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes(after_s=0.1))
    settings = config(
        model(there.url), evaluations=24, shares={"llm": 1.0, "tuner": 1.0}, in_flight=2
    )
    search = Search(tmp_path / "run", settings, slots=2)
    assert search.run() == "budget"
    counts = by_emitter(search)
    assert counts["llm"] + counts["tuner"] == 24
    assert 8 <= counts["llm"] <= 16


def test_bandits_are_a_fold_over_the_store(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes())
    search = Search(tmp_path / "run", config(model(there.url), evaluations=6))
    search.run()
    before = standing(search.store, search.config)
    assert before == standing(search.store, search.config)
    assert sum(arm.pulls for arm in before["modes"].values()) == 6
    search.config = config(model(there.url), evaluations=9)
    search.run()
    after = standing(search.store, search.config)
    assert sum(arm.pulls for arm in after["modes"].values()) == 9


def test_a_second_answer_is_still_wanted_after_an_interruption(
    tmp_path: Path, serve: Serve
) -> None:
    there = serve(answers("no idea"), server.hangs, writes())
    settings = config(
        model(there.url),
        evaluations=1,
        llm={"concurrency": 1},
    )
    search = Search(tmp_path / "run", settings)
    search.watch = lambda engine: engine.stop() if len(there.requests) == 2 else None
    assert search.run() == "interrupted"
    assert search.run() == "budget"
    assert [(r.attempt, r.verdict) for r in replies(search)] == [
        (1, Verdict.UNREADABLE),
        (2, Verdict.QUEUED),
    ]
    assert len(asked(search)) == 1
    assert "could not be used" in prompt_of(there.requests[2])


def test_plans_and_summaries_are_asked_for_kept_and_shown(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes(after_s=0.05))
    settings = config(model(there.url), evaluations=16, llm={"batch": 3, "concurrency": 2})
    search = Search(tmp_path / "run", settings)
    assert search.run() == "budget"
    responses = [r for _, r in Notebook(search.store).consultations() if r]
    assert Reading.READ in {r.reading for r in responses}
    assert {p.direction for p, _ in Notebook(search.store).plans()} == {"pack x once a tile"}
    assert any("pack x once a tile" in e.prompt for e in asked(search))
    assert {c.purpose for c in calls(search)} == set(Purpose)
    (insight,) = Notebook(search.store).insights().values()
    assert insight.text == "one more function costs nothing at all"
    assert insight.evidence
    search.config = config(model(there.url), evaluations=18, llm={"batch": 3, "concurrency": 2})
    assert search.run() == "budget"
    assert any(insight.text in e.prompt for e in asked(search)[16:])


def test_a_resumed_run_remembers_what_was_spent(tmp_path: Path, serve: Serve) -> None:
    there = serve(writes())
    limit = {"max_cost": 0.53, "concurrency": 1}
    dear = model(there.url, output_price=1000.0)
    search = Search(tmp_path / "run", config(dear, evaluations=2, llm=limit))
    assert search.run() == "budget"
    search.config = config(dear, evaluations=50, llm=limit)
    assert search.run() == "cost"
    assert by_emitter(search)["llm"] == 4
