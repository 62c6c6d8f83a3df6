"""Cases of a corpus: source files whose header says what they are, and how they are judged.

The first comment lines are fields (`// trick: zero output`): `trick` or `style`, `definition`,
`language`, `device` (`cpu` or `cuda`), `expected` (a status, or several joined by `or`),
`caught by` (guard, build, correctness, latency, isolation). Some have more: `without the guard`
(the status when the guard is skipped), `at most` (largest score that an honest latency allows),
`times longer` (how many more calls are timed than of other cases),
`compiled` (`always`: by nvcc in every run of the tests) and `pending` (what the evaluator needs
before it can catch the case).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from evaluators import catalog
from evaluators.catalog import Operator
from evaluators.compile_only import Compiled, Compiler
from evaluators.pipeline import Evaluator
from evaluators.schema import (
    BuildSpec,
    Definition,
    Evaluation,
    Language,
    Solution,
    SourceFile,
    Workload,
)
from evaluators.settings import EvaluatorSettings

STAGES = ("guard", "build", "correctness", "latency", "isolation")
TARGET = "sm_90a"
SETTINGS = EvaluatorSettings(build_deadline_s=60, run_deadline_s=2, latency_s=0.03, samples=3)

_FIELD = re.compile(r"(?:#|//) ([a-z ]+): (.*)")

SAMPLES = {
    "matmul_bias_gelu": [{"num_tokens": 32}, {"num_tokens": 77}],
    "gqa_paged_decode": [
        {"batch_size": 3, "seq_len": 700, "spread": 0.5},
        {"batch_size": 1, "seq_len": 5_000},
    ],
}
"""What CPU cases run on: token counts on and off a tile, a ragged batch, a long sequence."""

CUDA_SAMPLES = {
    "matmul_bias_gelu": [{"num_tokens": 1}, {"num_tokens": 77}, {"num_tokens": 1024}],
    "gqa_paged_decode": [
        {"batch_size": 3, "seq_len": 7000, "spread": 0.5},
        {"batch_size": 1, "seq_len": 180_000},
        {"batch_size": 16, "seq_len": 140_000},
    ],
}
"""The last cache has more than 2^31 elements."""

COMPILED_SAMPLES = {
    "matmul_bias_gelu": [{"num_tokens": 77}],
    "gqa_paged_decode": [{"batch_size": 2, "seq_len": 700}],
}


@dataclass(frozen=True)
class Case:
    """One file of a corpus."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def device(self) -> str:
        return self.fields["device"]

    @property
    def expected(self) -> set[str]:
        return set(self.fields["expected"].split(" or "))

    @property
    def unguarded(self) -> set[str]:
        """Statuses without the guard; empty where the file names none."""
        return set(filter(None, self.fields.get("without the guard", "").split(" or ")))

    @property
    def times_longer(self) -> float:
        return float(self.fields.get("times longer", 1))

    @property
    def definition(self) -> Definition:
        return definition(self.fields["definition"])[1]

    @property
    def solution(self) -> Solution:
        language = Language(self.fields["language"])
        native = language in {Language.CPP, Language.CUDA}
        file = f"kernel{self.path.suffix}"
        return Solution(
            name=self.path.stem,
            definition=self.fields["definition"],
            author="corpus",
            spec=BuildSpec(
                language=language,
                target_hardware=(self.device,),
                entry_point=f"{file}::run",
                binding="tvm-ffi" if native else None,
            ),
            sources=(SourceFile(path=file, content=self.path.read_text()),),
        )


def read(folder: Path) -> list[Case]:
    """All cases of a folder, sorted by name."""
    return [_case(path) for path in sorted(folder.iterdir()) if path.is_file()]


def _case(path: Path) -> Case:
    fields = {}
    for line in path.read_text().splitlines():
        match = _FIELD.fullmatch(line)
        if match is None:
            break
        fields[match[1]] = match[2]
    return Case(path, fields)


@lru_cache
def definition(name: str) -> tuple[Operator, Definition]:
    for operator in catalog.list_operators():
        known = catalog.load_operator(operator)
        if name in known.definitions:
            return known, known.definitions[name]
    raise KeyError(name)


def workloads(name: str, samples: list[dict[str, float]]) -> list[Workload]:
    """Workloads of a definition from sampled variables."""
    operator, found = definition(name)
    module = catalog.load_module(operator)
    made = []
    for number, sample in enumerate(samples):
        axes, make = module.axes_of(found.model_dump(mode="json"), sample)
        made.append(Workload(uuid=f"w{number}", axes=axes, make=make, seed=17 + number))
    return made


class Judges:
    """Evaluators and compilers, made when first asked for and shared by all cases.

    Each of them works through its cases in a thread of its own: what several cores can do at once
    they do. No case's outcome depends on how fast it was timed.
    """

    def __init__(self) -> None:
        self._making = threading.Lock()  # importing an operator is not thread-safe
        self._made: dict[str, Evaluator | Compiler] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._found: dict[tuple[str, bool, bool], Future[Evaluation | Compiled]] = {}

    def evaluate(self, case: Case, guarded: bool = True) -> Evaluation:
        found = self.start(case, guarded=guarded).result()
        assert isinstance(found, Evaluation)
        return found

    def compile(self, case: Case) -> Compiled:
        """Compile for `TARGET`, which need not be here."""
        found = self.start(case, compiling=True).result()
        assert isinstance(found, Compiled)
        return found

    def start(
        self, case: Case, *, guarded: bool = True, compiling: bool = False
    ) -> Future[Evaluation | Compiled]:
        """Begin, unless the same was begun before."""
        key = case.name, guarded, compiling
        if key not in self._found:
            judge = f"{compiling} {case.fields['definition']}"
            if judge not in self._threads:
                self._threads[judge] = ThreadPoolExecutor(1)
            work = self._compile if compiling else self._evaluate
            self._found[key] = self._threads[judge].submit(work, judge, case, guarded)
        return self._found[key]

    def close(self) -> None:
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)
        for made in self._made.values():
            made.close()

    def _evaluate(self, judge: str, case: Case, guarded: bool) -> Evaluation:
        with self._making:
            if judge not in self._made:
                self._made[judge] = evaluator(case.fields["definition"], case.device)
        made = self._made[judge]
        assert isinstance(made, Evaluator)
        made.guarded = guarded
        return made.evaluate(case.solution, samples_factor=case.times_longer)

    def _compile(self, judge: str, case: Case, guarded: bool) -> Compiled:
        with self._making:
            if judge not in self._made:
                self._made[judge] = compiler(case.fields["definition"])
        made = self._made[judge]
        assert isinstance(made, Compiler)
        return made.compile(case.solution, trusted=not guarded)


def evaluator(name: str, device: str) -> Evaluator:
    """An evaluator with an open epoch; the anchor is the definition's first seed."""
    operator, found = definition(name)
    slow = SETTINGS.model_copy(update={"run_deadline_s": 10.0})
    made = Evaluator(device, found, operator.folder, SETTINGS if device == "cpu" else slow)
    anchor = catalog.seeds(operator, found, device)[0]
    samples = SAMPLES if device == "cpu" else CUDA_SAMPLES
    try:
        made.open_epoch(1, workloads(name, samples[operator.name]), anchor)
    except BaseException:
        made.close()
        raise
    return made


def compiler(name: str) -> Compiler:
    """A compiler for `TARGET`, with a workload's shapes."""
    operator, found = definition(name)
    chosen = workloads(name, COMPILED_SAMPLES[operator.name])[0]
    return Compiler(found, operator.folder, TARGET, chosen, SETTINGS)


def can_compile(case: Case) -> bool:
    """Whether a case is compiled for an absent device here.

    nvcc takes seconds a file: without `TILEVOLVE_CORPUS=full` only files that say so are compiled.
    """
    if case.fields["language"] != "cuda":
        return True
    there = shutil.which("nvcc") is not None or Path("/usr/local/cuda/bin/nvcc").exists()
    return there and (os.environ.get("TILEVOLVE_CORPUS") == "full" or "compiled" in case.fields)
