"""`ray job submit` runs the same command on a cluster, from the repository or from a copy of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import SMALL, Rows
from tests.cli.terminal import MAIN, ROOT, alive, environment, wait_for

BIN = Path(sys.executable).parent
RAY = BIN / "ray"

pytest.importorskip("aiohttp_cors", reason="jobs need ray[default]")


def free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


@dataclass(frozen=True)
class Head:
    """A cluster of one machine. `home` is where `ray start` ran."""

    address: str
    home: Path

    def submit(self, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        """Start a job; the process ends with it."""
        return subprocess.Popen(
            [str(RAY), "job", "submit", "--address", self.address, *arguments],
            env=_environment(),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _environment() -> dict[str, str]:
    return environment(
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
        CUDA_VISIBLE_DEVICES="",
    )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    scratch = tempfile.mkdtemp(prefix="tv", dir="/tmp")  # socket paths must be short
    gcs, board, agent, grpc, client = free_ports(5)
    options = f"--num-cpus 2 --temp-dir {scratch} --node-ip-address 127.0.0.1 --port {gcs}"
    ports = f"--dashboard-port {board} --dashboard-agent-listen-port {agent}"
    ports += f" --dashboard-agent-grpc-port {grpc} --ray-client-server-port {client}"
    process = subprocess.Popen(
        [str(RAY), "start", "--head", "--block", *options.split(), *ports.split()],
        env=_environment(),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{board}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    family: list[psutil.Process] = []
    try:
        wait_for(answers, 90, "the cluster's start")
        yield Head(address, home)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=10)
            shutil.rmtree(scratch, ignore_errors=True)
    assert not alive(family)


def finished(job: subprocess.Popen[str]) -> str:
    """The job's output, once it has succeeded."""
    try:
        output, _ = job.communicate(timeout=150)
    finally:
        job.kill()
    assert job.returncode == 0, output[-3000:]
    return output


def test_script_and_copy_of_the_working_directory(head: Head, tmp_path: Path) -> None:
    """Two jobs at once; relative results of both land where `ray start` ran."""
    (tmp_path / "tiny.toml").write_text(SMALL)
    arguments = ["run", "--config", str(tmp_path / "tiny.toml"), "--evaluations=1", "--quiet"]
    checkout = tmp_path / "checkout"
    for part in ("evolve", "evaluators", "islands", "analysis", "kernels", "seeds"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, checkout / part, ignore=ignore)
    script = head.submit("--", str(MAIN), *arguments, "--name=script", cwd=tmp_path)
    command = ["python", "evolve/main.py", *arguments, "--name=copy"]
    copy = head.submit("--working-dir", ".", "--", *command, cwd=checkout)
    for name, job in (("script", script), ("copy", copy)):
        printed = finished(job)
        run_dir = head.home / "results" / name
        assert Rows.of(run_dir).searched == 1
        assert (run_dir / "champion" / "solution.json").is_file()
        assert f"champion  {run_dir / 'champion'}" in printed
