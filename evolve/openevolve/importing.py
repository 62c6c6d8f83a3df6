"""Programs of an OpenEvolve checkpoint into a run: they wait in its store for the next `resume`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluators import catalog, guard
from evaluators.catalog import explain
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile
from evolve.lock import sole_writer
from evolve.openevolve.checkpoint import Checkpoint, Foreign, read
from evolve.phrases import waiting_line
from evolve.store import Store
from islands.program import Program

EMITTER = "openevolve"
NOTE = 160
"""Most characters of what OpenEvolve says about a change."""


@dataclass(frozen=True)
class How:
    """How to read the programs, where a checkpoint does not say.

    `language` None: as each program's source tells. `entry` names the function to call; `returns`
    says that it takes the inputs alone and returns the outputs.
    """

    language: Language | None = None
    entry: str = "run"
    returns: bool = False


def import_checkpoint(
    run_dir: Path, folder: Path, how: How, count: int | None = None, dry: bool = False
) -> dict[str, Any]:
    """Queue the best programs of a checkpoint, at most `count` new ones; what became of each.

    Importing again queues nothing twice. UserError: no checkpoint, no run, or the run is busy.
    """
    found = read(folder)
    if dry:
        return _import(Store.open(run_dir, readonly=True), found, how, count)
    with sole_writer(run_dir):
        return _import(Store.open(run_dir), found, how, count)


def _import(store: Store, found: Checkpoint, how: How, count: int | None) -> dict[str, Any]:
    try:
        told = queue(store, found, how, count)
        counts = store.counts()
        return {
            "kept": not store.readonly,
            "checkpoint": str(found.folder),
            "programs": told,
            "damaged": list(found.damaged),
            "queued": sum(facts["state"] == "QUEUED" for facts in told),
            "pending": len([p for p in store.pending() if p.emitter != "seed"]),
            "evaluations": counts["search"] + counts["remeasure"],
            "budget": store.meta["config"]["budget"]["evaluations"],
        }
    finally:
        store.close()


def queue(store: Store, found: Checkpoint, how: How, count: int | None) -> list[dict[str, Any]]:
    """Queue programs, best first, islands in turn; facts of each looked at. Writes unless the store
    is read-only."""
    meta = store.meta
    definition = Definition.model_validate(meta["definition_record"])
    islands = int(meta["config"].get("islands", {}).get("count", 1))
    told: list[dict[str, Any]] = []
    queued: set[str] = set()
    for foreign in found.programs:
        if len(queued) == count:
            break
        facts = {"id": foreign.id, "fitness": foreign.fitness, "reason": ""}
        told.append(facts)
        solution = solution_of(foreign, definition, meta["device"]["type"], how)
        reasons = [solution] if isinstance(solution, str) else guard.check(solution, definition)
        if isinstance(solution, str) or reasons:
            facts |= {"state": "REFUSED", "reason": "\n".join(reasons)}
            continue
        island = len(queued) % islands
        ordinal = store.proposed_by_island().get(island, (0, 0))[1]
        program = Program.of(
            solution, island=island, emitter=EMITTER, ordinal=ordinal, note=_note(foreign)
        )
        facts |= {"program": program.id, "language": solution.spec.language.value}
        if program.id in queued or store.has(program.id):
            facts |= {"state": "DUPLICATE", "reason": "this very program is in the run already"}
            continue
        queued.add(program.id)
        facts["state"] = "QUEUED"
        if not store.readonly:
            store.propose(program)
    return told


def solution_of(foreign: Foreign, definition: Definition, device: str, how: How) -> Solution | str:
    """The program as a solution of `definition`; a text when it cannot be one."""
    language = how.language or foreign.language_here()
    if language is None:
        return f"its language is not told ({foreign.language or 'nothing said'}): give --language"
    file = "kernel" + catalog.SUFFIXES[language]
    native = language in (Language.CUDA, Language.CPP)
    if native and how.returns:
        return f"{language.value}: an entry point writes its outputs, it cannot return them"
    try:
        return Solution(
            name=f"openevolve_{foreign.id[:8]}",
            definition=definition.name,
            author="openevolve",
            sources=(SourceFile(path=file, content=foreign.code),),
            spec=BuildSpec(
                language=language,
                target_hardware=(device,),
                entry_point=f"{file}::{how.entry}",
                destination_passing_style=not how.returns,
                binding="tvm-ffi" if native else None,
            ),
        )
    except ValidationError as error:
        return explain(error)


def _note(foreign: Foreign) -> str:
    said = f": {foreign.changes[:NOTE]}" if foreign.changes not in ("", "empty") else ""
    return (
        f"OpenEvolve {foreign.id[:8]}, iteration {foreign.iteration}, "
        f"fitness {foreign.fitness:.4g}{said}"
    )


def report_lines(report: dict[str, Any], run: Path) -> list[str]:
    """What `import_checkpoint` returned, for people."""
    lines = [f"{report['checkpoint']}: {len(report['programs'])} programs looked at"]
    for facts in report["programs"]:
        reason = f"  {facts['reason'].splitlines()[0]}" if facts["reason"] else ""
        lines.append(f"{facts['id'][:8]}  {facts['fitness']:.4g}  {facts['state']}{reason}")
    lines += [f"{name}  DAMAGED  not a program" for name in report["damaged"]]
    if not report["kept"]:
        return [*lines, "dry run: nothing was kept"]
    done, budget = report["evaluations"], report["budget"]
    return [*lines, waiting_line(report["pending"], done, budget, run)]
