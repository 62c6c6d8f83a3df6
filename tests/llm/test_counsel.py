"""A run plans, writes and sums up: what is asked when, what answers become, and what they cost.

The golden files are rewritten by TILEVOLVE_GOLDEN=write; read the difference before keeping it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.exchanges import Exchanges, Mode, Reply, Verdict
from evolve.llm import batches, insights, planning, prompt
from evolve.llm.background import Background
from evolve.llm.counsel import Counsel
from evolve.llm.fit import CHARS_PER_TOKEN
from evolve.llm.history import History
from evolve.llm.modes import choose
from evolve.notebook import Consultation, Insight, Kind, Notebook, Reading, Recalled
from evolve.rows import together
from evolve.store import Store
from islands.program import Program
from tests.llm import sample_run

GOLDEN = Path(__file__).parent / "golden"
PLAN = """\
BOTTLENECK: latency: 7% of the roof on rows=64
DIRECTION: {}
AVOID: more warps
"""
ROWS = PLAN.format("several rows in one block")
COLUMNS = PLAN.format("columns split over a cluster")


class Run:
    """A stored run whose exchanges are answered by hand."""

    def __init__(self, folder: Path, batch: int = 3) -> None:
        self.store = sample_run.make(folder / "run")
        self.background = sample_run.the_background(folder)
        self.counsel = Counsel(self.store, self.background, emitter="llm", batch=batch)
        self.written = 0

    @property
    def history(self) -> History:
        return History(self.store)

    def due(self, **more: bool) -> list[Consultation]:
        return self.counsel.due(self.history, **more)

    def hear(self, asked: Consultation, answer: str) -> Reading:
        return self.counsel.hear(asked, answer, history=self.history, model="m").reading

    def plans(self, *answers: str) -> list[Reading]:
        """Answers to the plans that are due, one an island."""
        asked = [c for c in self.due() if c.kind is Kind.PLAN]
        return [self.hear(c, answer) for c, answer in zip(asked, answers, strict=True)]

    def write(self, *speedups: float, reason: str = "", note: str = "") -> str:
        """One exchange of the island whose turn it is, answered and evaluated."""
        history = self.history
        task = choose(history, history.exchanges.next_number(), Mode.DIFF)
        exchange = prompt.build(history, self.background, task, emitter="llm", tokens=8000)
        exchanges = Exchanges(self.store)
        exchanges.add(exchange)
        self.written += 1
        verdict = Verdict.UNREADABLE if reason else Verdict.QUEUED
        source = task.parent.solution.entry_source.replace(
            "program_id(0)", f"program_id(0) + {self.written} - {self.written}", 1
        )
        program = Program.of(
            sample_run.solution(source, "written"),
            parents=exchange.parents,
            island=task.island,
            emitter="llm",
            note=f"diff: {note}",
        )
        said = None if reason else program.id
        reply = Reply(
            exchange=exchange.id, attempt=2 if reason else 1, answer="x", verdict=verdict,
            reason=reason, note=note, program=said,
        )  # fmt: skip
        exchanges.reply(reply)
        if not reason:
            self.store.propose(program)
            if speedups:
                sample_run.record(self.store, program, sample_run.passed(*speedups))
            elif note != "waits":
                sample_run.record(self.store, program, sample_run.failed())
        return program.id

    def round(self, *speedups: float, count: int = 3, **more: str) -> list[str]:
        """So many exchanges of each of the two islands."""
        return [self.write(*speedups, **more) for _ in range(2 * count)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def golden(name: str, text: str) -> None:
    file = GOLDEN / f"{name}.md"
    if os.environ.get("TILEVOLVE_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def kinds(asked: list[Consultation]) -> list[tuple[Kind, int]]:
    return [(c.kind, c.island) for c in asked]


# -- when ------------------------------------------------------------------------------------------


def test_every_island_plans_before_its_first_exchange(run: Run) -> None:
    assert kinds(run.due()) == [(Kind.PLAN, 0), (Kind.PLAN, 1)]
    assert run.due() == []  # asked already
    assert [c.island for c in run.counsel.abandoned()] == [0, 1]
    assert run.counsel.plan(0) is None


def test_a_plan_holds_for_a_batch(run: Run) -> None:
    assert run.plans(ROWS, COLUMNS) == [Reading.READ] * 2
    plan = run.counsel.plan(1)
    assert plan is not None
    assert plan.direction == "columns split over a cluster"
    run.round(1.4, 1.8, count=2)
    assert run.due() == []
    run.round(1.4, 1.8, count=1)
    asked = run.due()
    assert sorted(kinds(asked)) == [
        (Kind.PLAN, 0), (Kind.PLAN, 1), (Kind.SUMMARY, 0), (Kind.SUMMARY, 1),
    ]  # fmt: skip
    assert run.counsel.plan(1) == plan  # until the next answer is there
    refused = [c for c in asked if c.kind is Kind.PLAN and c.island == 1]
    run.counsel.refused(refused[0], "OUTAGE", history=run.history)
    assert run.counsel.plan(1) is None
    assert run.counsel.plan(0) is not None


def test_a_plan_waits_for_half_of_the_batch_but_not_for_ever(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(count=4, note="waits")
    assert run.due() == []
    run.round(count=2, note="waits")
    assert kinds(run.due()) == [(Kind.PLAN, 0), (Kind.PLAN, 1)]


def test_a_malformed_plan_is_kept_and_the_batch_goes_on_without(run: Run) -> None:
    assert (
        run.plans("I would try harder.", "BOTTLENECK: x\nDIRECTION:\n") == [Reading.MALFORMED] * 2
    )
    assert run.counsel.plan(0) is None
    assert run.due() == []
    kept = [response for _, response in run.counsel.notebook.consultations()]
    assert [r.reason for r in kept if r] == [
        "no BOTTLENECK line with something in it", "no DIRECTION line with something in it",
    ]  # fmt: skip
    run.round(1.1, 1.4)
    assert (Kind.PLAN, 0) in kinds(run.due())


def test_an_answer_counts_once(run: Run) -> None:
    asked = run.due()[0]
    run.hear(asked, ROWS)
    with pytest.raises(sqlite3.IntegrityError):
        run.hear(asked, COLUMNS)
    plan = run.counsel.plan(0)
    assert plan is not None
    assert plan.direction.startswith("several")
    assert len(run.counsel.notebook.plans()) == 1


def test_a_run_without_elites_asks_nothing(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "run", sample_run.meta())
    counsel = Counsel(store, Background(), emitter="llm")
    assert counsel.due(History(store)) == []


def test_at_the_close_what_is_there_is_summed_up(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.write(1.1, 1.4)
    assert kinds(run.due()) == []
    assert kinds(run.due(closing=True)) == [(Kind.SUMMARY, 0)]
    assert run.due(closing=True) == []


def test_a_summary_without_answer_is_asked_for_once_more(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(1.1, 1.4)
    for expected in (2, 2, 0):
        asked = [c for c in run.due() if c.kind is Kind.SUMMARY]
        assert len(asked) == expected
        for consultation in asked:
            run.counsel.refused(consultation, "OUTAGE", history=run.history)


# -- what came of plans ----------------------------------------------------------------------------


def test_a_direction_without_gain_is_exhausted(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(0.9, 0.9)
    asked = {(c.kind, c.island): c for c in run.due()}
    result = {p.island: r for p, r in run.counsel.notebook.plans()}[0]
    assert result is not None
    assert (result.exchanges, result.evaluated, result.passed) == (3, 3, 3)
    assert not result.gained
    assert planning.is_exhausted(result)
    page = asked[Kind.PLAN, 0].prompt
    exhausted = page.split("## Exhausted directions")[1].split("##")[0]
    assert "- several rows in one block" in exhausted
    assert run.counsel.plan(0) is None  # nobody is sent there any more
    again = run.hear(asked[Kind.PLAN, 0], ROWS)
    assert again is Reading.REPEATED
    assert run.counsel.plan(0) is None


def test_a_direction_that_gained_is_not(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.write(0.9, 0.9)
    run.write(1.4, 1.8)  # island 1
    run.round(0.9, 0.9, count=2)
    run.due()
    found = {p.island: r for p, r in run.counsel.notebook.plans()}
    assert planning.is_exhausted(found[0])
    assert not planning.is_exhausted(found[1])
    assert found[1] is not None
    parent = (0.8 * 1.6) ** 0.5  # of island 1: its best seed
    assert found[1].gain == pytest.approx((1.4 * 1.8) ** 0.5 / parent, rel=1e-6)


def test_the_tuners_settings_count_for_the_program(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    mine = run.write(1.0, 1.0)
    source = run.store.program(mine).solution.entry_source.replace("NUM_WARPS = 4", "NUM_WARPS = 8")
    tuned = Program.of(sample_run.solution(source), parents=(mine,), emitter="tuner")
    sample_run.record(run.store, tuned, sample_run.passed(1.6, 1.8))
    found = batches.batches(run.history, run.counsel.notebook.consultations())
    outcome = found[0][-1].outcomes[0]
    assert outcome.gained
    assert outcome.gain == pytest.approx((1.6 * 1.8) ** 0.5 / (1.1 * 1.4) ** 0.5, rel=1e-6)


def test_a_program_that_was_stopped_early_gained_nothing(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    stopped = run.write(note="waits")
    faster_on_one = sample_run.passed(9.0, 9.0).model_copy(update={"rung": "screen"})
    sample_run.record(run.store, run.store.program(stopped), faster_on_one)
    found = batches.batches(run.history, run.counsel.notebook.consultations())
    outcome = found[0][-1].outcomes[0]
    assert outcome.gain is None
    assert not batches.result(found[0][-1]).gained
    assert "stopped early" in planning.told(outcome)


def test_islands_are_told_what_the_others_do(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(0.9, 0.9)
    page = next(c for c in run.due() if c.kind is Kind.PLAN and c.island == 0).prompt
    others = page.split("## What other islands work on")[1].split("##")[0]
    assert "island 1 (best" in others
    assert "columns split" in others


# -- what the prompts say --------------------------------------------------------------------------


def test_golden_plan(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(0.9, 0.9, note="one row more")
    golden("plan", next(c for c in run.due() if c.kind is Kind.PLAN).prompt)


def test_golden_summary(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.write(1.4, 1.8, note="rows in pairs")
    run.write(0.9, 0.9)
    run.write(note="rows in fours")
    run.write(0.9, 0.9)
    run.write(reason="Block 1: no such lines", note="rows in eights")
    golden("summary", next(c for c in run.due() if c.kind is Kind.SUMMARY).prompt)


def test_prompts_keep_to_their_budget(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(1.2, 1.5)
    run.counsel = Counsel(run.store, run.background, emitter="llm", batch=3, tokens=1500)
    asked = run.due()
    assert len(asked) == 4
    for consultation in asked:
        assert len(consultation.prompt) <= 1500 * CHARS_PER_TOKEN
        assert "Answer with" in consultation.prompt


def test_a_plan_and_insights_stand_in_later_prompts(run: Run) -> None:
    run.plans(ROWS, COLUMNS)
    text = sections_text(run)
    assert "Direction: several rows in one block" in text
    assert "Leave alone: more warps" in text
    run.round(0.9, 0.9)
    summary = next(c for c in run.due() if c.kind is Kind.SUMMARY)
    assert run.hear(summary, "INSIGHT 1, 2: pairs of rows lose on few rows") is Reading.READ
    assert "- pairs of rows lose on few rows (0.725x to 0.725x their parents)" in sections_text(run)


def sections_text(run: Run) -> str:
    priority = {"plan": 1, "insights": 2, "recalled": 3}
    found = run.counsel.sections(run.history, 0, priority)
    return "\n".join(item[0] for section in found for item in section.items)


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ROWS,
        "Thinking.\nBOTTLENECK: x\nDIRECTION: y\n\n" + ROWS,
        "```\n" + ROWS + "```\n",
        "**BOTTLENECK:** latency: 7% of the roof\n**DIRECTION:** several rows\n"
        "in one block\n\nAnd more talk.",
    ],
)
def test_a_plan_is_read(answer: str) -> None:
    advice = planning.read(answer)
    assert isinstance(advice, planning.Advice)
    assert advice.bottleneck.startswith("latency: 7% of the roof")
    assert advice.direction == "several rows in one block"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no BOTTLENECK"),
        ("DIRECTION: y", "no BOTTLENECK"),
        ("BOTTLENECK: none\nDIRECTION: y", "no BOTTLENECK"),
        ("BOTTLENECK: x\nAVOID: y", "no DIRECTION"),
        (planning.FORM, "the BOTTLENECK line repeats the form"),
    ],
)
def test_what_is_no_plan_says_why(answer: str, reason: str) -> None:
    found = planning.read(answer)
    assert isinstance(found, str)
    assert reason in found


def batch_of(run: Run) -> batches.Batch:
    return batches.batches(run.history, run.counsel.notebook.consultations())[0][-1]


def test_evidence_is_ours_and_not_the_models(run: Run) -> None:
    mine = [run.write(1.4, 1.8), run.write(0.9, 0.9), run.write(0.9, 0.9)]
    found = insights.read("INSIGHT 1, 77: gains 99.9x on everything, surely", batch_of(run), "m")
    assert not isinstance(found, str)
    (evidence,) = found[0].evidence
    assert evidence.program == mine[0]
    assert evidence.gain == pytest.approx((1.4 * 1.8) ** 0.5 / (1.1 * 1.4) ** 0.5, abs=1e-4)


def test_a_summary_gives_at_most_three_lines(run: Run) -> None:
    run.round(0.9, 0.9, count=1)
    answer = "\n".join(f"INSIGHT 1: number {i} of the things to know" for i in range(9))
    found = insights.read(answer, batch_of(run), "m")
    assert len(found) == insights.MOST
    assert insights.read("NOTHING", batch_of(run), "m") == []
    assert isinstance(insights.read("Let me think.", batch_of(run), "m"), str)
    assert isinstance(insights.read(insights.FORM, batch_of(run), "m"), str)


def test_what_is_told_twice_is_kept_once(run: Run) -> None:
    for text in ("on few rows", "on the few rows"):
        run.write(0.9, 0.9)
        exchange = run.history.attempts()[0].exchange
        run.counsel.told(exchange, f"INSIGHT: pairs of rows lose {text}", None)
    (kept,) = run.counsel.notebook.insights().values()
    assert kept.repeats == 1


def test_an_authors_insight_is_measured_later(run: Run) -> None:
    answer = "CHANGE: pairs\nINSIGHT: pairs of rows help on many rows\n```python\nINSIGHT: no\n```"
    program = run.write(note="waits")
    exchange = run.history.attempts()[0].exchange
    assert len(run.counsel.told(exchange, answer, program)) == 1
    assert "(not measured yet)" in sections_text(run)
    sample_run.record(run.store, run.store.program(program), sample_run.passed(1.4, 1.8))
    assert "pairs of rows help on many rows (1.279x its parent)" in sections_text(run)


def test_insights_in_code_are_not_meant() -> None:
    edit = "<<<<<<< SEARCH\nINSIGHT: in a source line\n=======\nx\n>>>>>>> REPLACE\n"
    assert insights.told(f"{edit}- **INSIGHT:** warps idle while loads wait") == [
        "warps idle while loads wait"
    ]


def test_recent_and_large_come_first(run: Run) -> None:
    def insight(text: str, gain: float, exchange: int) -> Insight:
        evidence = [{"program": "0" * 32, "gain": gain, "status": "PASSED"}]
        return Insight.model_validate(
            {"text": text, "island": 0, "author": "m", "evidence": evidence, "exchange": exchange}
        )

    known = {
        1: insight("old and small", 1.01, 0),
        2: insight("old and large", 1.30, 0),
        3: insight("new and small", 1.01, 40),
        4: insight("new and a large loss", 0.70, 40),
    }
    items = insights.section(run.history, known, 1).items
    shown = [item[0][2:].split(" (")[0] for item in items]
    assert shown == ["new and a large loss", "old and large", "new and small", "old and small"]


@given(st.text(alphabet=st.sampled_from("BOTLENCKDIRAVSGH: \n*`0123,<>-"), max_size=200))
def test_any_answer_is_read_or_refused(answer: str) -> None:
    batch = batches.Batch(-1, 0, 0, ())
    found = planning.read(answer)
    assert isinstance(found, str) or (found.bottleneck and found.direction)
    summary = insights.read(f"{answer}\nNOTHING", batch, "m") if "INSIGHT" not in answer else []
    assert summary == []
    assert all("\n" not in text for text in insights.told(answer))


# -- the store -------------------------------------------------------------------------------------


def test_a_run_made_before_plans_existed(tmp_path: Path) -> None:
    sample_run.make(tmp_path / "run").close()
    old = Notebook(Store.open(tmp_path / "run", readonly=True))
    assert (old.consultations(), old.plans(), old.insights(), old.recalled()) == ([], [], {}, [])
    assert old.next_number() == 0
    assert Notebook(Store.open(tmp_path / "run")).next_number() == 0


def test_the_notebook_reads_back_after_reopening(run: Run, tmp_path: Path) -> None:
    run.plans(ROWS, COLUMNS)
    run.round(1.4, 1.8)
    for asked in run.due():
        run.hear(asked, "INSIGHT 1: pairs of rows help on many rows")
    recalled = Recalled(text="a\nb", run="r", definition="d", device="x", near="the same")
    run.counsel.notebook.set_recalled([recalled])
    mine = run.counsel.notebook
    run.store.connection.execute("PRAGMA wal_checkpoint")
    other = Notebook(Store.open(tmp_path / "run", readonly=True))
    assert other.consultations() == mine.consultations()
    assert other.plans() == mine.plans()
    assert other.insights() == mine.insights()
    assert other.recalled()[0].text == "a b"


def test_all_or_nothing(run: Run) -> None:
    notebook = run.counsel.notebook

    def fail_half_way() -> None:
        with together(run.store.connection):
            with together(run.store.connection):  # ends with the outer one
                notebook.add_insight(Insight(text="x", island=0, author="m"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert notebook.insights() == {}
