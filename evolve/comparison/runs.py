"""What `evolve compare` is given: two runs of one definition on one kind of device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import gains
from analysis.frames import means
from evaluators.schema import Definition
from evolve.authors.report import summarise
from evolve.emitters import EMITTERS
from evolve.errors import UserError
from evolve.llm.history import History
from evolve.output import frame
from evolve.store import Store
from islands.program import Program

_FREE = ("llm", "agent", "operator", "definition", "device")
"""Keys of a configuration that are told elsewhere, or hold where a model is."""


@dataclass(frozen=True)
class Side:
    """One of the two runs. `note` says what stands in for a champion; '' when it has one.

    `course`: its evaluations as `analysis.gains.course` gives them, with the column `maker`: the
    emitter, for tuner and crossover with whether they worked on code that an author wrote.
    `entries`: its closing table (`analysis.frames.entries`).
    """

    name: str
    store: Store
    definition: Definition
    champion: Program
    course: pd.DataFrame
    entries: pd.DataFrame
    note: str = ""

    @property
    def seeds(self) -> dict[str, str]:
        """Program id -> name of the seeds."""
        return {p.id: p.solution.name for p in self.store.programs() if p.emitter == "seed"}

    @property
    def kind(self) -> str:
        """cuda or cpu."""
        return str(self.store.meta["device"]["type"])

    @property
    def device(self) -> str:
        return str(self.store.meta["device"].get("name", ""))


@dataclass(frozen=True)
class Pair:
    """RUN and BASE. Close the stores with `close`."""

    run: Side
    base: Side

    def close(self) -> None:
        self.run.store.close()
        self.base.store.close()


def read(run_dir: Path, base_dir: Path) -> Pair:
    """Both runs. UserError when they cannot be compared."""
    if run_dir.resolve() == base_dir.resolve():
        raise UserError(f"{run_dir} and {base_dir} are the same run")
    names = [path.resolve().name for path in (run_dir, base_dir)]
    if names[0] == names[1]:
        names = [str(run_dir), str(base_dir)]
    stores = [Store.open(path, readonly=True) for path in (run_dir, base_dir)]
    try:
        _refuse_unlike(*stores)
        return Pair(*(_side(name, store) for name, store in zip(names, stores, strict=True)))
    except UserError:
        for store in stores:
            store.close()
        raise


def _refuse_unlike(run: Store, base: Store) -> None:
    one, other = run.meta, base.meta
    if one["definition"] != other["definition"]:
        raise UserError(
            f"{run.run_dir} is of {one['definition']}, {base.run_dir} of {other['definition']}"
        )
    if _job(_definition(run)) != _job(_definition(base)):
        raise UserError(f"the runs' definitions of {one['definition']} are not the same job")
    kinds = [meta["device"].get("type") for meta in (one, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{run.run_dir} ran on {kinds[0]}, {base.run_dir} on {kinds[1]}")


def _definition(store: Store) -> Definition:
    return Definition.model_validate(store.meta["definition_record"])


def _job(definition: Definition) -> Any:
    """What makes two definitions the same job; words about it do not."""
    tensors = [
        (name, spec.shape, spec.dtype)
        for side in (definition.inputs, definition.outputs)
        for name, spec in side.items()
    ]
    return {name: (axis.type, axis.value) for name, axis in definition.axes.items()}, tensors


def same_job(side: Side, definition: Definition) -> bool:
    """Whether a run's definition is the one known here."""
    return bool(_job(side.definition) == _job(definition))


def _side(name: str, store: Store) -> Side:
    programs = {program.id: program for program in store.programs()}
    whole = frame(store)
    table = gains.course(whole.evaluations)
    champion, note = _champion(name, store, table, programs)
    makers = [_maker(programs[p], programs) for p in table["program"]]
    course = table.assign(maker=makers)
    return Side(name, store, _definition(store), champion, course, whole.entries, note)


def _champion(
    name: str, store: Store, table: pd.DataFrame, programs: Mapping[str, Program]
) -> tuple[Program, str]:
    """The champion, or the best of the latest epoch; and a note for the latter."""
    found = (store.report() or {}).get("champion")
    if found:
        return programs[found["program_id"]], ""
    scored = table[table["score"].notna()]
    if scored.empty:
        raise UserError(f"{store.run_dir} holds no program that passed")
    latest = scored[scored["epoch"] == scored["epoch"].max()]
    best = latest.loc[latest["score"].idxmax()]
    return programs[best["program"]], (
        f"{name} has no champion: the best program of its epoch {best['epoch']} stands in for one, "
        "without verification on unseen workloads"
    )


def _maker(program: Program, programs: Mapping[str, Program]) -> str:
    """The emitter; of tuner and crossover also whether what they varied is an author's."""
    if program.emitter not in EMITTERS or not _authored(program, programs):
        return program.emitter
    return f"{program.emitter} on authors' code"


def _authored(program: Program, programs: Mapping[str, Program]) -> bool:
    """Whether an ancestor was written by an author: a model, an agent, a person, an import."""
    seen: set[str] = set()
    waiting = list(program.parents)
    while waiting:
        parent = programs.get(waiting.pop())
        if parent is None or parent.id in seen:
            continue
        if parent.emitter not in {*EMITTERS, "seed"}:
            return True
        seen.add(parent.id)
        waiting += parent.parents
    return False


# -- facts ------------------------------------------------------------------------------------


def facts(side: Side) -> dict[str, Any]:
    """A run in plain values: how much it evaluated, with whom, and what its authors cost."""
    meta, table = side.store.meta, side.course
    authors = summarise(side.store)
    closed = means(side.entries)
    champion = closed.loc[closed["role"] == "champion", "score"]
    return {
        "name": side.name,
        "device": side.device,
        "seed": _seed(side),
        "evaluations": int(table["number"].max()) if len(table) else 0,
        "epochs": int(table["epoch"].nunique()),
        "emitters": meta["config"].get("islands", {}).get("emitters", {}),
        "anchor": _anchor(side),
        "hours": (table["at"].max() - table["at"].min()) / 3600 if len(table) else 0.0,
        "champion": side.champion.id,
        "champion_made_by": side.champion.emitter,
        "champion_language": side.champion.solution.spec.language.value,
        "champion_score": float(champion.iloc[0]) if len(champion) else None,
        "note": side.note,
        "lineage": lineage(side),
        "authors": {k: authors[k] for k in ("exchanges", "tokens", "cost")} if authors else None,
    }


def lineage(side: Side) -> list[dict[str, Any]]:
    """The champion's ancestors along first parents, the oldest first: who made what change.

    `gain`: score over the parent's in the latest epoch that measured both in full.
    """
    history = History(side.store)
    chain: list[Program] = []
    program: Program | None = side.champion
    while program is not None and program not in chain:
        chain.append(program)
        program = history.programs.get(program.parents[0]) if program.parents else None
    return [
        {
            "program": p.id,
            "emitter": p.emitter,
            "change": p.note or p.solution.name,
            "gain": history.gain(p.id, p.parents[0]) if p.parents else None,
        }
        for p in reversed(chain)
    ]


def settings(pair: Pair) -> list[dict[str, Any]]:
    """Keys of the configurations whose values differ: what else, beside authors, is unlike."""
    flat = [_flat(side.store.meta["config"]) for side in (pair.run, pair.base)]
    keys = sorted(flat[0].keys() | flat[1].keys())
    return [
        {"key": key, "run": flat[0].get(key), "base": flat[1].get(key)}
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    ]


def _flat(config: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if not head and key in _FREE:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{head}{key}.")
        else:
            found[f"{head}{key}"] = value
    return found


# -- what compares ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Heights:
    """Whether scores of the two runs compare, as a sentence; `alike`: on the same workloads."""

    said: str
    alike: bool


def heights(pair: Pair) -> Heights:
    """How far scores of one run compare with those of the other."""
    run, base = pair.run, pair.base
    if run.device != base.device:
        return Heights(f"The runs are of {run.device} and {base.device}: {_HEIGHTS}.", False)
    if _anchor(run) != _anchor(base):
        return Heights(f"The runs had different anchors: {_HEIGHTS}.", False)
    epochs = [side.store.epochs() for side in (run, base)]
    both = sorted(epochs[0].keys() & epochs[1].keys())
    if both and all(_drawn(epochs[0][e]) == _drawn(epochs[1][e]) for e in both):
        which = "their epoch" if len(both) == 1 else f"epochs {both[0]} to {both[-1]}"
        text = f"Both runs had the same device, anchor and workloads in {which}: heights compare."
        return Heights(text, True)
    return Heights(
        "Both runs had the same device and anchor, but drew their own workloads "
        f"(seeds {_seed(run)} and {_seed(base)}): heights compare up to the draw.",
        False,
    )


_HEIGHTS = "heights of the lines do not compare"


def _seed(side: Side) -> int:
    return int(side.store.meta["config"].get("seed", 0))


def _anchor(side: Side) -> str:
    """Id of the first seed, beside which everything was timed."""
    seeds = [p for p in side.store.programs() if p.emitter == "seed"]
    return min(seeds, key=lambda p: p.ordinal).id if seeds else ""


def _drawn(workloads: list[Any]) -> set[tuple[str, float]]:
    return {(w.uuid, w.weight) for w in workloads}
