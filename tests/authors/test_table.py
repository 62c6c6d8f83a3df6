"""The table of exchanges says what became of each."""

from __future__ import annotations

import csv
from pathlib import Path

from evolve.authors import report, table
from evolve.exchanges import Exchanges, Reply, Verdict
from evolve.store import Store
from tests.authors.test_rewards import answer, ask, sample_run_record
from tests.llm import sample_run


def test_a_row_for_every_exchange(tmp_path: Path) -> None:
    store = sample_run.make(tmp_path / "run")
    good, silent, wrong = (ask(store, tmp_path) for _ in range(3))
    program = answer(store, good)
    sample_run_record(store, program, sample_run.passed(2.6, 3.2))
    Exchanges(store).reply(
        Reply(exchange=wrong.id, attempt=1, answer="?", verdict=Verdict.UNREADABLE, reason="none")
    )
    out = tmp_path / "out"
    out.mkdir()
    written = table.write(store, out, texts=True)
    assert {p.name for p in written} == {"exchanges.csv", "authors.json", "exchanges"}
    texts = out / "exchanges"
    assert (texts / f"{silent.id}.md").read_text() == silent.prompt
    assert (texts / f"{wrong.id}.answer.md").read_text() == "?"
    assert len(list(texts.iterdir())) == 5
    with (out / "exchanges.csv").open() as stream:
        first, second, third = csv.DictReader(stream)
    assert (first["id"], first["program"], first["status"]) == (good.id, program.id, "PASSED")
    assert float(first["gain"]) > 1.5
    assert (first["model"], float(first["cost"]), first["attempts"]) == ("m", 0.01, "1")
    assert (second["id"], second["verdict"]) == (silent.id, "NO_ANSWER")
    assert (third["verdict"], third["reason"], third["program"]) == ("UNREADABLE", "none", "")

    facts = report.summarise(store)
    assert facts is not None
    assert facts["verdicts"] == {"QUEUED": 1, "NO_ANSWER": 1, "UNREADABLE": 1}
    assert facts["bandits"]["modes"]["diff"]["pulls"] == 1
    text = "\n".join(report.lines(facts))
    assert "exchanges    llm 3: QUEUED 1" in text
    assert "m: 1 calls (ANSWERED 1), 1 tokens, $0.0100" in text
    assert "diff 1x" in text


def test_a_run_without_exchanges_has_none(tmp_path: Path) -> None:
    store = sample_run.make(tmp_path / "run")
    run_dir = store.run_dir
    store.close()
    store = Store.open(run_dir, readonly=True)
    assert table.write(store, tmp_path, texts=True) == []
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert report.summarise(store) is None
