"""Runs inside a process of its own: calls an OpenEvolve evaluator file on one program.

python foreign.py EVALUATOR PROGRAM RESULT [THRESHOLD ...]

With thresholds the evaluator's stages run as OpenEvolve's cascade runs them, else `evaluate` alone.
RESULT is written as JSON: {"metrics": {...}, "artifacts": {...}}. Nothing but the standard library,
so that the interpreter of another environment can run it.
"""

import importlib.util
import json
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Split = tuple[dict[str, Any], dict[str, Any]]
"""Metrics and artifacts."""


def load(file: str) -> Any:
    """The evaluator's module, imported as OpenEvolve does: its folder is on the path."""
    sys.path.insert(0, str(Path(file).resolve().parent))
    spec = importlib.util.spec_from_file_location("evaluation_module", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["evaluation_module"] = module
    spec.loader.exec_module(module)
    if not callable(getattr(module, "evaluate", None)):
        raise AttributeError(f"{file} has no function evaluate")
    return module


def split(returned: Any) -> Split:
    """(metrics, artifacts) of what an evaluator returned: a dict, or an object with both."""
    if isinstance(returned, dict):
        return dict(returned), {}
    metrics = getattr(returned, "metrics", None)
    if not isinstance(metrics, dict):
        raise TypeError(
            f"evaluate returned {type(returned).__name__}, not a dict of metrics or an "
            "EvaluationResult"
        )
    return dict(metrics), dict(getattr(returned, "artifacts", None) or {})


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that later stages and thresholds count."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and name != "error"
    }


def passes(metrics: Mapping[str, Any], threshold: float) -> bool:
    """Whether a stage's metrics let the next one run."""
    score = metrics.get("combined_score")
    if isinstance(score, int | float):
        return float(score) >= threshold
    found = list(numbers(metrics).values())
    return bool(found) and sum(found) / len(found) >= threshold


def cascade(module: Any, program: str, thresholds: Sequence[float]) -> Split:
    """Stages one to three while the thresholds are met; `evaluate` where there is no stage one."""
    stages = [getattr(module, f"evaluate_stage{n}", None) for n in (1, 2, 3)]
    if stages[0] is None:
        return split(module.evaluate(program))
    metrics: dict[str, Any] = {}
    artifacts: dict[str, Any] = {}
    for number, stage in enumerate(stages, 1):
        before = thresholds[number - 2 : number - 1]
        if stage is None or (number > 1 and not (before and passes(metrics, before[0]))):
            break
        try:
            found, told = split(stage(program))
        except Exception as error:  # OpenEvolve scores what its evaluators raise
            metrics |= {"error": 0.0} if number == 1 else {}
            metrics[f"stage{number}_passed"] = 0.0
            prefix = "" if number == 1 else f"stage{number}_"
            artifacts[f"{prefix}stderr"] = str(error)
            artifacts[f"{prefix}traceback"] = traceback.format_exc()
            artifacts["failure_stage"] = f"stage{number}"
            break
        metrics = found if number == 1 else {**numbers(metrics), **numbers(found)}
        artifacts.update(told)
    return metrics, artifacts


def plain(metrics: Mapping[str, Any], artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON: metrics that are finite numbers, everything else as text among the artifacts."""
    kept: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name, value in metrics.items():
        if isinstance(value, int | float) and math.isfinite(value):
            kept[str(name)] = value if isinstance(value, bool) else float(value)
        else:
            texts[f"metric {name}"] = str(value)
    for name, value in artifacts.items():
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        texts[str(name)] = text
    return {"metrics": kept, "artifacts": texts}


def main(evaluator: str, program: str, result: str, *thresholds: str) -> None:
    module = load(evaluator)
    if thresholds:
        found = cascade(module, program, [float(t) for t in thresholds])
    else:
        found = split(module.evaluate(program))
    Path(result).write_text(json.dumps(plain(*found)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
