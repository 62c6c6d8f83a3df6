"""`ask`, `tell` and `prompt`: bad input, and a real run that evaluates what was told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from evolve.exchanges import Exchanges
from evolve.store import Store
from tests.cli.conftest import BUDGET, Evolve, Finished, evolve_process

COMMANDS = ("ask", "tell", "prompt")
SUM = "sum[r][c] += value * packed[p * TILE_N + c];"


@pytest.fixture
def run_dir(finished: Finished, tmp_path: Path) -> Path:
    """A finished run of its own: asking and telling write to it."""
    return shutil.copytree(finished.run_dir, tmp_path / "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(evolve: Evolve, command: str) -> None:
    called = evolve(command, "--help")
    assert called.code == 0
    assert f"Example: evolve {command}" in called.out
    assert "--json" in called.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "{run}", "--out", "{mail}", "-n", "0"), "-n must be greater than 0"),
        (("ask", "{run}", "--out", "{mail}", "--tokens", "-1"), "--tokens must be greater"),
        (("ask", "{run}", "--out", "{mail}", "--tokens", "200"), "--tokens 200 is too small"),
        (("ask", "{run}", "--out", "{mail}", "--mode", "dif"), "unknown mode 'dif', known: diff"),
        (("ask", "{run}", "--out", "/proc/nowhere"), "cannot write to /proc/nowhere"),
        (("ask", "{run}/absent", "--out", "{mail}"), "no run at"),
        (("ask", "{run}"), "--out"),
        (("tell", "{run}", "{mail}"), "no folder"),
        (("tell", "{run}", "{run}"), "no answer in"),
        (("prompt", "{run}", "--mode", "translate"), "nothing to translate"),
        (("prompt", "{run}", "--mode", "best"), "unknown mode 'best'"),
    ],
)
def test_bad_input_is_one_line(
    evolve: Evolve, finished: Finished, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"run": finished.run_dir, "mail": tmp_path / "mail"}
    called = evolve(*(a.format(**places) for a in arguments))
    assert called.code == 2
    assert message in called.err
    assert len(called.err.strip().splitlines()) == 1
    assert not (tmp_path / "mail").exists()


def test_prompt_prints_and_stores_nothing(evolve: Evolve, run_dir: Path) -> None:
    text = evolve("prompt", run_dir, "--mode", "diff")
    assert text.code == 0, text.err
    assert text.out.startswith("# matmul_bias_gelu: diff, C++")
    assert "kernels/matmul_bias_gelu" not in text.out
    assert str(run_dir) not in text.out
    facts = evolve("prompt", run_dir, "--mode", "diff", "--json").document
    assert facts["prompt"] == text.out
    assert facts["tokens"] <= 12_000
    store = Store.open(run_dir, readonly=True)
    assert Exchanges(store).all() == []


def test_ask_tell_resume_ask_again(evolve: Evolve, run_dir: Path, tmp_path: Path) -> None:
    """One right answer and one wrong result go through the real evaluator, then are reported."""
    mail = tmp_path / "mail"
    called = evolve("ask", run_dir, "-n", 3, "--mode", "diff", "--out", mail, "--json")
    assert called.code == 0, called.err
    right, wrong, unusable = called.document["asked"]
    # Halved and doubled: the same numbers, and not the same machine code as the parent's.
    halved = "sum[r][c] += (0.5f * value) * (2.0f * packed[p * TILE_N + c]);"
    answer(right, "two factors", SUM, halved)
    answer(wrong, "off by one", SUM, "sum[r][c] += value * packed[p * TILE_N + c] + 1.0f;")
    answer(unusable, "nowhere", "sum[i][j]", "0")

    told = evolve("tell", run_dir, mail)
    assert told.code == 0, told.err
    states = dict(line.split()[:2] for line in told.out.splitlines()[:3])
    assert states == {right["id"]: "QUEUED", wrong["id"]: "QUEUED", unusable["id"]: "UNREADABLE"}
    command = re.search(r"evolve resume (\S+) --evaluations (\d+)", told.out)
    assert command is not None
    assert (command[1], int(command[2])) == (str(run_dir), BUDGET + 2)
    assert evolve("status", run_dir, "--json").document["pending"] == 2

    moved = shutil.move(run_dir, tmp_path / "elsewhere")  # the run directory is all that moves
    store = Store.open(moved)
    ceilings = {**store.meta["device"]["ceilings"], "copy_gbps": 1e5}
    store.set_meta({"device": {**store.meta["device"], "ceilings": ceilings}})
    store.close()
    budget = ("--evaluations", command[2])
    resumed = evolve_process("resume", moved, *budget, "--search-only", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.document["report"] is None  # the closing is left to a later resume
    facts = evolve("status", moved, "--json").document
    assert (facts["evaluations"], facts["pending"]) == (BUDGET + 2, 0)
    assert facts["by_emitter"]["mailbox"] == 2
    device = Store.open(moved, readonly=True).meta["device"]
    assert device["ceilings"]["copy_gbps"] == 1e5  # a busy machine does not lower the roof
    assert device["ceilings"]["tflops"]["float32"] > 0

    after = {a["id"]: a for a in evolve("tell", moved, mail, "--json").document["answers"]}
    assert after[right["id"]]["state"] == "PASSED", after[right["id"]]
    # It is measured in full where the first workloads do not say that it is clearly slower.
    assert (after[right["id"]]["gain"] is None) == (after[right["id"]]["rung"] == "screen")
    assert after[wrong["id"]]["state"] == "INCORRECT_NUMERICAL"
    assert after[wrong["id"]]["log"]
    text = evolve("prompt", moved).out
    assert f"{right['id']} (two factors): PASSED" in text
    assert f"{wrong['id']} (off by one): INCORRECT_NUMERICAL" in text
    repair = evolve("prompt", moved, "--mode", "repair", "--json").document
    assert repair["parents"] == [after[wrong["id"]]["program"]]
    assert "1.0f;" in repair["prompt"]


def answer(asked: dict[str, Any], note: str, old: str, new: str) -> None:
    """Answers a prompt by changing one line of its program, found in the prompt itself."""
    lines = Path(asked["file"]).read_text().splitlines()
    line = next((x for x in lines if x.strip().endswith(old)), old)
    text = f"CHANGE: {note}\n<<<<<<< SEARCH\n{line}\n=======\n{line.replace(old, new)}\n"
    Path(asked["answer"]).write_text(text + ">>>>>>> REPLACE\n")
