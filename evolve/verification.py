"""`evolve verify`: a solution from a run, a folder or a file, checked and measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.schema import Solution
from evolve import closing, session
from evolve.config import parse
from evolve.display import Display
from evolve.errors import UserError
from evolve.export import load_solution
from evolve.store import FILE, Store


def verify(path: Path, device: str, seed: int, peers: bool, quiet: bool) -> dict[str, Any]:
    """Correctness on unseen workloads, latency on the report grid. Plain data; `passed` decides."""
    solution = _solution(path)
    operator = operator_of(solution.definition)
    config = parse(
        {"operator": operator, "definition": solution.definition, "device": device, "seed": seed}
    )
    found = session.plan(config)
    listed = catalog.peers(found.operator, found.definition, found.device) if peers else []
    with Display(solution.name, quiet) as display, session.pool_for(found) as pool:
        display.say(f"verifying {solution.name} on unseen workloads")
        workloads = pool.sample("verification", 0, seed, None)
        pool.open_epoch(0, workloads, found.anchor)
        unseen = pool.evaluate(solution, samples_factor=closing.FINAL_SAMPLES)
        entries: list[dict[str, Any]] = []
        if unseen.passed:
            lines = closing.contenders(solution, found.seeds[:1], listed)
            entries, _ = closing.measure(pool, found.anchor, 1, seed, lines, display.say)
        name = str(pool.facts.get("name", found.device))
    passed = unseen.passed and entries[0]["status"] == "PASSED"
    return {
        "solution": solution.name,
        "definition": solution.definition,
        "device": name,
        "passed": passed,
        "status": unseen.status.value,
        "log": unseen.log if not unseen.passed else "",
        "unseen": unseen.model_dump(mode="json"),
        "entries": entries,
    }


def operator_of(definition: str) -> str:
    """Name of the operator that has `definition`; UserError when none has."""
    for name in catalog.list_operators():
        if definition in catalog.load_operator(name).definitions:
            return name
    raise UserError(f"no operator here has the definition {definition!r}")


def _solution(path: Path) -> Solution:
    if (path / FILE).is_file():
        report = Store.open(path, readonly=True).report()
        if not report or not report.get("champion"):
            raise UserError(f"{path} has no champion yet")
        return Solution.model_validate(report["champion"]["solution"])
    return load_solution(path).solution
