"""The evaluator as a Ray actor, and what remains when its process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from evaluators import arena, catalog
from evaluators.epoch import RING
from evaluators.pipeline import Evaluator
from evaluators.schema import Status
from evaluators.settings import EvaluatorSettings
from evaluators.worker import EvaluatorWorker, make_actor

ROOT = Path(__file__).resolve().parents[2]

JUDGE = """
import sys, threading, time
from pathlib import Path
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import evaluator, solution

judge = evaluator(Path(sys.argv[1]), EvaluatorSettings())
loop = solution("def run(x, scale, y):\\n    while True: pass\\n")
threading.Thread(target=judge.evaluate, args=(loop,)).start()
time.sleep(0.5)
print(*judge.processes(), flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local",  # never a cluster that happens to run on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


def test_a_real_operator_goes_through_the_actor(cluster: None) -> None:
    operator = catalog.load_operator("matmul_bias_gelu")
    definition = operator.definition(None, "cpu")
    seed = catalog.seeds(operator, definition, "cpu")[0]
    settings = EvaluatorSettings(latency_s=0.1, samples=4)
    actor = make_actor("cpu", definition, operator.folder, settings)
    workloads = ray.get(actor.sample.remote("search", 0, 1, 2))
    assert workloads == ray.get(actor.sample.remote("search", 0, 1, 2))
    assert workloads != ray.get(actor.sample.remote("search", 1, 1, 2))
    assert ray.get(actor.sample.remote("report", 0, 0, None))
    assert all(f > 0 and b > 0 for f, b in ray.get(actor.costs.remote(workloads)))
    ray.get(actor.open_epoch.remote(0, workloads, seed))
    found = ray.get(actor.evaluate.remote(seed, trusted=False, samples_factor=1))
    assert found.status is Status.PASSED, found.log
    assert ray.get(actor.facts.remote())["slots"] == 1
    ray.get(actor.close.remote())
    ray.kill(actor)


def test_a_killed_judge_leaves_no_process(tmp_path: Path) -> None:
    judge = subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert judge.stdout is not None
    pids = judge.stdout.readline().split()
    assert len(pids) == 5  # the nursery, two keepers, the anchor and the candidate
    os.kill(judge.pid, signal.SIGKILL)
    judge.wait()
    deadline = time.monotonic() + 10
    while any(Path("/proc", p).exists() for p in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [p for p in pids if Path("/proc", p).exists()]
    assert not list(tmp_path.glob("tilevolve-*"))


@pytest.mark.parametrize(
    ("operator_name", "name"),
    [
        ("matmul_bias_gelu", "matmul_bias_gelu_bf16_k7168_n2048"),
        ("gqa_paged_decode", "gqa_paged_decode_h32_kv8_d128_ps16"),
    ],
)
def test_what_is_reserved_holds_the_report(
    operator_name: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA, with the operator's cases: a block that grows cannot give back its memory."""
    operator = catalog.load_operator(operator_name)
    definition = operator.definitions[name]
    monkeypatch.setattr(Evaluator, "input_bytes", 75 << 30)
    worker = EvaluatorWorker("cpu", definition, str(operator.folder), EvaluatorSettings())
    worker._evaluator.device = "cuda"
    found = worker.sample("report", 0, 0, None)
    cases = catalog.load_module(operator).cases(definition.model_dump(mode="json"))
    axes = [*(w.axes for w in found), *(axes for axes, _ in cases)]
    scalars = [dict.fromkeys(definition.inputs, 1.0)] * len(axes)
    needed = arena.plan(definition, axes, scalars, RING).input_bytes
    assert needed <= worker._report_bytes() < 1.02 * needed
    worker.close()
