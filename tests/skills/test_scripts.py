"""The scripts that the skill names, called as a coding agent calls them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from evaluators import catalog
from evolve import mailbox
from evolve.exchanges import Mode
from evolve.store import Store
from tests.llm import sample_run
from tests.llm.test_mailbox import Box, good

SCRIPTS = Path(__file__).resolve().parents[2] / "skills" / "evolve-kernel" / "scripts"
SEED = catalog.seeds(
    matmul := catalog.load_operator("matmul_bias_gelu"), matmul.definition(None, "cpu"), "cpu"
)[0]
CSV = """\
==PROF== Connected to process 7 (python)
a line of the program's own, with "quotes"
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",\
"Grid Size","Device","CC","dram__throughput.avg.pct_of_peak_sustained_elapsed",\
"gpu__time_duration.sum","launch__registers_per_thread",\
"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_selected_per_issue_active.ratio"
"","","","","","","","","","","","%","ns","register/thread","%","inst","inst","inst"
"0","7","python","h","merge","1","7","(128, 1, 1)","(8, 1, 1)","0","9.0","5.0","2,000","32",\
"n/a","1.0","3.0","1.0"
"1","7","python","h","splitkv","1","7","(256, 1, 1)","(132, 1, 1)","0","9.0","80.0","6,000",\
"168","12.5","2.0","6.0","1.0"
"2","7","python","h","splitkv","1","7","(256, 1, 1)","(132, 1, 1)","0","9.0","60.0","2,000",\
"168","12.5","2.0","6.0","1.0"
==PROF== Disconnected from process 7
"""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"skill_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(catalog, "ROOT", sample_run.root(tmp_path / "root"))
    sample_run.make(tmp_path / "run").close()
    return Box(tmp_path)


def test_feedback_says_what_became_of_every_answer(box: Box) -> None:
    asked = box.ask(Mode.DIFF, 3)
    for exchange in asked[:2]:
        box.answer(exchange, good(box, exchange))
    box.answer(asked[2], "no block at all")
    mailbox.tell(box.run, box.mail)
    store = Store.open(box.run)
    first, *_ = store.pending()
    sample_run.record(store, first, sample_run.passed(2.2, 2.8))
    store.close()

    feedback = script("feedback")
    found = feedback.feedback(box.run)
    assert [record["id"] for record in found] == asked
    measured = next(r for r in found if r["program"] == first.id)
    assert measured["status"] == "PASSED"
    assert measured["gain"] > 1
    assert any("of the roof" in line for line in measured["limits"])
    text = "\n".join(feedback.lines(measured))
    assert "x its parent, NEW" in text
    assert "| rows=64 |" in text
    assert found[2]["status"] == "UNREADABLE"
    assert "> The answer has no fenced code block." in "\n".join(feedback.lines(found[2]))
    assert len(feedback.feedback(box.run, last=1)) == 1


def test_feedback_ends_a_failure_with_its_log(box: Box) -> None:
    (exchange,) = box.ask(Mode.DIFF)
    box.answer(exchange, good(box, exchange))
    mailbox.tell(box.run, box.mail)
    store = Store.open(box.run)
    sample_run.record(store, store.pending()[0], sample_run.failed())
    store.close()
    feedback = script("feedback")
    (record,) = feedback.feedback(box.run)
    assert feedback.lines(record)[-1].endswith("has no attribute 'stor'")


def test_scripts_run_from_anywhere_and_complain_in_one_line(tmp_path: Path) -> None:
    for name, arguments in (("feedback", ["."]), ("stalls", ["read", "absent.csv"])):
        called = subprocess.run(
            [sys.executable, SCRIPTS / f"{name}.py", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert called.returncode == 2
        assert called.stderr.startswith(f"{name}: ")
        assert called.stderr.count("\n") == 1


def test_a_profile_is_summed_up_by_kernel() -> None:
    stalls = script("stalls")
    split, merge = stalls.read(CSV)
    assert (split.name, split.launches) == ("splitkv", 2)
    assert split.seconds == pytest.approx(8e-6)
    assert split.percent == pytest.approx({"dram": 75.0, "tensor": 12.5})
    assert split.launch == {"registers a thread": 168}
    assert [reason for reason, _ in split.top_stalls()] == ["long_scoreboard", "barrier"]
    assert [share for _, share in split.top_stalls()] == pytest.approx([0.75, 0.25])
    assert merge.percent == {"dram": 5.0}
    text = "\n".join(stalls.lines([split, merge]))
    assert "splitkv: 2x, 8.0 us, 80% of the time" in text
    assert "75% of stalls long_scoreboard: waits for global memory" in text


def test_what_is_no_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="no table"):
        script("stalls").read("==ERROR== ERR_NVGPUCTRPERM\n")


def test_the_command_runs_the_kernel_that_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stalls = script("stalls")
    file = tmp_path / "solution.json"
    file.write_text(json.dumps(SEED.model_dump(mode="json")))
    assert stalls.main(["command", str(file), "--device", "cpu", "--workload", "1"]) == 0
    words = capsys.readouterr().out.split()
    assert words[:4] == ["ncu", "--csv", "--page", "raw"]
    assert words[-4:] == ["launch", str(file), "--workload", "1"]
    called = subprocess.run(  # as an agent does: the script's folder comes first on the path
        [sys.executable, SCRIPTS / "stalls.py", "workloads", file, "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    assert called.stdout.startswith("0  ")
    assert stalls.main(["launch", str(file), "--device", "cpu"]) == 0
    assert stalls.main(["launch", str(file), "--device", "cpu", "--workload", "99"]) == 2
