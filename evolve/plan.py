"""What a run needs before it starts: operator, device, definition, seeds; its evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.schema import Definition, Solution
from evolve import cluster
from evolve.config import RunConfig
from evolve.errors import UserError
from evolve.export import definition_json
from evolve.pool import EvaluatorPool
from evolve.store import FILE


@dataclass(frozen=True)
class Plan:
    """A configuration with everything it names found."""

    config: RunConfig
    operator: catalog.Operator
    definition: Definition
    device: str
    devices: int
    seeds: list[Solution]

    @property
    def anchor(self) -> Solution:
        return self.seeds[0]


def plan(config: RunConfig) -> Plan:
    """Find operator, device, definition and seeds. UserError or CatalogError for what is absent."""
    named = operator(config)
    cluster.start()
    device, count = cluster.pick_device(config.device)
    definition = named.definition(config.definition, device)
    seeds = _written_in(config, catalog.seeds(named, definition, device), definition.name, device)
    return Plan(config, named, definition, device, count, seeds)


def _written_in(
    config: RunConfig, seeds: list[Solution], definition: str, device: str
) -> list[Solution]:
    """Seeds in the wanted languages. UserError when there is none."""
    found = [s for s in seeds if s.spec.language in config.languages]
    if config.languages and not found:
        there = ", ".join(dict.fromkeys(s.spec.language.value for s in seeds))
        asked = " or ".join(language.value for language in config.languages)
        raise UserError(f"no seed in {asked} for {definition} on {device}; there are: {there}")
    return found or seeds


def check_name(results: Path, name: str | None) -> None:
    """UserError for a name that a new run in `results` cannot have."""
    if not name:
        return
    if name in {".", ".."} or Path(name).name != name:
        raise UserError(f"a run's name is one folder's, got {name!r}; see --results")
    if (results / name / FILE).exists():
        raise UserError(f"{results / name} already holds a run; resume it or choose another name")
    if (results / name).exists() and not (results / name).is_dir():
        raise UserError(f"{results / name} is a file; choose another name")


def operator(config: RunConfig) -> catalog.Operator:
    """The operator, its named definition looked up: wrong names need no cluster to be found out."""
    found = catalog.load_operator(config.operator)
    if config.definition is not None:
        found.definition(config.definition, config.device)
    return found


@contextmanager
def pool_for(found: Plan) -> Iterator[EvaluatorPool]:
    """Evaluators for a plan, ended with the block."""
    spawns = cluster.evaluator_spawns(
        found.device, found.devices, found.definition, found.operator.folder, found.config.evaluator
    )
    pool = EvaluatorPool(spawns)
    clean = False
    try:
        yield pool
        clean = True
    finally:
        pool.close(wait=clean)


def meta_of(found: Plan, pool: EvaluatorPool) -> dict[str, Any]:
    """The facts that a new run's store begins with."""
    return {
        "operator": found.operator.name,
        "definition": found.definition.name,
        "definition_record": definition_json(found.definition),
        "device": {**pool.facts, "type": found.device},
        "config": found.config.model_dump(mode="json", exclude_none=True),
        "seeds": [s.name for s in found.seeds],
    }
