"""`replay`: bad input, and a real run repeated: interrupted, resumed, compared with its claim."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evolve.store import Store
from tests.cli.conftest import (
    BUDGET,
    Evolve,
    Finished,
    Rows,
    evolve_process,
    wait_for_flight,
)
from tests.cli.terminal import CTRL_C, Terminal, assert_all_end
from tests.cli.test_mailbox import SUM, answer


def test_help_shows_an_example(evolve: Evolve) -> None:
    called = evolve("replay", "--help")
    assert called.code == 0
    assert "Example: evolve replay" in called.out
    assert "--json" in called.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{run}/absent",), "no run at"),
        (("{run}", "--require", "90"), "--require takes a share of the claim such as 0.9"),
        (("{run}", "--require", "0"), "--require takes a share"),
        (("{run}", "--evaluations", "0"), "--evaluations must be greater than 0"),
        (("{run}", "--results", "{results}", "--out", "{name}"), "already holds a run"),
        (("{empty}",), "no evaluated program that could be repeated"),
    ],
)
def test_bad_input_is_one_line(
    evolve: Evolve, finished: Finished, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    run_dir = finished.run_dir
    source = Store.open(run_dir, readonly=True)
    Store.create(tmp_path / "empty", source.meta).close()
    source.close()
    places = {
        "run": run_dir, "results": run_dir.parent, "name": run_dir.name,
        "empty": tmp_path / "empty",
    }  # fmt: skip
    called = evolve("replay", *(a.format(**places) for a in arguments))
    assert called.code == 2
    assert message in called.err
    assert len(called.err.strip().splitlines()) == 1


def test_a_run_is_repeated_across_an_interrupt(
    evolve: Evolve, finished: Finished, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(finished.run_dir, tmp_path / "run")
    (asked,) = evolve("ask", run_dir, "-n", 1, "--out", tmp_path, "--json").document["asked"]
    answer(asked, "never evaluated", SUM, "sum[r][c] = sum[r][c] + packed[p * TILE_N + c] * value;")
    assert evolve("tell", run_dir, tmp_path).code == 0

    again = tmp_path / "again"
    arguments = ("--results", str(tmp_path), "--out", "again", "--no-peers")
    terminal = Terminal("replay", str(run_dir), *arguments)
    try:
        wait_for_flight(again, after=1)
        family = terminal.family()
        terminal.press(CTRL_C)
        assert terminal.wait(60) == 130
        assert_all_end(family)
    finally:
        terminal.end()
    assert "1 exchanges, 1 answers: 1 are worth the same as then" in terminal.screen
    shutil.rmtree(run_dir)  # the replay needs it no more

    resumed = evolve_process("resume", again, "--json")
    assert resumed.code == 0, resumed.err
    facts = resumed.document["replay"]
    assert json.loads((again / "replay.json").read_text()) == facts
    assert facts["repeats"] == "run"
    assert facts["programs"] == facts["evaluated"]
    assert facts["left_out"] >= 1
    assert facts["exchanges"]["verdicts"] == {"QUEUED": 1}

    then, now = Rows.of(finished.run_dir), Rows.of(again)
    assert searched(now) == searched(then)
    assert len(searched(now)) <= BUDGET
    claimed = finished.called.document["report"]["champion"]["program_id"]
    assert facts["claimed"]["program"] == claimed
    champion = resumed.document["report"]["champion"]["program_id"]
    assert facts["reached"]["program"] == champion
    assert facts["same_champion"] == (champion == claimed)
    # The same programs, and nearly always the same champion: within what a busy machine does to it.
    assert 0.3 < facts["share"] < 3
    assert facts["thresholds"]["60%"] == (facts["share"] >= 0.6)
    assert facts["workloads"] == len(resumed.document["report"]["workloads"])


def searched(rows: Rows) -> list[str]:
    return [program for program, _, kind, _ in rows.evaluations if kind == "search"]
