#!/usr/bin/env python3
"""The cheating and the honest kernels of tests/ on this device: who is caught, and by what.

python -m benchmarks.trust --device cuda --out results/published/h200/trust

Writes README.md and table.json. Exit code 1 when a trick was not caught as its file says, or an
honest kernel was convicted. Kernels for another device stop after the guard, and are counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluators import guard
from evaluators.pipeline import Evaluator
from evaluators.schema import Evaluation
from tests.hacks import cases
from tests.hacks.cases import Case

TESTS = Path(__file__).resolve().parents[1] / "tests"
WAITING = ("wait",)
NOT_RUN = "not run"
LOG = 400
"""Characters of a log that the table keeps."""


@dataclass(frozen=True)
class Row:
    """One kernel of a corpus. `got` is a status or NOT_RUN; `stage` is where it was decided."""

    file: str
    trick: str
    language: str
    device: str
    expected: str
    got: str = NOT_RUN
    stage: str = ""
    score: float = 0.0
    unguarded: str = ""
    as_expected: bool = False
    log: str = ""

    @property
    def run(self) -> bool:
        return self.got != NOT_RUN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    started = time.time()
    corpus = [(kind, case) for kind in ("hacks", "honest") for case in _corpus(kind)]
    refusals = {case.path: guard.check(case.solution, case.definition) for _, case in corpus}
    jobs = [(c, bool(refusals[c.path])) for _, c in corpus if _is_run(c, refusals, given.device)]
    facts, found = judge(jobs, given.device)
    rows = {
        kind: [_row(c, refusals[c.path], found.get(c.path)) for k, c in corpus if k == kind]
        for kind in ("hacks", "honest")
    }
    facts |= {"started": started, "seconds": time.time() - started}
    write(given.out, given.device, facts, rows["hacks"], rows["honest"])
    wrong = [row.file for kind in rows.values() for row in kind if row.run and not row.as_expected]
    print(f"{given.out / 'README.md'}: {_counts(rows['hacks'], rows['honest'])}")
    if wrong:
        print(f"not as expected: {', '.join(wrong)}", file=sys.stderr)
        sys.exit(1)


def _corpus(name: str) -> list[Case]:
    return cases.read(TESTS / name / "corpus")


def _is_run(case: Case, refusals: dict[Path, list[str]], device: str) -> bool:
    """What the guard refuses is judged without it, where the file names a status for that."""
    return case.device == device and (not refusals[case.path] or bool(case.unguarded))


def judge(
    jobs: list[tuple[Case, bool]], device: str
) -> tuple[dict[str, Any], dict[Path, Evaluation]]:
    """Evaluate (case, without the guard) by definition: builds overlap where the device has slots.

    Returns the device's facts and the evaluation of each file.
    """
    facts: dict[str, Any] = {}
    found: dict[Path, Evaluation] = {}
    for name in dict.fromkeys(case.fields["definition"] for case, _ in jobs):
        mine = [job for job in jobs if job[0].fields["definition"] == name]
        evaluator = cases.evaluator(name, device)
        try:
            facts = evaluator.facts()
            for without_guard in (False, True):
                evaluator.guarded = not without_guard
                chosen = [case for case, unguarded in mine if unguarded == without_guard]
                found |= _evaluated(evaluator, chosen)
        finally:
            evaluator.close()
    return facts, found


def _evaluated(evaluator: Evaluator, chosen: list[Case]) -> dict[Path, Evaluation]:
    found = {}
    with ThreadPoolExecutor(evaluator.slots) as threads:
        done = threads.map(partial(_one, evaluator), chosen)
        for case, evaluation in zip(chosen, done, strict=True):
            found[case.path] = evaluation
            print(f"{case.name:36s} {evaluation.status.value}", file=sys.stderr, flush=True)
    return found


def _one(evaluator: Evaluator, case: Case) -> Evaluation:
    # A score that must not be large needs more than the few samples that tell right from wrong.
    factor = max(10.0 if "at most" in case.fields else 1.0, case.times_longer)
    return evaluator.evaluate(case.solution, samples_factor=factor)


def _row(case: Case, refusal: list[str], found: Evaluation | None) -> Row:
    fields = case.fields
    row = Row(
        file=case.name,
        trick=fields.get("trick") or fields["style"],
        language=fields["language"],
        device=case.device,
        expected=fields["expected"],
    )
    if refusal:
        unguarded = found.status.value if found else ""
        right = "INVALID_SOURCE" in case.expected and (not found or unguarded in case.unguarded)
        log = "\n".join(refusal)[:LOG]
        return replace(
            row, got="INVALID_SOURCE", stage="guard", unguarded=unguarded, log=log,
            as_expected=right,
        )  # fmt: skip
    if found is None:
        return row
    right = found.status.value in case.expected
    right = right and found.score <= float(fields.get("at most", "inf"))
    return replace(
        row, got=found.status.value, stage=_stage(found), score=round(found.score, 4),
        log=found.log[:LOG], as_expected=right,
    )  # fmt: skip


def _stage(found: Evaluation) -> str:
    """The stage in which an evaluation ended: the last one that took time."""
    if found.passed:
        return ""
    stages = [stage for stage in found.seconds if stage not in WAITING]
    return stages[-1] if stages else "build"


def write(
    out: Path, device: str, facts: dict[str, Any], hacks: list[Row], honest: list[Row]
) -> None:
    """README.md for people, table.json for programs."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "device": facts,
        "command": f"python -m benchmarks.trust --device {device} --out DIR",
        "hacks": [asdict(row) for row in hacks],
        "honest": [asdict(row) for row in honest],
    }
    (out / "table.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "README.md").write_text(_page(device, facts, hacks, honest))


def _page(device: str, facts: dict[str, Any], hacks: list[Row], honest: list[Row]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items())
    when = time.strftime("%Y-%m-%d", time.gmtime(facts["started"]))
    stopped = [row for row in hacks if not row.run]
    parts = [
        f"# Cheating and honest kernels on {facts.get('name', device)}",
        f"`python -m benchmarks.trust --device {device} --out DIR`, {when}, "
        f"{facts['seconds']:.0f} s; {versions}; network: {facts.get('network')}, "
        f"files: {facts.get('files', 'not said')}.",
        f"**{_counts(hacks, honest)}.**",
        "*Expected* is what the kernel's file asks for, *got* what this run gave, *stage* where "
        "the evaluation ended. What the guard refused was also judged without it where its file "
        "names a status for that. [How each stage works](../../../../docs/evaluation.md).",
        "## Tricks",
        _table([row for row in hacks if row.run]),
    ]
    if stopped:
        names = ", ".join(row.trick for row in stopped)
        parts.append(f"Not run, because they need another device ({len(stopped)}): {names}.")
    parts += ["## Honest kernels", _table([row for row in honest if row.run], honest=True)]
    unrun = sum(not row.run for row in honest)
    if unrun:
        parts.append(f"{unrun} more need another device; the guard lets them pass.")
    return "\n\n".join(parts) + "\n"


def _counts(hacks: list[Row], honest: list[Row]) -> str:
    run, judged = [r for r in hacks if r.run], [r for r in honest if r.run]
    caught = sum(row.as_expected for row in run)
    false = sum(not row.as_expected for row in judged)
    return (
        f"{caught} of {len(run)} tricks caught as expected; "
        f"{false} false positives among {len(judged)} honest kernels"
    )


def _table(rows: Iterable[Row], honest: bool = False) -> str:
    head = ["style" if honest else "trick", "language", "expected", "got", "stage"]
    head += ["score"] if honest else ["without the guard", "as expected"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [row.trick.replace("|", "\\|"), row.language, row.expected, row.got, row.stage]
        if honest:
            cells.append(f"{row.score:.2f}" if row.score else "")
        else:
            cells += [row.unguarded, "yes" if row.as_expected else "**no**"]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
