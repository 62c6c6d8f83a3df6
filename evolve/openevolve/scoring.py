"""`evolve openevolve-score`: programs of ours, or anybody's, under an OpenEvolve evaluator."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.catalog import SUFFIXES
from evaluators.schema import Solution
from evolve.errors import UserError
from evolve.export import load_solution
from evolve.openevolve.adapter import ForeignEvaluator
from evolve.store import FILE, Store


@dataclass(frozen=True)
class Source:
    """One program's text. `ours` is its score over the anchor where a run measured it."""

    name: str
    text: str
    suffix: str
    ours: float | None = None


def score(
    evaluator: Path,
    programs: Sequence[Path],
    deadline_s: float,
    thresholds: tuple[float, ...] = (),
    python: str | None = None,
) -> list[dict[str, Any]]:
    """Facts of each program: outcome, score, metrics, artifacts, output, and our own score.

    UserError or ExportError, one line: no evaluator, no program at a path, no such interpreter.
    """
    if not deadline_s > 0:
        raise UserError(f"--deadline must be greater than 0, got {deadline_s}")
    foreign = ForeignEvaluator(evaluator, deadline_s, thresholds, python or sys.executable)
    found = []
    for source in [read(path) for path in programs]:
        scored = foreign.score(source.text, source.suffix)
        found.append(
            {
                "program": source.name,
                "outcome": scored.outcome.value,
                "score": scored.score,
                "ours": source.ours,
                "metrics": scored.metrics,
                "artifacts": scored.artifacts,
                "seconds": round(scored.seconds, 3),
                "output": scored.output,
            }
        )
    return found


def read(path: Path) -> Source:
    """The program at `path`: a run's champion, a solution's entry file, or a source file."""
    run = next((p for p in (path, Path("results") / path) if (p / FILE).is_file()), None)
    if run is not None:
        return _champion(run)
    if path.is_dir() or path.name.endswith(".json"):
        return _of(load_solution(path).solution, str(path))
    try:
        return Source(str(path), path.read_text(encoding="utf-8"), path.suffix or ".py")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _champion(run: Path) -> Source:
    store = Store.open(run, readonly=True)
    try:
        champion = (store.report() or {}).get("champion")
        if not champion:
            raise UserError(f"{run} has no champion yet: resume it, or give a source file")
        results = champion["verification"].get("results") or []
        solution = Solution.model_validate(champion["solution"])
        return _of(solution, str(run), _mean(results))
    finally:
        store.close()


def _mean(results: Sequence[dict[str, Any]]) -> float | None:
    from evaluators.schema import Evaluation, Status

    if not results:
        return None
    record = {"status": Status.PASSED, "epoch": 0, "results": results}
    return Evaluation.model_validate(record).score


def _of(solution: Solution, name: str, ours: float | None = None) -> Source:
    return Source(name, solution.entry_source, SUFFIXES[solution.spec.language], ours)


def score_lines(facts: Sequence[dict[str, Any]]) -> list[str]:
    """What `score` returned, for people."""
    lines = []
    for fact in facts:
        text = f"{fact['program']}  {fact['outcome']}"
        if fact["outcome"] == "SCORED":
            metrics = ", ".join(f"{name} {value:g}" for name, value in fact["metrics"].items())
            text += f"  {fact['score']:.4g}  ({metrics})"
        else:
            text += f" after {fact['seconds']} s: {_last(fact['output'])}"
        lines.append(text + (f"  ours {fact['ours']:.3f}x anchor" if fact["ours"] else ""))
    return lines


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
