"""Asking and telling through files: what becomes of answers, once and twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators import catalog
from evaluators.schema import Language
from evolve import mailbox
from evolve.errors import UserError
from evolve.exchanges import Exchanges, Mode, Verdict
from evolve.llm.answering import note_of
from evolve.llm.history import History
from evolve.store import Store
from islands.program import Program
from tests.llm import sample_run

TILELANG = """\
import tilelang
import tilelang.language as T


def run(x, scale, offset, output):
    tilelang.compile(x)
"""


class Box:
    """A run and a folder of mail."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.mail = folder / "mail"

    def ask(self, mode: Mode | None = Mode.DIFF, count: int = 1) -> list[str]:
        asked = mailbox.ask(self.run, count, self.mail, mode, 8000)
        return [facts["id"] for facts in asked]

    def answer(self, exchange: str, text: str) -> None:
        (self.mail / f"{exchange}.answer.md").write_text(text)

    def tell(self, dry: bool = False) -> list[dict[str, object]]:
        found: list[dict[str, object]] = mailbox.tell(self.run, self.mail, dry)["answers"]
        return found

    def rejection(self, exchange: str) -> Path:
        return self.mail / f"{exchange}.rejected.md"

    def open(self) -> Store:
        return Store.open(self.run, readonly=True)

    def pending(self) -> list[Program]:
        return self.open().pending()

    def parent(self, exchange: str) -> str:
        """Source of the program that a prompt is about."""
        store = self.open()
        asked = Exchanges(store).get(exchange)
        assert asked is not None
        return store.program(asked.parents[0]).solution.entry_source


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(catalog, "ROOT", sample_run.root(tmp_path / "root"))
    sample_run.make(tmp_path / "run").close()
    return Box(tmp_path)


def edit(old: str, new: str, note: str = "an idea") -> str:
    return f"CHANGE: {note}\n\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def good(box: Box, exchange: str) -> str:
    """An edit of the first line that loads, which both seeds have."""
    line = next(x for x in box.parent(exchange).splitlines() if "tl.load(x_ptr" in x)
    return edit(line, line.replace("mask=at < columns", "mask=at < columns, other=0.0"))


# -- asking ---------------------------------------------------------------------------------------


def test_prompts_are_files_and_records(box: Box) -> None:
    asked = mailbox.ask(box.run, 3, box.mail, None, 8000)
    exchanges = Exchanges(box.open())
    for number, facts in enumerate(asked):
        text = Path(facts["file"]).read_text()
        kept = exchanges.get(facts["id"])
        assert kept is not None
        assert kept.prompt == text
        assert kept.number == number
        assert Path(facts["answer"]).name in text
        assert facts["tokens"] <= 8000
    assert exchanges.next_number() == 3
    assert {p.name for p in box.mail.iterdir()} == {Path(f["file"]).name for f in asked}


def test_the_preview_is_what_ask_writes_next(box: Box) -> None:
    for _ in range(2):
        shown = mailbox.preview(box.run, None, 8000)
        assert Exchanges(box.open()).get(shown["id"]) is None
        (asked,) = mailbox.ask(box.run, 1, box.mail, None, 8000)
        assert Path(asked["file"]).read_text() == shown["prompt"]


def test_a_mode_with_nothing_to_do_ends(box: Box) -> None:
    assert len(box.ask(Mode.REPAIR, 5)) == 1
    with pytest.raises(UserError, match="nothing to repair"):
        box.ask(Mode.REPAIR)


def test_a_run_without_elites_has_nothing_to_ask(box: Box, tmp_path: Path) -> None:
    Store.create(tmp_path / "empty", sample_run.meta()).close()
    with pytest.raises(UserError, match="no program that passed"):
        mailbox.ask(tmp_path / "empty", 1, box.mail, None, 8000)


# -- telling --------------------------------------------------------------------------------------


def test_an_answer_becomes_a_pending_program(box: Box) -> None:
    (name,) = box.ask()
    box.answer(name, good(box, name))
    (told,) = box.tell()
    assert told["state"] == "QUEUED"
    (program,) = box.pending()
    asked = Exchanges(box.open()).get(name)
    assert asked is not None
    assert program.id == told["program"]
    assert (program.emitter, program.note) == ("mailbox", "diff: an idea")
    assert (program.parents, program.island) == (asked.parents, asked.island)
    assert "other=0.0" in program.solution.entry_source
    assert not box.rejection(name).exists()


def test_telling_twice_changes_nothing(box: Box) -> None:
    (name, other) = box.ask(count=2)
    box.answer(name, good(box, name))
    box.answer(other, edit("no such line", "x"))
    first = box.tell()
    before = sorted((p.name, p.read_text()) for p in box.mail.iterdir())
    again = box.tell()
    assert [a["new"] for a in first] == [True, True]
    assert [a["new"] for a in again] == [False, False]
    assert [a["state"] for a in first] == [a["state"] for a in again] == ["QUEUED", "UNREADABLE"]
    assert len(box.pending()) == 1
    assert before == sorted((p.name, p.read_text()) for p in box.mail.iterdir())
    box.answer(name, edit("no such line either", "x"))  # too late: the exchange is settled
    assert box.tell()[0]["state"] == "QUEUED"


def test_a_rejected_answer_may_be_given_once_more(box: Box) -> None:
    (name,) = box.ask()
    box.answer(name, edit("    x = tl.lod(x_ptr)", "    x = 0"))
    (told,) = box.tell()
    assert (told["state"], told["attempts_left"]) == ("UNREADABLE", 1)
    reason = box.rejection(name).read_text()
    assert "Nearest is line " in reason
    assert f"{name}.answer.md" in reason
    box.answer(name, good(box, name))
    (told,) = box.tell()
    assert told["state"] == "QUEUED"
    assert not box.rejection(name).exists()
    replies = Exchanges(box.open()).replies(name)
    assert [r.verdict for r in replies] == [Verdict.UNREADABLE, Verdict.QUEUED]


def test_a_second_rejection_closes_the_exchange(box: Box) -> None:
    (name,) = box.ask()
    for wrong in ("first", "second"):
        box.answer(name, edit(wrong, "x"))
        (told,) = box.tell()
    assert told["attempts_left"] == 0
    assert "closed" in box.rejection(name).read_text()
    box.answer(name, good(box, name))
    (told,) = box.tell()
    assert (told["new"], told["state"]) == (False, "UNREADABLE")
    assert not box.pending()


def test_a_change_of_comments_is_no_change(box: Box) -> None:
    (name,) = box.ask()
    line = next(x for x in box.parent(name).splitlines() if x.startswith("def run"))
    box.answer(name, edit(line, f"{line}\n    # the entry point"))
    assert box.tell()[0]["state"] == "UNCHANGED"
    assert not box.pending()


def test_a_known_program_is_a_duplicate(box: Box) -> None:
    store = Store.open(box.run)
    history = History(store)
    (name,) = box.ask()
    asked = Exchanges(store).get(name)
    assert asked is not None
    other = next(p for p in history.programs.values() if p.id not in asked.parents)
    store.close()
    box.answer(name, f"CHANGE: again\n\n```python\n{other.solution.entry_source}```\n")
    (told,) = box.tell()
    assert (told["state"], told["program"]) == ("DUPLICATE", other.id)
    assert "known" in box.rejection(name).read_text()


def test_the_guard_refuses_before_anything_is_queued(box: Box) -> None:
    (name,) = box.ask()
    box.answer(name, edit("import triton", "import triton\nimport subprocess"))
    (told,) = box.tell()
    assert told["state"] == "REFUSED"
    assert "subprocess" in str(told["reason"])
    assert not box.pending()


def test_a_translation_is_a_program_of_the_other_language(box: Box) -> None:
    (name,) = box.ask(Mode.TRANSLATE)
    asked = Exchanges(box.open()).get(name)
    assert asked is not None
    assert asked.language is Language.TILELANG
    box.answer(name, f"CHANGE: into TileLang\n\n```python\n{TILELANG}```\n")
    (told,) = box.tell()
    assert told["state"] == "QUEUED", told
    (program,) = box.pending()
    assert program.solution.spec.language is Language.TILELANG
    assert program.solution.entry_source == TILELANG


def test_an_answer_to_another_run_is_named(box: Box) -> None:
    box.ask()
    box.answer("0099-diff-abcdef", "CHANGE: x")
    (told,) = box.tell()
    assert told["state"] == "UNKNOWN"


@pytest.mark.parametrize("data", [b"\xff\xfe not text", b"x" * (mailbox.LONGEST + 1), b""])
def test_what_is_no_text_is_told_so(box: Box, data: bytes) -> None:
    (name,) = box.ask()
    (box.mail / f"{name}.answer.md").write_bytes(data)
    (told,) = box.tell()
    assert told["state"] == "UNREADABLE"
    assert told["reason"]
    assert box.rejection(name).exists()
    assert not box.tell()[0]["new"]


def test_a_dry_run_keeps_nothing(box: Box) -> None:
    (name, other) = box.ask(count=2)
    box.answer(name, good(box, name))
    box.answer(other, "no code at all")
    assert [a["state"] for a in box.tell(dry=True)] == ["QUEUED", "UNREADABLE"]
    assert not box.pending()
    assert not box.rejection(other).exists()
    assert Exchanges(box.open()).replies(other) == []


def test_the_outcome_shows_once_there_is_one(box: Box) -> None:
    (name,) = box.ask()
    box.answer(name, good(box, name))
    box.tell()
    store = Store.open(box.run)
    (program,) = store.pending()
    sample_run.record(store, program, sample_run.passed(2.0, 2.0))
    store.close()
    report = mailbox.tell(box.run, box.mail)
    (told,) = report["answers"]
    assert (told["state"], told["archive"]) == ("PASSED", "NEW")
    assert told["score"] == pytest.approx(2.0)
    assert told["gain"] > 1
    assert report["pending"] == 0
    lines = mailbox.report_lines(report, box.run)
    assert "2.000x anchor" in lines[0]


def test_a_program_and_its_reply_are_kept_together(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = box.ask()
    box.answer(name, good(box, name))

    def full(self: Store, program: Program) -> bool:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "propose", full)
        with pytest.raises(OSError, match="disk full"):
            box.tell()
    assert Exchanges(box.open()).replies(name) == []
    (told,) = box.tell()
    assert (told["new"], told["state"]) == (True, "QUEUED")


def test_notes_are_taken_from_answers() -> None:
    assert note_of("CHANGE: faster loads\n\ncode") == "faster loads"
    assert note_of("Sure!\n**CHANGE:** faster loads\n") == "faster loads"
    assert note_of("Loads are faster now.\n```\nx\n```") == "Loads are faster now."
    assert note_of("```python\nx\n```") == ""
    assert note_of("") == ""
    assert len(note_of("CHANGE: " + "x" * 999)) == 160
