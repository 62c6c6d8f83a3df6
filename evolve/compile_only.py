"""`evolve run --compile-only TARGET`: build facts and errors of CUDA kernels without a GPU."""

from __future__ import annotations

import re
from typing import Any

from evaluators import catalog
from evolve.config import RunConfig
from evolve.errors import UserError


def compile_seeds(config: RunConfig, target: str) -> list[dict[str, Any]]:
    """Compile every CUDA seed of the definition for `target`; one record each, no scores."""
    if not re.fullmatch(r"sm_\d{2,3}[af]?", target):
        raise UserError(f"--compile-only takes a target such as sm_90a, got {target!r}")
    operator = catalog.load_operator(config.operator)
    definition = operator.definition(config.definition, "cuda")
    seeds = catalog.seeds(operator, definition, "cuda")
    if config.languages:
        seeds = [s for s in seeds if s.spec.language in config.languages]
    from evaluators.compile_only import Compiler  # imports torch

    with Compiler(definition, operator.folder, target, settings=config.evaluator) as compiler:
        outcomes = [compiler.compile(seed) for seed in seeds]
    return [{**o.model_dump(mode="json"), "summary": _summary(o)} for o in outcomes]


def _summary(outcome: Any) -> str:
    facts = outcome.build
    if facts is None:
        return outcome.log.strip().splitlines()[-1] if outcome.log.strip() else ""
    return (
        f"{facts.target} in {outcome.seconds:.1f} s: {', '.join(facts.kernels)}; "
        f"{facts.shared_bytes} B shared, {facts.registers} registers, {facts.spills} spills"
    )
