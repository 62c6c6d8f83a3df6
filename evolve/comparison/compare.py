"""Puts a comparison together: reads, measures, and writes it down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluators.child import EvaluatorError
from evaluators.schema import Record
from evolve.authors.keys import drop, named
from evolve.comparison import duel, runs, tables
from evolve.comparison.duel import BASE, RUN, Duel
from evolve.comparison.runs import Pair
from evolve.config import parse
from evolve.errors import UserError
from evolve.phrases import gist
from evolve.plan import Plan, plan, pool_for
from evolve.verification import environment
from evolve.verification.progress import Watch

SEED = 0
"""Of what is drawn for the measurement; the report grid itself is fixed."""


class Comparison(Record):
    """All that was found. `runs`, `emitters` and `modes` have the keys `run` and `base`.

    `duel` and `environment` are empty without a measurement. `started`: Unix time.
    """

    definition: str
    kind: str
    started: float
    runs: dict[str, dict[str, Any]]
    settings: tuple[dict[str, Any], ...]
    heights: str
    same_workloads: bool
    same_champion: bool
    emitters: dict[str, tuple[dict[str, Any], ...]]
    modes: dict[str, tuple[dict[str, Any], ...]]
    duel: Duel | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER, ALIKE or FAILED of RUN's champion, or NOT MEASURED."""
        return self.duel.verdict if self.duel else "NOT MEASURED"

    def document(self) -> dict[str, Any]:
        """JSON form: the fields, and what follows from them."""
        return {"verdict": self.verdict, **self.model_dump(mode="json")}


def compare(
    run_dir: Path, base_dir: Path, out: Path, device: str, measure: bool, quiet: bool
) -> tuple[Comparison, list[Path]]:
    """Compare two runs and write the folder `out`; the comparison and the files.

    UserError for runs that cannot be compared, or not here.
    """
    from evolve.comparison import page

    pair = runs.read(run_dir, base_dir)
    try:
        if device not in ("auto", pair.run.kind):
            raise UserError(f"the runs are of {pair.run.kind}, and --device is {device}")
        here = _plan(pair) if measure else None
        page.make(out)
        found = _of_stores(pair)
        if here is not None:
            found = _measured(pair, found, here, quiet)
        return found, page.write(found, pair, out)
    finally:
        pair.close()


def _of_stores(pair: Pair) -> Comparison:
    sides = {RUN: pair.run, BASE: pair.base}
    heights = runs.heights(pair)
    same = pair.run.champion.id == pair.base.champion.id
    notes = [side.note for side in sides.values() if side.note]
    return Comparison(
        definition=pair.run.definition.name,
        kind=pair.run.kind,
        started=time.time(),
        runs={name: runs.facts(side) for name, side in sides.items()},
        settings=tuple(runs.settings(pair)),
        heights=heights.said,
        same_workloads=heights.alike,
        same_champion=same,
        emitters={name: tuple(tables.by_emitter(side)) for name, side in sides.items()},
        modes={name: tuple(tables.by_mode(side)) for name, side in sides.items()},
        notes=(*notes, *(["both champions are the same program"] if same else [])),
    )


def _plan(pair: Pair) -> Plan:
    """What the measurement needs here. UserError when this machine lacks it."""
    for side in (pair.run, pair.base):
        drop(named(side.store.meta), os.environ)  # before anything starts that would inherit them
    definition = pair.run.definition.name
    choices = {"operator": pair.run.store.meta["operator"], "definition": definition}
    try:
        here = plan(parse({**choices, "device": pair.run.kind, "seed": SEED}))
    except UserError as error:
        raise UserError(f"{error}; --no-measure compares what the runs hold") from None
    if not runs.same_job(pair.run, here.definition):
        raise UserError(f"the runs' {definition} is not the one known here")
    return here


def _measured(pair: Pair, found: Comparison, here: Plan, quiet: bool) -> Comparison:
    """The same with the champions measured on this machine."""
    with Watch(quiet) as watch, pool_for(here) as pool:
        name = str(pool.facts.get("name", here.device))
        watch.say(f"measuring two champions of {found.definition} on {name}")
        watch.doing("timing on the report grid, in both orders")
        solutions = (pair.run.champion.solution, pair.base.champion.solution)
        try:
            met = duel.fight(pool, here.anchor, SEED, *solutions, watch.say)
        except EvaluatorError as error:
            raise UserError(f"the champions cannot be measured: {gist(str(error))}") from None
        where = environment.describe(here.device, pool.accounting()[0])
    facts = {**where.facts, "name": name}
    return found.model_copy(
        update={"duel": met, "environment": facts, "notes": (*found.notes, *where.notes)}
    )
