"""Ctrl-C on a terminal: once finishes what is in flight, twice stops now; nothing is lost."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import BUDGET, SMALL, Finished, Rows, Stopped, wait_for_flight
from tests.cli.terminal import CTRL_C, Terminal, assert_all_end

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


def test_once_finishes_what_is_in_flight(stopped: Stopped) -> None:
    assert stopped.code == 130
    assert "stopping: finishing what is in flight" in stopped.screen
    assert f"evolve resume {stopped.run_dir}" in stopped.screen
    before, after = stopped.before.evaluations, stopped.after.evaluations
    assert after[: len(before)] == before
    assert stopped.before.pending <= {program for program, *_ in after}


def test_live_display_shows_progress_and_gives_the_terminal_back(stopped: Stopped) -> None:
    screen = stopped.screen
    assert f"/{BUDGET}" in screen
    assert all(word in screen for word in ("best", "niches", "failures", "left"))
    assert screen.rindex(SHOW_CURSOR) > screen.rindex(HIDE_CURSOR)
    assert "Traceback" not in screen


def test_resume_takes_a_stopped_run_to_its_champion(stopped: Stopped, finished: Finished) -> None:
    assert finished.called.code == 0, finished.called.err
    rows = Rows.of(finished.run_dir)
    kept = stopped.after.evaluations
    assert rows.evaluations[: len(kept)] == kept
    assert not rows.pending
    assert len([row for row in rows.evaluations if row[2] != "seed"]) == BUDGET
    assert finished.called.document["ended"] == "budget"
    assert finished.called.document["report"]["champion"]["verified"]


def test_twice_stops_now_and_loses_nothing(tmp_path: Path) -> None:
    settings = tmp_path / "slow.toml"
    settings.write_text(SMALL.replace("latency_s = 0.3", "latency_s = 3.0"))
    run_dir = tmp_path / "slow"
    terminal = Terminal("run", "--config", str(settings), "--results", str(tmp_path), "--name=slow")
    try:
        before = wait_for_flight(run_dir, after=1)
        family = terminal.family()
        terminal.press(CTRL_C)
        terminal.expect("Ctrl-C again to stop now", 10)
        terminal.press(CTRL_C)
        assert terminal.wait(15) == 130
        assert_all_end(family)
    finally:
        terminal.end()
    after = Rows.of(run_dir)
    assert after.evaluations == before.evaluations
    assert after.pending >= before.pending
    assert "Traceback" not in terminal.screen
    assert terminal.screen.rindex(SHOW_CURSOR) > terminal.screen.rindex(HIDE_CURSOR)
