"""`evolve compare` over stores made by hand: what is refused, and what the stores say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluators import catalog
from evaluators.schema import Evaluation, Language, Solution, Status, Workload, WorkloadResult
from evolve.comparison import duel
from evolve.exchanges import Exchange, Exchanges, Mode, Reply, Verdict
from evolve.export import definition_json
from evolve.recording import Measured
from evolve.store import Store
from islands.program import Program
from tests.cli.conftest import Called, Evolve

OPERATOR, DEFINITION = "matmul_bias_gelu", "matmul_bias_gelu_f32_k512_n512"
PNG = b"\x89PNG\r\n\x1a\n"


def seed() -> Solution:
    operator = catalog.load_operator(OPERATOR)
    return catalog.seeds(operator, operator.definitions[DEFINITION], "cpu")[0]


def changed(*pairs: tuple[str, str]) -> Solution:
    source = seed().entry_source
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new)
    return seed().with_entry_source(source)


FAST = (("COLS = 16", "COLS = 32"), ("ROWS = 1;", "ROWS = 4;"))
SLOW = (("COLS = 16", "COLS = 8"), ("TILE_K = 64", "TILE_K = 32"))


def scored(score: float, epoch: int = 0) -> Evaluation:
    result = WorkloadResult(
        workload="w", max_absolute_error=0, max_relative_error=0, latency_ms=1 / score,
        anchor_ms=1, speedup=score, speedup_low=score / 1.01, speedup_high=score * 1.01,
    )  # fmt: skip
    return Evaluation(status=Status.PASSED, epoch=epoch, results=(result,))


class Made:
    """A run made by hand: the seed at 1.0 in its only epoch, then what a test adds."""

    def __init__(
        self, folder: Path, definition: str = DEFINITION, device: str = "cpu", number: int = 7
    ) -> None:
        record = catalog.load_operator(OPERATOR).definitions[definition]
        meta = {
            "operator": OPERATOR,
            "definition": definition,
            "definition_record": definition_json(record),
            "device": {"type": device, "name": f"a {device}"},
            "config": {"operator": OPERATOR, "seed": number, "budget": {"evaluations": 9}},
            "seeds": [seed().name],
        }
        self.folder = folder
        self.store = Store.create(folder, meta)
        drawn = Workload(uuid=f"w{number}", axes={"num_tokens": 64}, seed=number)
        self.store.open_epoch(0, [drawn])
        self.seed = Program.of(seed())
        self.store.propose(self.seed)
        self._outcome(self.seed, "seed", scored(1.0), "NEW")

    def add(
        self, solution: Solution, emitter: str, score: float, parent: Program | None = None
    ) -> Program:
        program = Program.of(
            solution,
            parents=((parent or self.seed).id,),
            emitter=emitter,
            note=f"what the {emitter} changed",
        )
        self.store.propose(program)
        self._outcome(program, "search", scored(score), "IMPROVED")
        return program

    def exchange(self, number: int, mode: Mode, verdict: Verdict, program: str | None) -> None:
        exchanges = Exchanges(self.store)
        name = f"{number:04}-{mode.value}-abcdef"
        exchanges.add(
            Exchange(
                id=name,
                number=number,
                emitter="mailbox",
                mode=mode,
                island=0,
                language=Language.CPP,
                parents=(self.seed.id,),
                prompt="p",
            )
        )
        reason = "" if program else "the block\nmatches nothing"
        exchanges.reply(
            Reply(
                exchange=name,
                attempt=1,
                answer="a",
                verdict=verdict,
                program=program,
                reason=reason,
            )
        )

    def crown(self, program: Program) -> Path:
        record = program.solution.model_dump(mode="json")
        champion = {"program_id": program.id, "solution": record, "verified": True}
        self.store.set_meta({"report": {"champion": champion, "entries": []}})
        return self.close()

    def close(self) -> Path:
        self.store.close()
        return self.folder

    def _outcome(self, program: Program, kind: Any, evaluation: Evaluation, status: str) -> None:
        seq = self.store.record(program.id, kind, evaluation)
        self.store.set_outcome(seq, "cpp/x", status)


def champion_of(folder: Path, *changes: tuple[str, str], **how: Any) -> Path:
    made = Made(folder, **how)
    return made.crown(made.add(changed(*changes), "tuner", 1.5))


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return champion_of(tmp_path / "control", *SLOW)


# -- bad input ------------------------------------------------------------------------------------


def refused(called: Called, *parts: str) -> None:
    assert called.code == 2, called
    assert called.out == ""
    assert called.err.startswith("evolve: ")
    assert called.err.count("\n") == 1, called.err
    assert all(part in called.err for part in parts), called.err


def test_runs_of_different_definitions_are_refused(
    evolve: Evolve, control: Path, tmp_path: Path
) -> None:
    others = catalog.load_operator(OPERATOR).definitions
    other = next(name for name in others if name != DEFINITION)
    run = champion_of(tmp_path / "other", *FAST, definition=other)
    refused(evolve("compare", run, control, "--out", tmp_path / "out"), other, DEFINITION)
    assert not (tmp_path / "out").exists()


def test_runs_of_different_devices_are_refused(
    evolve: Evolve, control: Path, tmp_path: Path
) -> None:
    run = champion_of(tmp_path / "gpu", *FAST, device="cuda")
    refused(evolve("compare", run, control, "--out", tmp_path / "out"), "cuda", "cpu")


def test_a_run_is_not_compared_with_itself(evolve: Evolve, control: Path, tmp_path: Path) -> None:
    refused(evolve("compare", control, control, "--out", tmp_path / "out"), "the same run")


def test_another_device_than_the_runs_is_refused(
    evolve: Evolve, control: Path, tmp_path: Path
) -> None:
    run = champion_of(tmp_path / "run", *FAST)
    called = evolve("compare", run, control, "--out", tmp_path / "out", "--device", "cuda")
    refused(called, "the runs are of cpu", "--device is cuda")


def test_a_run_without_a_passed_program_is_refused(
    evolve: Evolve, control: Path, tmp_path: Path
) -> None:
    source = Store.open(control, readonly=True)
    Store.create(tmp_path / "empty", source.meta | {"report": None}).close()
    source.close()
    called = evolve("compare", tmp_path / "empty", control, "--out", tmp_path / "out")
    refused(called, "empty", "no program that passed")


def test_an_absent_run_and_a_folder_that_cannot_be_written(
    evolve: Evolve, control: Path, tmp_path: Path
) -> None:
    refused(evolve("compare", tmp_path / "absent", control, "--out", tmp_path), "no run at")
    run = champion_of(tmp_path / "run", *FAST)
    (tmp_path / "file").write_text("")
    called = evolve("compare", run, control, "--out", tmp_path / "file" / "out", "--no-measure")
    refused(called, "cannot write")


# -- what the stores say --------------------------------------------------------------------------


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """The mailbox raises the best from 1.2 to 1.8, the tuner takes its program to 2.0."""
    made = Made(tmp_path / "campaign")
    made.add(changed(("TILE_M = 32", "TILE_M = 48")), "tuner", 1.2)
    written = made.add(changed(("ROWS = 1;", "ROWS = 4;")), "mailbox", 1.8)
    made.add(changed(("TILE_M = 32", "TILE_M = 64")), "mailbox", 1.5)
    tuned = made.add(changed(*FAST), "tuner", 2.0, parent=written)
    made.exchange(0, Mode.REWRITE, Verdict.QUEUED, written.id)
    made.exchange(1, Mode.DIFF, Verdict.UNREADABLE, None)
    made.exchange(2, Mode.DIFF, Verdict.UNREADABLE, None)
    return made.crown(tuned)


def test_tables_figure_and_page_without_a_measurement(
    evolve: Evolve, campaign: Path, control: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    called = evolve("compare", campaign, control, "--out", out, "--no-measure", "--json")
    assert called.code == 0, called.err
    found = called.document
    assert found["verdict"] == "NOT MEASURED"
    assert {Path(p).name for p in found["written"]} == {
        "comparison.md", "comparison.json", "comparison.png", "exchanges.csv", "authors.json",
    }  # fmt: skip
    assert (out / "comparison.png").read_bytes().startswith(PNG)
    rows = {row["emitter"]: row for row in found["emitters"]["run"]}
    assert list(rows) == ["mailbox", "tuner", "tuner on authors' code"]
    assert [rows[k]["evaluated"] for k in rows] == [2, 1, 1]
    gains = [pytest.approx(x, abs=1e-6) for x in (0.405465, 0.182322, 0.105361)]
    assert [rows[k]["gain"] for k in rows] == gains  # ln of 1.8/1.2, 1.2/1.0, 2.0/1.8
    assert [rows[k]["last_improvement"] for k in rows] == [2, 1, 4]
    modes = {row["mode"]: row for row in found["modes"]["run"]}
    assert (modes["mailbox: diff"]["applied"], modes["mailbox: diff"]["answered"]) == (0, 2)
    assert modes["mailbox: diff"]["refused"] == {"UNREADABLE": 2}
    assert list(modes["mailbox: diff"]["reasons"].values()) == [2]
    assert modes["mailbox: rewrite"]["gain"] == gains[0]
    assert [step["emitter"] for step in found["runs"]["run"]["lineage"]] == [
        "seed", "mailbox", "tuner",
    ]  # fmt: skip
    assert found["same_workloads"]
    page = (out / "comparison.md").read_text()
    for part in ("what the mailbox changed", "UNREADABLE: the block", "1.500x", "heights compare"):
        assert part in page, part


def test_what_does_not_compare_is_said(evolve: Evolve, control: Path, tmp_path: Path) -> None:
    made = Made(tmp_path / "unfinished", number=8)
    made.add(changed(*FAST), "tuner", 1.5)
    run = made.close()
    called = evolve("compare", run, control, "--out", tmp_path / "out", "--no-measure", "--json")
    assert called.code == 0, called.err
    assert "seeds 8 and 7" in called.document["heights"]
    assert not called.document["same_workloads"]
    assert "unfinished has no champion" in called.document["notes"][0]
    assert {row["key"] for row in called.document["settings"]} == {"seed"}


# -- arithmetic -----------------------------------------------------------------------------------


def measured(speedup: float, half: float, weight: float = 1.0) -> Measured:
    return Measured(speedup=speedup, low=speedup / half, high=speedup * half, weight=weight)


def test_what_favours_a_role_cancels() -> None:
    # twice as fast, and every candidate looks 10% faster than an anchor
    met = duel.both_orders(measured(2.2, 1.001), measured(0.55, 1.001))
    assert met.speedup == pytest.approx(2.0)
    assert met.low == pytest.approx(2.0 / 1.1)  # the interval covers both orders
    assert met.high == pytest.approx(2.2)


def test_two_orders_that_agree_narrow_the_interval() -> None:
    met = duel.both_orders(measured(2.0, 1.02), measured(0.5, 1.02))
    assert met.high / met.speedup == pytest.approx(1.02 ** (1 / 2**0.5))


def test_the_mean_is_weighted() -> None:
    found = duel.mean([measured(2.0, 1.02, weight=3.0), measured(1.0, 1.02)])
    assert found.speedup == pytest.approx(2**0.75)
    assert found.high / found.speedup == pytest.approx(1.02 ** (10**0.5 / 4))
