"""What earlier runs know reaches a new one, ranked plainly; files that are no runs do no harm.

The golden file is rewritten by TILEVOLVE_GOLDEN=write; read the difference before keeping it.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import zlib
from pathlib import Path

import pytest

from evaluators.schema import Status
from evolve.llm import recall
from evolve.llm.fit import fit
from evolve.llm.insights import recalled_section
from evolve.llm.likeness import likeness, relevance
from evolve.notebook import Evidence, Insight, Notebook
from evolve.store import FILE, Store
from islands.program import Program
from tests.llm import sample_run

GOLDEN = Path(__file__).parent / "golden"
OTHER_GPU = {**sample_run.DEVICE, "name": "Other GPU", "capability": "8.0"}
LESSON = "wide tiles waste warps on short rows"


def earlier(folder: Path, insight: str = LESSON, **meta: object) -> Store:
    """A stored run: an insight about a step that gained, and an elite of an author."""
    store = sample_run.make(folder)
    store.set_meta(meta)
    tuned = next(p for p in store.programs() if p.note == "BLOCK_N 128 -> 256")
    written = Program.of(
        sample_run.solution(sample_run.TILED.replace("row = ", "row = 0 + "), "written"),
        parents=(tuned.id,),
        emitter="mailbox",
        note="rewrite: a block keeps its scale in a register",
    )
    sample_run.record(store, written, sample_run.passed(1.32, 1.68))
    Notebook(store).add_insight(
        Insight(
            text=insight,
            island=0,
            author="m",
            evidence=(Evidence(program=tuned.id, gain=0.9, status="PASSED"),),
        )
    )
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


def new_run(folder: Path) -> Store:
    return Store.create(folder, sample_run.meta())


def texts(store: Store) -> list[str]:
    return [item.text for item in Notebook(store).recalled()]


def test_a_new_run_knows_what_earlier_ones_learned(tmp_path: Path) -> None:
    earlier(tmp_path / "old").close()
    store = new_run(tmp_path / "new")
    gathered = recall.gather(store, [tmp_path], about="nothing that they say")
    assert (gathered.kept, gathered.runs, gathered.skipped) == (2, 1, [])
    items = {item.text: item for item in Notebook(store).recalled()}
    step = items["rewrite: a block keeps its scale in a register"]
    assert step.gain == pytest.approx((1.32 * 1.68 / (1.1 * 1.4)) ** 0.5)
    assert step.near == "1.200x its parent; the same definition, the same device"
    assert step.rank == pytest.approx(1.0 * 1.0 * 1.5, abs=0.01)  # a gain of 1.2 counts in full
    loss = items[LESSON]
    assert loss.rank == pytest.approx(0.5 + math.log(1 / 0.9) / math.log(1.2), abs=0.01)


def test_the_tuners_numbers_and_small_gains_are_not_recalled(tmp_path: Path) -> None:
    store = earlier(tmp_path / "old")
    parent = next(p for p in store.programs() if p.emitter == "mailbox")
    small = Program.of(
        sample_run.solution(sample_run.TILED.replace("row = ", "row = 1 - 1 + ")),
        parents=(parent.id,),
        emitter="mailbox",
        note="diff: hardly anything",
    )
    sample_run.record(store, small, sample_run.passed(1.33, 1.69))
    store.close()
    new = new_run(tmp_path / "new")
    recall.gather(new, [tmp_path])
    assert not any("BLOCK_N" in text or "hardly" in text for text in texts(new))


def test_what_the_definition_is_about_counts(tmp_path: Path) -> None:
    earlier(tmp_path / "old").close()
    store = new_run(tmp_path / "new")
    recall.gather(store, [tmp_path])
    said = {item.text: item.rank for item in Notebook(store).recalled()}
    # "Each row of x times its scale": the step's note speaks of a scale.
    assert said["rewrite: a block keeps its scale in a register"] == pytest.approx(2.0, abs=0.01)


def test_nearer_runs_come_first(tmp_path: Path) -> None:
    def told(name: str, text: str, **meta: object) -> None:
        store = sample_run.make(tmp_path / name)
        store.set_meta(meta)
        program = next(store.programs()).id
        evidence = (Evidence(program=program, gain=1.1, status="PASSED"),)
        Notebook(store).add_insight(
            Insight(text=text, island=0, author="m", evidence=evidence, exchange=0)
        )
        store.close()

    told("a", "alpha beta gamma", operator="other", definition="other_f32")
    told("b", "delta epsilon zeta", definition="scale_rows_f16")
    told("c", "eta theta iota", device=OTHER_GPU)
    told("d", "kappa lambda mu")
    store = new_run(tmp_path / "new")
    recall.gather(store, [tmp_path])
    assert texts(store) == [
        "kappa lambda mu", "eta theta iota", "delta epsilon zeta", "alpha beta gamma",
    ]  # fmt: skip
    near = [item.near.split("; ")[1] for item in Notebook(store).recalled()]
    assert near == [
        "the same definition, the same device",
        "the same definition, on Other GPU",
        "scale_rows_f16, the same device",
        "another operator, other, the same device",
    ]


def test_another_operator_counts_in_our_languages_only(tmp_path: Path) -> None:
    earlier(tmp_path / "old", operator="other", definition="other_f32").close()
    store = Store.create(tmp_path / "new", sample_run.meta(languages=["cuda"]))
    assert recall.gather(store, [tmp_path]).kept == 0
    store = Store.create(tmp_path / "newer", sample_run.meta(languages=["triton"]))
    assert recall.gather(store, [tmp_path]).kept == 2


def test_what_is_alike_is_kept_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        earlier(tmp_path / name).close()
    store = new_run(tmp_path / "new")
    gathered = recall.gather(store, [tmp_path])
    assert (gathered.runs, gathered.kept) == (2, 2)


def test_stored_runs_are_only_read(tmp_path: Path) -> None:
    earlier(tmp_path / "old").close()
    folder = tmp_path / "old"
    before = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
    recall.gather(new_run(tmp_path / "new"), [folder, tmp_path, tmp_path / "absent"])
    assert {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()} == before


def test_a_run_that_is_written_now_is_read_too(tmp_path: Path) -> None:
    live = earlier(tmp_path / "live")
    store = new_run(tmp_path / "new")
    assert recall.gather(store, [tmp_path]).kept == 2
    live.close()


def test_a_run_does_not_recall_itself(tmp_path: Path) -> None:
    store = earlier(tmp_path / "old")
    gathered = recall.gather(store, [tmp_path, tmp_path / "old"])
    assert (gathered.runs, gathered.kept) == (0, 0)


def test_damaged_and_foreign_files_are_skipped_with_a_word(tmp_path: Path) -> None:
    def file(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name / FILE

    file("text").write_text("no database at all")
    file("empty").touch()
    whole = earlier(tmp_path / "whole")
    whole.close()
    data = (tmp_path / "whole" / FILE).read_bytes()
    file("cut").write_bytes(data[: len(data) // 3])
    other = sqlite3.connect(file("foreign"))
    other.execute("CREATE TABLE photos (name TEXT)")
    other.close()
    newer = earlier(tmp_path / "newer")
    newer.set_meta({"version": 99})
    newer.close()
    odd = earlier(tmp_path / "odd")
    odd.connection.execute("UPDATE insights SET record = ?", (zlib.compress(b"[1]"),))
    odd.close()
    store = new_run(tmp_path / "new")
    gathered = recall.gather(store, [tmp_path])
    assert gathered.runs == 1
    assert sorted(line.split(":")[0] for line in gathered.skipped) == [
        "cut", "empty", "foreign", "newer", "odd", "text",
    ]  # fmt: skip
    assert all("not a readable run (" in line and "\n" not in line for line in gathered.skipped)
    assert len(texts(store)) == 2


def test_gathering_again_replaces(tmp_path: Path) -> None:
    earlier(tmp_path / "old").close()
    store = new_run(tmp_path / "new")
    first = recall.gather(store, [tmp_path])
    assert recall.gather(store, [tmp_path]) == first
    assert len(texts(store)) == first.kept
    recall.gather(store, [])
    assert texts(store) == []


def test_an_insight_told_before_its_program_was_measured(tmp_path: Path) -> None:
    old = sample_run.make(tmp_path / "old")
    tuned = next(p for p in old.programs() if p.note == "BLOCK_N 128 -> 256")
    told = Insight(
        text="blocks of twice the width help", island=0, author="mailbox",
        evidence=(Evidence(program=tuned.id), Evidence(program="0" * 32)),
    )  # fmt: skip
    Notebook(old).add_insight(told)
    old.close()
    store = new_run(tmp_path / "new")
    recall.gather(store, [tmp_path])
    (item,) = Notebook(store).recalled()
    assert item.gain == pytest.approx((1.1 * 1.4) ** 0.5)
    assert item.language == "triton"


def test_golden(tmp_path: Path) -> None:
    earlier(tmp_path / "old").close()
    far = "half precision is not worth its conversions"
    earlier(tmp_path / "far", far, device=OTHER_GPU, definition="scale_rows_f16").close()
    failing = sample_run.make(tmp_path / "failing")
    program = next(p for p in failing.programs() if p.emitter == "crossover")
    evidence = (Evidence(program=program.id, status=Status.RUNTIME_ERROR.value),)
    Notebook(failing).add_insight(
        Insight(text="`tl.stor` is no name", island=0, author="m", evidence=evidence)
    )
    failing.close()
    store = new_run(tmp_path / "new")
    recall.gather(store, [tmp_path], about=sample_run.NOTES)
    text = fit([recalled_section(Notebook(store).recalled(), 1)], 1000)
    file = GOLDEN / "recalled.md"
    if os.environ.get("TILEVOLVE_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


# -- likeness -------------------------------------------------------------------------------------


def test_likeness_sees_through_small_words_and_endings() -> None:
    assert likeness("the tiles waste warps", "tile wasting a warp") == 1.0
    assert likeness("wide tiles waste warps", "split the columns over a cluster") == 0.0
    assert 0.3 < likeness("wide tiles waste warps on few rows", "wide tiles waste registers") < 0.7


def test_relevance_prefers_rare_words_that_match() -> None:
    texts = ["rows in pairs", "rows in fours with a cluster", "columns"]
    found = relevance("a cluster of blocks, rows", texts)
    assert found[1] == 1.0
    assert 0 < found[0] < 1
    assert found[2] == 0
    assert relevance("nothing shared", texts) == [0.0, 0.0, 0.0]
    assert relevance("x", []) == []
