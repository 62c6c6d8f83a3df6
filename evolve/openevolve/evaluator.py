"""Our evaluator for OpenEvolve: a module-level `evaluate(path)` for its evaluator file.

    from evolve.openevolve.evaluator import Judge
    evaluate = Judge("matmul_bias_gelu", device="cpu")

OpenEvolve evaluates in several processes and threads; each process starts one evaluator at the
first call and keeps it, and one call at a time has the device, whichever process it is in.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators import catalog
from evaluators.schema import Evaluation, Language, Solution
from evaluators.settings import EvaluatorSettings
from evolve.errors import UserError
from evolve.openevolve.checkpoint import Foreign
from evolve.openevolve.importing import How, solution_of

if TYPE_CHECKING:
    from evaluators.worker import EvaluatorWorker

MISSING = "OpenEvolve is not installed: pip install 'tilevolve[openevolve]'"
FAILED = 0.0
"""`combined_score` of a program that is not correct; a correct one has its speedup."""


class Judge:
    """Scores a file for OpenEvolve. Calling it returns OpenEvolve's `EvaluationResult`.

    `combined_score` is the geometric mean of the speedup over the anchor, the operator's first
    seed, on `workloads` search workloads drawn by `seed`; 0 for a program that is refused or wrong.
    Why stands in the artifacts, where OpenEvolve's next prompt shows it. `language` None: as the
    source tells, else that of the file's suffix.

    Raises UserError or CatalogError for an unknown operator, definition or device, and for
    OpenEvolve not being installed.
    """

    def __init__(
        self,
        operator: str,
        *,
        definition: str | None = None,
        device: str = "auto",
        language: str | None = None,
        entry: str = "run",
        returns: bool = False,
        workloads: int | None = None,
        seed: int = 0,
        settings: EvaluatorSettings | None = None,
    ) -> None:
        self._operator = catalog.load_operator(operator)
        self._names = (definition, device)
        self._how = How(None if language is None else Language(language), entry, returns)
        self._sample = (seed, workloads)
        self._settings = settings or EvaluatorSettings()
        self._starting = threading.Lock()
        self._started: tuple[int, EvaluatorWorker] | None = None

    def __call__(self, path: str | Path) -> Any:
        result = _result_class()
        evaluation = self.evaluate(Path(path))
        if isinstance(evaluation, str):
            return result(
                metrics={"combined_score": FAILED, "correct": 0.0}, artifacts={"log": evaluation}
            )
        return result(metrics=metrics(evaluation), artifacts=artifacts(evaluation))

    def evaluate(self, path: Path) -> Evaluation | str:
        """The evaluation of a program's file; a text when it cannot be read as a solution."""
        worker = self._worker()
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return f"the program cannot be read: {error}"
        solution = self._solution(source, path.suffix)
        if isinstance(solution, str):
            return solution
        with _alone(self._device):
            return worker.evaluate(solution)

    def close(self) -> None:
        """End every process of the evaluator."""
        with self._starting:
            if self._started is not None and self._started[0] == os.getpid():
                self._started[1].close()
            self._started = None

    def _solution(self, source: str, suffix: str) -> Solution | str:
        said = {".cu": "cuda", ".cuh": "cuda", ".cpp": "cpp", ".cc": "cpp"}.get(suffix, "")
        foreign = Foreign("program", source, said, 0.0, 0, "")
        return solution_of(foreign, self._definition, self._device, self._how)

    def _worker(self) -> EvaluatorWorker:
        """This process's evaluator, with its epoch open."""
        with self._starting:
            # A forked process has its parent's records, not its evaluator.
            if self._started is None or self._started[0] != os.getpid():
                self._started = os.getpid(), self._start()
                atexit.register(self.close)
            return self._started[1]

    def _start(self) -> EvaluatorWorker:
        from evaluators import devices
        from evaluators.worker import EvaluatorWorker

        name, device = self._names
        self._device = devices.pick(device)
        self._definition = self._operator.definition(name, self._device)
        seeds = catalog.seeds(self._operator, self._definition, self._device)
        folder = str(self._operator.folder)
        worker = EvaluatorWorker(self._device, self._definition, folder, self._settings)
        try:
            with _alone(self._device):
                worker.open_epoch(0, worker.sample("search", 0, *self._sample), seeds[0])
        except BaseException:
            worker.close()
            raise
        return worker


def metrics(evaluation: Evaluation) -> dict[str, float]:
    """OpenEvolve's metrics of an evaluation: numbers alone, more is better in each score."""
    found = {"combined_score": evaluation.score, "correct": float(evaluation.passed)}
    if evaluation.passed:
        found |= {"speedup_low": evaluation.score_low, "speedup_high": evaluation.score_high}
        found["slowest_speedup"] = min(r.speedup for r in evaluation.results)
    return found


def artifacts(evaluation: Evaluation) -> dict[str, str]:
    """OpenEvolve's artifacts of an evaluation: what an author needs to know for the next try."""
    found = {"status": evaluation.status.value}
    if evaluation.log:
        found["log"] = evaluation.log
    if evaluation.results:
        found["latency"] = "\n".join(
            f"{r.workload}: {1e3 * r.latency_ms:.2f} us, anchor {1e3 * r.anchor_ms:.2f} us, "
            f"speedup {r.speedup:.3f} [{r.speedup_low:.3f}, {r.speedup_high:.3f}]"
            for r in evaluation.results
        )
    if evaluation.build is not None:
        facts = evaluation.build.model_dump(exclude_defaults=True)
        found["build"] = ", ".join(f"{name} {value}" for name, value in facts.items())
    return found


def _result_class() -> Any:
    try:
        from openevolve.evaluation_result import EvaluationResult
    except ImportError:
        raise UserError(MISSING) from None
    return EvaluationResult


@contextmanager
def _alone(device: str) -> Iterator[None]:
    """One evaluation at a time on this machine's device, over all processes of this user."""
    path = Path(tempfile.gettempdir(), f"tilevolve-{os.getuid()}-{device}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
