"""Runs survive `kill -9`, continue as if nothing had happened, and move between directories."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evolve.store import FILE, Store

DRIVER = Path(__file__).parent / "driver.py"
PORT = 6411  # Ray's workers take 10002 to 19999
KILLS = 20
EVALUATIONS = 130


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray head that outlives the killed drivers, as a cluster's would."""
    program = str(Path(sys.executable).parent / "ray")
    head = subprocess.Popen(
        f"{program} start --head --block --port {PORT} --num-cpus 8"
        " --node-ip-address 127.0.0.1 --include-dashboard false".split(),
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", PORT)):
        assert time.monotonic() < deadline, "the Ray head did not start"
        time.sleep(0.2)
    yield f"127.0.0.1:{PORT}"
    head.terminate()
    head.wait(timeout=30)


def start(run_dir: Path, address: str, islands: int, in_flight: int) -> subprocess.Popen[bytes]:
    arguments = [str(run_dir), str(EVALUATIONS), str(islands), str(in_flight), "0.004"]
    return subprocess.Popen(
        [sys.executable, str(DRIVER), *arguments],
        env={**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(run_dir: Path, address: str, islands: int = 1, in_flight: int = 1) -> None:
    process = start(run_dir, address, islands, in_flight)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()[-2000:]


def records(run_dir: Path) -> list[tuple[str, int, str, str, float, str]]:
    """Every evaluation in order, without clock times."""
    store = Store.open(run_dir, readonly=True)
    rows = [
        (r.program_id, r.epoch, r.kind, r.emitter, r.evaluation.score, r.evaluation.status.value)
        for r in store.evaluations()
    ]
    store.close()
    return rows


def count(run_dir: Path) -> int:
    if not (run_dir / FILE).exists():
        return 0
    db = sqlite3.connect(f"file:{run_dir / FILE}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # killed before the table was made
    finally:
        db.close()


@pytest.fixture(scope="module")
def whole(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    finish(run_dir, cluster)
    return run_dir


def test_two_runs_with_one_seed_are_identical(whole: Path, cluster: str, tmp_path: Path) -> None:
    finish(tmp_path / "again", cluster)
    assert records(tmp_path / "again") == records(whole)
    assert len(records(whole)) == EVALUATIONS + 1  # the seed is not charged


def test_twenty_kills_leave_the_run_as_if_undisturbed(
    whole: Path, cluster: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    rng = np.random.default_rng(11)
    seen: list[tuple[str, int, str, str, float, str]] = []
    for life in range(KILLS):
        process = start(run_dir, cluster, 1, 1)
        target = int(EVALUATIONS * (life + rng.random()) / (KILLS + 1))
        deadline = time.monotonic() + 60
        while count(run_dir) < target and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, 0.02)))  # any moment between two transactions
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not (run_dir / FILE).exists():
            continue
        now = records(run_dir)
        assert now[: len(seen)] == seen, "a recorded evaluation was lost or changed"
        seen = now
        moved = tmp_path / f"moved-{life}"  # a copied directory continues elsewhere
        if life % 5 == 0:
            shutil.copytree(run_dir, moved)
            shutil.rmtree(run_dir)
            run_dir = moved
    finish(run_dir, cluster)
    final = records(run_dir)
    assert len({(program, epoch) for program, epoch, *_ in final}) == len(final)
    assert final == records(whole), "the random streams did not continue"


def test_a_killed_parallel_run_evaluates_everything_once(cluster: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for target in (30, 120):
        process = start(run_dir, cluster, 3, 4)
        while count(run_dir) < target and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(run_dir, cluster, 3, 4)
    final = records(run_dir)
    assert len(final) >= EVALUATIONS + 1
    assert len({(program, epoch) for program, epoch, *_ in final}) == len(final)
    store = Store.open(run_dir, readonly=True)
    assert not store.pending()
