"""One small real run that the tests of the command line share: interrupted, resumed, finished."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evolve import cli
from evolve.store import FILE, Store
from tests.cli.terminal import (
    CTRL_C,
    MAIN,
    Terminal,
    assert_all_end,
    environment,
    wait_for,
)

BUDGET = 5
SMALL = """\
operator = "matmul_bias_gelu"
device = "cpu"
languages = ["cpp"]
peers = false

[epochs]
workloads = 1

[islands]
count = 2

[evaluator]
samples = 3
latency_s = 0.3
"""


@dataclass(frozen=True)
class Called:
    """Outcome of one command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Evolve = Callable[..., Called]


@pytest.fixture
def evolve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evolve:
    """Calls a command in this process, through the entry point that a shell calls."""

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["evolve", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        found = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Called(ended.value.code, found.out, found.err)

    return call


@pytest.fixture(scope="module", autouse=True)
def own_cluster() -> Iterator[None]:
    """Commands called here start Ray in this process: nobody else's, and ended with the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # these tests are of the CPU path
        yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def evolve_process(*arguments: object, **extra: str) -> Called:
    """A command in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(MAIN), *map(str, arguments)],
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Called(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Rows:
    """What a store holds, without clock times."""

    evaluations: tuple[tuple[str, int, str, float], ...]
    pending: frozenset[str]

    @classmethod
    def of(cls, run_dir: Path) -> Rows:
        store = Store.open(run_dir, readonly=True)
        try:
            return cls(
                tuple(
                    (r.program_id, r.epoch, r.kind, r.evaluation.score) for r in store.evaluations()
                ),
                frozenset(p.id for p in store.pending() if p.emitter != "seed"),
            )
        finally:
            store.close()

    @property
    def searched(self) -> int:
        return sum(kind == "search" for _, _, kind, _ in self.evaluations)


def wait_for_flight(run_dir: Path, after: int) -> Rows:
    """Wait until `after` searched programs are recorded and another is being evaluated."""
    found: list[Rows] = []

    def busy() -> bool:
        if not (run_dir / FILE).is_file():
            return False
        try:
            found.append(Rows.of(run_dir))
        except Exception:
            return False  # the store is being made
        return found[-1].searched >= after and bool(found[-1].pending)

    wait_for(busy, 90, "a program in flight")
    return found[-1]


@dataclass(frozen=True)
class Stopped:
    """A run that one Ctrl-C ended."""

    run_dir: Path
    code: int
    screen: str
    status: Called
    before: Rows
    after: Rows


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a run of seconds."""
    file = tmp_path_factory.mktemp("settings") / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="session")
def stopped(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A run on a terminal that gets one Ctrl-C while its third program is evaluated."""
    results = tmp_path_factory.mktemp("results")
    run_dir = results / "small"
    arguments = ["--config", str(small), "--evaluations", str(BUDGET), "--results", str(results)]
    terminal = Terminal("run", *arguments, "--name", "small")
    try:
        wait_for_flight(run_dir, after=1)
        status = evolve_process("status", run_dir, "--json")
        before = wait_for_flight(run_dir, after=2)
        wait_for(lambda: "1 in flight" in terminal.screen, 10, "the live display")
        family = terminal.family()
        terminal.press(CTRL_C)
        code = terminal.wait(60)
        assert_all_end(family)
    finally:
        terminal.end()
    return Stopped(run_dir, code, terminal.screen, status, before, Rows.of(run_dir))


@dataclass(frozen=True)
class Finished:
    """The same run, resumed to its end with `--json`."""

    run_dir: Path
    called: Called


@pytest.fixture(scope="session")
def finished(stopped: Stopped) -> Finished:
    return Finished(stopped.run_dir, evolve_process("resume", stopped.run_dir, "--json"))
