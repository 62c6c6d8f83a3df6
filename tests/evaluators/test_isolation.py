"""A hostile candidate is stopped, gets its status, leaves nothing behind, harms nobody after it.

Each test ends with an ordinary candidate that has to pass on the same evaluator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators import confinement
from evaluators.pipeline import Evaluator
from evaluators.schema import LOG_LIMIT, Evaluation, Language, Status
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import CPP, GOOD, evaluator, solution

MARK = 7_000_000 + 10 * os.getpid()
"""Seconds that this run's stray processes sleep: their command lines tell them from others."""

SECRET = "sk-planted-0123456789"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    settings = EvaluatorSettings(
        build_deadline_s=20, run_deadline_s=0.5, memory_bytes=600 << 20, latency_s=0.05, samples=4
    )
    os.environ["OPENAI_API_KEY"] = SECRET
    try:
        made = evaluator(tmp_path_factory.mktemp("double"), settings)
    finally:
        del os.environ["OPENAI_API_KEY"]
    yield made
    made.close()


def run(judge: Evaluator, body: str, *, later: bool = False) -> Evaluation:
    """Evaluate a Python kernel that does `body`; with `later` only in calls after the build."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = (
        "import os, sys, time\nimport torch\ncalls = 0\ndef run(x, scale, y):\n    global calls\n"
    )
    text += "    calls += 1\n    torch.mul(x, scale, out=y)\n"
    # Each of the two workloads is called once while building.
    text += f"    if calls <= {2 if later else 0}: return\n{lines}\n"
    return judge.evaluate(solution(text), trusted=True)


def cpp(judge: Evaluator, body: str) -> Evaluation:
    return judge.evaluate(solution(CPP % body, Language.CPP), trusted=True)


def passes(judge: Evaluator) -> None:
    found = judge.evaluate(solution(GOOD))
    assert found.status is Status.PASSED, found.log
    assert len(found.results) == 2


def processes_with(word: str) -> list[str]:
    """Command lines of living processes whose environment or arguments hold `word`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in text:
            found.append(text.decode(errors="replace"))
    return found


def test_loop_is_a_timeout(judge: Evaluator) -> None:
    start = time.monotonic()
    found = run(judge, "while True: pass", later=True)
    assert found.status is Status.TIMEOUT
    assert "2 s" in found.log
    assert time.monotonic() - start < 10
    passes(judge)


def test_exit_is_a_runtime_error(judge: Evaluator) -> None:
    hard = run(judge, "os._exit(7)")
    assert hard.status is Status.RUNTIME_ERROR
    assert "code 7" in hard.log
    soft = run(judge, "sys.exit(3)", later=True)
    assert soft.status is Status.RUNTIME_ERROR
    assert "SystemExit: 3" in soft.log
    passes(judge)


def test_segmentation_fault_names_its_signal(judge: Evaluator) -> None:
    found = cpp(judge, "volatile int* p = nullptr; *p = 1;")
    assert found.status is Status.RUNTIME_ERROR
    assert "SIGSEGV" in found.log
    passes(judge)


def test_endless_printing_is_stopped_and_its_log_capped(judge: Evaluator) -> None:
    line = "for _ in range(100): print('all work and no play ' * 50_000, flush=True)"
    found = judge.evaluate(solution(f"def run(x, scale, y):\n    {line}\n"))
    assert found.status is Status.RUNTIME_ERROR
    assert "SIGXFSZ" in found.log
    assert "all work and no play" in found.log
    assert len(found.log) <= LOG_LIMIT
    passes(judge)


@pytest.mark.parametrize("language", ["python", "cpp"])
def test_endless_allocation_is_out_of_memory(judge: Evaluator, language: str) -> None:
    if language == "python":
        found = run(judge, "kept = []\nwhile True: kept.append(torch.ones(1 << 22))", later=True)
    else:
        found = cpp(judge, "for (;;) { std::memset(std::malloc(1 << 24), 1, 1 << 24); }")
    assert found.status is Status.OUT_OF_MEMORY
    passes(judge)


def test_memory_of_its_children_counts(judge: Evaluator) -> None:
    body = "kept = []\nif os.fork() == 0:\n    while True: kept.append(bytearray(b'1') * (1 << 22))"
    found = run(judge, body + "\nos.wait()", later=True)
    assert found.status is Status.OUT_OF_MEMORY
    passes(judge)


@pytest.mark.parametrize("escape", ["", "setsid "])
def test_forked_children_do_not_survive(judge: Evaluator, escape: str) -> None:
    seconds = MARK + bool(escape)
    found = run(judge, f"os.system('{escape}sleep {seconds} &')")
    assert found.status is Status.PASSED, found.log
    assert processes_with(f"sleep\0{seconds}") == []
    twice = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    twice += f"        os.execlp('sleep', 'sleep', '{seconds}')\n    os._exit(0)"
    assert run(judge, twice).status is Status.PASSED
    assert processes_with(f"sleep\0{seconds}") == []
    passes(judge)


def test_children_of_a_candidate_that_ended_do_not_survive(judge: Evaluator) -> None:
    found = run(judge, f"os.system('setsid sleep {MARK + 2} &')\nos.kill(os.getpid(), 9)")
    assert found.status is Status.RUNTIME_ERROR
    assert "SIGKILL" in found.log
    assert processes_with(f"sleep\0{MARK + 2}") == []
    passes(judge)


def test_killing_its_keeper_frees_nothing(judge: Evaluator) -> None:
    body = f"os.system('setsid sleep {MARK + 3} &')\nos.kill(os.getppid(), 9)\ntime.sleep(60)"
    found = run(judge, body)
    assert found.status is Status.RUNTIME_ERROR
    passes(judge)
    deadline = time.monotonic() + 5
    while processes_with(f"sleep\0{MARK + 3}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(f"sleep\0{MARK + 3}") == []


def test_killing_the_nursery_harms_nobody_else(judge: Evaluator) -> None:
    body = "keeper = open(f'/proc/{os.getppid()}/stat').read()\n"
    body += f"os.system('setsid sleep {MARK + 4} &')\n"
    body += "os.kill(int(keeper.rpartition(')')[2].split()[1]), 9)\ntime.sleep(60)"
    found = run(judge, body)
    assert found.status is Status.RUNTIME_ERROR
    passes(judge)
    assert processes_with(f"sleep\0{MARK + 4}") == []


def test_threads_are_bound_to_cores_on_the_cpu_alone() -> None:
    """On a GPU all candidates that build at once would share the first core."""
    assert confinement.scrubbed({}, "cpu")["OMP_PROC_BIND"] == "TRUE"
    assert "OMP_PROC_BIND" not in confinement.scrubbed({"OMP_PROC_BIND": "TRUE"}, "cuda")


def test_the_environment_is_scrubbed(judge: Evaluator) -> None:
    body = f"""
mine = str(dict(os.environ)) + open('/proc/self/environ').read()
assert {SECRET!r} not in mine
assert 'PATH' in os.environ and 'OPENAI_API_KEY' not in os.environ
assert os.environ['HOME'] == os.getcwd()
"""
    found = run(judge, body)
    assert found.status is Status.PASSED, found.log


def test_there_is_no_network(judge: Evaluator) -> None:
    if judge.network:
        pytest.skip(judge.network)
    found = run(judge, "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)")
    assert found.status is Status.RUNTIME_ERROR
    assert "OSError" in found.log
    assert "not supported" in found.log


def test_inputs_are_read_only(judge: Evaluator) -> None:
    found = run(judge, "x.mul_(1)")
    assert found.status is Status.RUNTIME_ERROR
    assert "SIGSEGV" in found.log
    passes(judge)


def test_nothing_is_left_in_the_temporary_folder(judge: Evaluator) -> None:
    found = run(judge, "open('left', 'w').write('x')\nraise ValueError(os.getcwd())")
    assert found.status is Status.RUNTIME_ERROR
    assert "ValueError" in found.log
    assert "tilevolve-" not in found.log
    anchors = list(Path(os.environ.get("TMPDIR", "/tmp")).glob("tilevolve-*/left"))
    assert anchors == []
    passes(judge)


def test_a_garbled_reply_is_a_runtime_error(judge: Evaluator) -> None:
    """The candidate writes to its socket by itself: the judge reads JSON or gives up."""
    body = """
import socket, stat
for fd in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, b'\\xff' * 64)
    except OSError:
        pass
"""
    found = run(judge, body)
    assert found.status is Status.RUNTIME_ERROR
    passes(judge)


def test_processes_end_with_the_evaluator(tmp_path: Path) -> None:
    settings = EvaluatorSettings(latency_s=0.05, samples=4)
    made = evaluator(tmp_path, settings)
    pids = made.processes()
    assert len(pids) >= 3  # nursery, the anchor's keeper, the anchor
    made.close()
    assert not [p for p in pids if Path(f"/proc/{p}").exists()]
