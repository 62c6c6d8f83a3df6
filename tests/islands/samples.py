"""Solutions and evaluations for tests of islands and emitters."""

from __future__ import annotations

import math

from evaluators.schema import (
    BuildFacts,
    BuildSpec,
    Evaluation,
    Language,
    Solution,
    SourceFile,
    Status,
    WorkloadResult,
)
from islands.program import Program

SUFFIX = {Language.CUDA: "cu", Language.CPP: "cpp"}


def solution(source: str, language: Language = Language.TRITON) -> Solution:
    """A solution of one file."""
    path = f"kernel.{SUFFIX.get(language, 'py')}"
    return Solution(
        name="sample",
        definition="sample",
        author="tests",
        spec=BuildSpec(language=language, target_hardware=("cuda",), entry_point=f"{path}::run"),
        sources=(SourceFile(path=path, content=source),),
    )


def program(source: str, language: Language = Language.TRITON) -> Program:
    return Program.of(solution(source, language))


def passed(
    score: float, noise: float = 0.0, epoch: int = 0, build: BuildFacts | None = None
) -> Evaluation:
    """A PASSED evaluation; `noise` is the half width of the log score's interval."""
    result = WorkloadResult(
        workload="w",
        max_absolute_error=0.0,
        max_relative_error=0.0,
        latency_ms=1.0 / score,
        anchor_ms=1.0,
        speedup=score,
        speedup_low=score * math.exp(-noise),
        speedup_high=score * math.exp(noise),
    )
    return Evaluation(status=Status.PASSED, epoch=epoch, results=(result,), build=build)


def failed(status: Status = Status.RUNTIME_ERROR, epoch: int = 0) -> Evaluation:
    return Evaluation(status=status, epoch=epoch)


def tunable_source(choices: dict[str, list[int]], tail: str = "") -> str:
    """A small Triton-like source that declares `choices`, each at its first value."""
    lines = [f"{n} = {c[0]}  # tune: {' '.join(map(str, c))}" for n, c in choices.items()]
    body = "def run(x, y):\n    y.copy_(x)\n"
    return "\n".join(lines) + "\n\n\n" + body + tail
