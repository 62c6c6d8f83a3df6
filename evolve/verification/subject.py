"""What `evolve verify` is given: a run, a champion's folder, or a solution file of anybody's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.catalog import Operator
from evaluators.schema import Definition, Solution
from evolve.errors import UserError
from evolve.export import Exported, load_solution
from evolve.store import FILE, Store

FOLDER = "verification"
"""Where reports go beside what was verified, in a folder per device."""
REPORT = "report.json"


@dataclass(frozen=True)
class Claim:
    """Earlier measurements of the same kernel: `rows` are results by workload label."""

    source: str
    device: str
    rows: dict[str, dict[str, Any]]
    anchor: str = ""


@dataclass(frozen=True)
class Subject:
    """A solution, its definition here, and where its report goes unless the user says otherwise."""

    solution: Solution
    operator: Operator
    definition: Definition
    folder: Path
    claim: Claim | None = field(default=None)


def read(path: Path) -> Subject:
    """What is at `path`. UserError or ExportError, one line, when that is nothing known here."""
    claim: Claim | None = None
    if (path / FILE).is_file():
        exported, claim, folder = *_of_run(path), path / FOLDER
    else:
        champion = path / "champion"
        if path.is_dir() and not (path / "solution.json").is_file() and champion.is_dir():
            path = champion
        exported = load_solution(path)
        beside = path if path.is_dir() else path.parent
        if path.is_dir() or path.name == "solution.json":
            folder, claim = beside / FOLDER, _of_results(beside / "results.json")
        else:
            folder = beside / FOLDER / path.stem
    operator, definition = known(exported.solution.definition)
    if exported.definition is not None and _shape(exported.definition) != _shape(definition):
        raise UserError(
            f"{path}: definition.json of {definition.name} is not the one known here: axes, "
            "inputs or outputs differ"
        )
    return Subject(exported.solution, operator, definition, folder, claim)


def known(definition: str) -> tuple[Operator, Definition]:
    """The operator that has `definition`; UserError when none has."""
    for name in catalog.list_operators():
        operator = catalog.load_operator(name)
        if definition in operator.definitions:
            return operator, operator.definitions[definition]
    raise UserError(f"no operator here has the definition {definition!r}")


def earlier(report: Path, digest: str) -> Claim | None:
    """The benchmark of a report written before, when it is of the same kernel."""
    try:
        document = json.loads(report.read_text(encoding="utf-8"))
        if document["digest"] != digest:
            return None
        claim = _claim("the report before", document["device"], document["entries"])
        return claim and Claim(claim.source, claim.device, claim.rows, str(document["anchor"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none there, or written by a version whose reports read otherwise


def slug(device: str) -> str:
    """Folder name of a device: `NVIDIA H200` -> `nvidia_h200`."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_") or "device"


def _of_run(path: Path) -> tuple[Exported, Claim | None]:
    store = Store.open(path, readonly=True)
    try:
        report, meta = store.report(), store.meta
    finally:
        store.close()
    if not report or not report.get("champion"):
        raise UserError(f"{path} has no champion yet")
    solution = Solution.model_validate(report["champion"]["solution"])
    device = str(meta["device"].get("name", ""))
    return Exported(solution), _claim("the run's own report", device, report.get("entries", ()))


def _of_results(file: Path) -> Claim | None:
    """The claim of an exported champion."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        device = str(results["device"]["name"])
        return _claim("the exported results.json", device, results["entries"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not a champion's: then nothing is claimed


def _claim(source: str, device: str, entries: Iterable[dict[str, Any]]) -> Claim | None:
    champions = (e for e in entries if e["role"] == "champion")
    rows = {str(row["label"]): row for e in champions for row in e["results"]}
    return Claim(source, device, rows) if rows else None


def _shape(definition: Definition) -> Any:
    """What makes two definitions the same job; words about it do not."""
    axes = {name: (axis.type, axis.value) for name, axis in definition.axes.items()}
    tensors = [
        [(name, spec.shape, spec.dtype) for name, spec in side.items()]
        for side in (definition.inputs, definition.outputs)
    ]
    return axes, tensors
