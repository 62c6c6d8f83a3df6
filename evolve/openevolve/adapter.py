"""OpenEvolve's evaluators on programs of ours: each call in a process of its own, with a deadline.

An evaluator is a Python file with `evaluate(path)`, which returns a dict of metrics or an
`EvaluationResult`, and perhaps `evaluate_stage1` to `evaluate_stage3`. It is somebody's code that
runs somebody's program, so it gets a folder of its own, an environment without secrets, and a
process group that is killed at the deadline.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from evolve.errors import UserError
from evolve.openevolve.checkpoint import fitness
from evolve.redaction import named_secret

DEADLINE_S = 300.0
"""OpenEvolve's own default."""
OUTPUT = 4000
"""Most characters kept of what an evaluator prints."""
_FOREIGN = Path(__file__).with_name("foreign.py")


class Outcome(StrEnum):
    SCORED = "SCORED"
    TIMEOUT = "TIMEOUT"  # past the deadline
    FAILED = "FAILED"  # the evaluator raised, ended its process, or returned something else


@dataclass(frozen=True)
class Scored:
    """What an evaluator made of one program. `seconds` is wall time; `output` what it printed."""

    outcome: Outcome
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    output: str = ""

    @property
    def score(self) -> float:
        """What OpenEvolve would rank the program by; 0.0 unless SCORED."""
        return fitness(self.metrics)


@dataclass(frozen=True)
class ForeignEvaluator:
    """An evaluator file. `thresholds` (OpenEvolve's `cascade_thresholds`) run its stages.

    `python` is the interpreter that has what the evaluator imports. UserError: there is no file.
    """

    file: Path
    deadline_s: float = DEADLINE_S
    thresholds: tuple[float, ...] = ()
    python: str = sys.executable

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise UserError(f"no evaluator at {self.file}")

    def score(self, source: str, suffix: str) -> Scored:
        """Scores one program; `suffix` is its file's, such as `.py` or `.cu`.

        Never raises for what the evaluator does. UserError when the interpreter does not start.
        """
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="openevolve-") as folder:
            program, result = Path(folder, "program" + suffix), Path(folder, "result.json")
            printed = Path(folder, "output.txt")
            program.write_text(source, encoding="utf-8")
            command = [self.python, str(_FOREIGN), str(self.file.resolve()), str(program)]
            command += [str(result), *map(str, self.thresholds)]
            code = self._run(command, Path(folder), printed)
            seconds = time.monotonic() - started
            output = printed.read_text(encoding="utf-8", errors="replace")[-OUTPUT:]
            if code is None:
                return Scored(Outcome.TIMEOUT, seconds=seconds, output=output)
            found = _read(result) if code == 0 else None
        if found is None:
            return Scored(Outcome.FAILED, seconds=seconds, output=output or f"exit code {code}")
        return Scored(Outcome.SCORED, *found, seconds=seconds, output=output)

    def _run(self, command: Sequence[str], folder: Path, printed: Path) -> int | None:
        """The exit code; None past the deadline. Either way nothing of its group is left."""
        with printed.open("wb") as out:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.file.resolve().parent,
                    env=environment(folder),
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"cannot start {command[0]}: {error.strerror}") from None
            try:
                return process.wait(self.deadline_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without what looks like a secret; temporary files in `folder`."""
    kept = {k: v for k, v in os.environ.items() if not named_secret(k)}
    return {**kept, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # the group is gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(result: Path) -> tuple[dict[str, float], dict[str, str]] | None:
    """Metrics and artifacts of a result file; None when it is not one."""
    try:
        data = json.loads(result.read_text(encoding="utf-8"))
        metrics = {str(k): v for k, v in data["metrics"].items() if isinstance(v, int | float)}
        return metrics, {str(k): str(v) for k, v in data["artifacts"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
