"""Replays of searches: what is recorded, in which order it is proposed again, and what is told."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from evolve import cluster
from evolve.config import parse
from evolve.emitters import EMITTERS
from evolve.engine import Engine
from evolve.errors import UserError
from evolve.exchanges import Exchanges, Verdict
from evolve.player import Player, population
from evolve.recording import Claim, Measured, Recording, keep, kept, take
from evolve.replay import conclusion, conclusion_lines, holds, replay, said, share_of
from evolve.store import Store
from tests.engine import authored
from tests.engine.authored import DEFINITION, SEEDS, Search, config, edit, model, pool_of, writes
from tests.llm.server import ScriptedServer, answers

SHARES = {"tuner": 1.0, "llm": 1.0}


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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with a tuner and a model that writes junk, then programs, and one of them twice."""
    run_dir = tmp_path_factory.mktemp("source") / "run"
    first: list[str] = []

    def write(prompt: str) -> str:
        first.append(edit(prompt))
        return first[-1]

    twice = writes(text=lambda _: first[0])
    with ScriptedServer([answers("no idea"), writes(text=write), twice, writes()]) as server:
        search = Search(
            run_dir,
            config(model(server.url), evaluations=12, shares=SHARES, epochs={"evaluations": 5}),
        )
        assert search.run() == "budget"
    return run_dir


def opened(run_dir: Path) -> Store:
    return Store.open(run_dir, readonly=True)


def searched(store: Store) -> list[tuple[str, str]]:
    """(program, emitter) of everything evaluated for the first time, in order."""
    return [(r.program_id, r.emitter) for r in store.evaluations() if r.kind == "search"]


def replayed(run_dir: Path, recording: Recording | None = None, evaluations: int = 100) -> Store:
    """A run that repeats `recording`, or goes on with the one that it has."""
    if recording is None:
        store = Store.open(run_dir)
    else:
        with_source = {"operator": "matmul_bias_gelu", "device": {"type": "cpu", "name": "no-op"}}
        store = Store.create(run_dir, with_source)
        keep(store, recording)
    settings = parse(
        {
            "operator": "matmul_bias_gelu",
            "device": "cpu",
            "seed": 5,
            "budget": {"evaluations": evaluations},
            "islands": {"count": 1, "emitters": {"tuner": 1.0}},
            "epochs": {"evaluations": 5},
        }
    )
    players = population(store, settings, DEFINITION)
    assert isinstance(players, Player)
    engine = Engine(store, settings, DEFINITION, SEEDS, pool_of(), population=players)
    engine.run()
    return store


def test_programs_come_again_in_the_order_of_their_evaluation(source: Path, tmp_path: Path) -> None:
    then = opened(source)
    recording = take(then)
    assert {emitter for _, emitter in searched(then)} == {"tuner", "llm"}
    now = replayed(tmp_path / "again", recording)
    assert searched(now) == searched(then)
    scores = {r.program_id: r.evaluation.score for r in then.evaluations() if not r.epoch}
    same = [r for r in now.evaluations() if not r.epoch]
    assert len(same) >= 5
    assert all(r.evaluation.score == scores[r.program_id] for r in same)
    assert then.epochs()[1] == now.epochs()[1]  # the same workloads, drawn by the same seed
    program, emitter = searched(then)[0]
    assert now.program(program) == then.program(program)
    assert emitter in {*EMITTERS, "llm"}


def test_every_answer_is_judged_again_alike(source: Path) -> None:
    exchanged = take(opened(source)).exchanged
    assert exchanged.verdicts["UNREADABLE"] == 1
    assert exchanged.verdicts["DUPLICATE"] == 1
    assert exchanged.verdicts["QUEUED"] >= 3
    assert exchanged.replies == sum(exchanged.verdicts.values()) == exchanged.alike
    assert exchanged.differences == ()


def test_without_a_champion_there_is_no_claim(source: Path, tmp_path: Path) -> None:
    assert any("no champion" in line for line in said(take(opened(source))))
    with pytest.raises(UserError, match="no champion"):
        replay(source, tmp_path, "again", None, False, False, True, require=0.9)
    assert not list(tmp_path.iterdir())


def test_a_replay_that_was_stopped_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    recording = take(opened(source))
    first = replayed(tmp_path / "again", recording, evaluations=3)
    assert len(searched(first)) == 3
    first.close()
    again = replayed(tmp_path / "again")
    assert searched(again) == [(p.id, p.emitter) for p in recording.programs]
    assert kept(again) == recording


def test_only_answers(source: Path, tmp_path: Path) -> None:
    recording = take(opened(source), exchanges_only=True)
    assert {p.emitter for p in recording.programs} == {"llm"}
    assert recording.left_out >= 3
    known = {p.id for p in recording.programs} | {
        p.id for p in opened(source).programs() if p.emitter == "seed"
    }
    assert all(set(p.parents) <= known for p in recording.programs)
    store = replayed(tmp_path / "again", recording)
    assert searched(store) == [(p.id, "llm") for p in recording.programs]


def test_an_answer_that_gives_something_else_now_is_told(source: Path, tmp_path: Path) -> None:
    """Two stored answers are altered: one gives another program, one gives none."""
    altered = tmp_path / "altered"
    altered.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (altered / file.name).write_bytes(file.read_bytes())
    store = Store.open(altered)
    exchanges = Exchanges(store)
    evaluated = {program for program, _ in searched(store)}  # others are left out anyway
    queued = [
        reply
        for exchange in exchanges.all()
        for reply in exchanges.replies(exchange.id)
        if reply.verdict is Verdict.QUEUED and reply.program in evaluated
    ]
    other, none = queued[0], queued[1]
    for reply, answer in ((other, other.answer.replace("extra_", "more_")), (none, "nothing")):
        changed = reply.model_copy(update={"answer": answer})
        store.connection.execute(
            "UPDATE replies SET record = ? WHERE exchange = ? AND attempt = ?",
            (zlib.compress(changed.model_dump_json().encode()), reply.exchange, reply.attempt),
        )
    recording = take(store)
    found = {d.exchange: d for d in recording.exchanged.differences}
    assert found[other.exchange].now == "QUEUED"
    assert str(other.program) in found[other.exchange].reason
    assert (found[none.exchange].then, found[none.exchange].now) == ("QUEUED", "UNREADABLE")
    ids = {p.id for p in recording.programs}
    assert other.program not in ids
    assert none.program not in ids
    assert len(ids) == len(searched(store)) - 1
    assert any(re.search("more_", p.solution.entry_source) for p in recording.programs)


def test_an_outcome_that_is_another_now_is_told(source: Path, tmp_path: Path) -> None:
    recording = take(opened(source))
    first, *others = recording.statuses
    champion = a_claim(recording.programs[0].id, small=2.0)
    other = recording.model_copy(update={"statuses": ("TIMEOUT", *others), "claim": champion})
    replayed(tmp_path / "again", other)
    facts = conclusion(tmp_path / "again")
    assert facts is not None
    assert facts["outcomes"] == {
        "alike": len(others),
        "changed": {f"TIMEOUT, now {first}": 1},
        "champion": first,
    }
    assert f"1 were TIMEOUT, now {first}" in "\n".join(conclusion_lines(facts))


def test_a_run_without_programs_is_refused(tmp_path: Path) -> None:
    record = DEFINITION.model_dump(mode="json")
    store = Store.create(tmp_path / "run", {"definition_record": record})
    with pytest.raises(UserError, match="no evaluated program"):
        take(store)


# -- what is told -----------------------------------------------------------------------------


def a_claim(program: str = "a", **speedups: float) -> Claim:
    grid = {k: Measured(speedup=x, low=x / 1.02, high=x * 1.02) for k, x in speedups.items()}
    return Claim(program=program, emitter="llm", device="no-op", unseen=2.0, grid=grid)


def test_the_share_is_a_geometric_mean_over_shared_workloads() -> None:
    then, now = a_claim(small=2.0, large=4.0, gone=9.0), a_claim(small=1.0, large=4.5, new=0.1)
    share, error = share_of(then, now, then.grid.keys() & now.grid.keys())
    assert share == pytest.approx(math.sqrt(0.5 * 4.5 / 4))
    half = math.log(1.02)  # of each of four intervals, two of which count for a half
    assert error == pytest.approx(math.expm1(math.sqrt(4 * (half / 2) ** 2)))


def test_a_conclusion_counts_by_emitter_and_needs_two_champions(
    source: Path, tmp_path: Path
) -> None:
    assert conclusion(source) is None  # it repeats no run
    recording = take(opened(source))
    replayed(tmp_path / "again", recording.model_copy(update={"claim": a_claim(small=2.0)}))
    facts = conclusion(tmp_path / "again")
    assert facts is not None
    assert facts["evaluated"] == facts["programs"] == len(recording.programs)
    then = [p.emitter for p in recording.programs]
    assert {e: n["programs"] for e, n in facts["emitters"].items()} == {
        e: then.count(e) for e in ("tuner", "llm")
    }
    assert all(n["passed_then"] == n["passed_now"] for n in facts["emitters"].values())
    assert facts["outcomes"]["alike"] == len(recording.programs)
    assert facts["outcomes"]["changed"] == {}
    assert facts["share"] is None
    assert not any(facts["thresholds"].values())
    assert holds(facts, None)
    assert not holds(facts, 0.6)
    text = "\n".join(conclusion_lines(facts))
    assert "reached    no champion" in text
    assert "claimed    2.000x the anchor" in text
