"""One run from start to champion: wires store, pool, engine, interrupts, closing, export, plots."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluators import catalog, processor
from evolve import closing, cluster, local_model, player
from evolve.authors.hiring import hire
from evolve.authors.keys import drop, named, withdraw
from evolve.authors.proposing import Proposing
from evolve.authors.report import summarise
from evolve.authors.settings import command_of
from evolve.config import RunConfig, current, parse
from evolve.display import Display
from evolve.engine import Engine
from evolve.errors import UserError
from evolve.llm import background, recall
from evolve.lock import sole_writer
from evolve.plan import Plan, check_name, meta_of, operator, plan, pool_for
from evolve.pool import EvaluatorPool
from evolve.recording import kept
from evolve.store import Store

INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    run_dir: Path
    reason: str
    exit_code: int
    report: dict[str, Any] | None


def run(
    config: RunConfig,
    results: Path,
    name: str | None,
    quiet: bool,
    search_only: bool = False,
    recalled: Sequence[Path] = (),
) -> Outcome:
    """Start a new run and take it to its end; `search_only`: a later resume does the closing.

    `recalled`: folders with runs, beside `results`, whose insights prompts may use.
    """
    operator(config)
    keys = _keys(config)
    results = cluster.results_dir(results)
    check_name(results, name)
    found = plan(config)
    run_dir = results / (name or f"{found.definition.name}-{time.strftime('%Y%m%d-%H%M%S')}")

    def prepare(store: Store) -> list[str]:
        return recall.gather(store, [results, *recalled]).skipped

    return begin(found, run_dir, keys, quiet, search_only, prepare)


def begin(
    found: Plan,
    run_dir: Path,
    keys: Mapping[str, str],
    quiet: bool,
    search_only: bool,
    prepare: Callable[[Store], Sequence[str]],
) -> Outcome:
    """A new run in `run_dir`; `prepare` gets its empty store and returns lines for people."""
    with pool_for(found) as pool:
        store = Store.create(run_dir, meta_of(found, pool))
        with sole_writer(run_dir), _closed(store):
            return _drive(found, store, pool, keys, quiet, search_only, notes=prepare(store))


def resume(
    run_dir: Path,
    evaluations: int | None,
    time_s: float | None,
    quiet: bool,
    search_only: bool = False,
    llm: Mapping[str, Any] | None = None,
    recalled: Sequence[Path] = (),
) -> Outcome:
    """Continue a run where it stopped; `evaluations` is a new total budget.

    `llm`: settings of `[llm]` that take the place of the run's.
    """
    with sole_writer(run_dir), _closed(Store.open(run_dir)) as store:
        meta = store.meta
        data = _renewed(current(meta["config"]), evaluations, time_s, llm or {})
        config = parse({**data, "definition": meta["definition"]})
        keys = _keys(config)
        drop(named(meta), os.environ)  # a replay's run has keys too that it does not need
        found = plan(config)
        if recording := kept(store):
            found = replace(found, seeds=list(recording.seeds))
        if found.device != meta["device"]["type"]:
            raise UserError(
                f"{run_dir} was measured on {meta['device']['type']}, not {found.device}"
            )
        with pool_for(found) as pool:
            moved = pool.facts.get("name") != meta["device"].get("name")
            device = pool.facts if moved else _at_best(pool.facts, meta["device"])
            store.set_meta({"config": data, "device": {**device, "type": found.device}})
            skipped = recall.gather(store, recalled).skipped if recalled else []
            return _drive(found, store, pool, keys, quiet, search_only, moved, skipped)


def _at_best(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """A device's facts with the best of two measurements: others may have been busy on it."""
    new, old = now.get("ceilings") or {}, before.get("ceilings") or {}
    rates, known = new.get("tflops") or {}, old.get("tflops") or {}
    best = {
        "copy_gbps": max(new.get("copy_gbps", 0.0), old.get("copy_gbps", 0.0)),
        "tflops": {k: max(rates.get(k, 0.0), known.get(k, 0.0)) for k in {**known, **rates}},
    }
    return {**now, "ceilings": best} if new and old else dict(now)


@contextmanager
def _closed(store: Store) -> Iterator[Store]:
    """`store`, closed with the block: then all of it is in its one file, no log beside it."""
    try:
        yield store
    finally:
        store.close()


def _renewed(
    data: dict[str, Any], evaluations: int | None, time_s: float | None, llm: Mapping[str, Any]
) -> dict[str, Any]:
    """A stored configuration with what a resume may change."""
    budget = {**data["budget"], "time_s": time_s}
    if evaluations is not None:
        budget["evaluations"] = evaluations
    if llm and not data.get("llm"):
        raise UserError("this run has no section [llm] whose limits could change")
    return {**data, "budget": budget, **({"llm": {**data["llm"], **llm}} if llm else {})}


def _keys(config: RunConfig) -> dict[str, str]:
    """Keys of models, out of this process's environment before others inherit it.

    UserError for what authors need and is not there: found out before anything starts.
    """
    if config.agent is not None:
        command_of(config.agent, os.environ)
    return withdraw(config, os.environ)


def _warnings(device: str) -> list[str]:
    if device != "cpu" or (busy := processor.busy()) <= processor.BUSY:
        return []
    return [
        f"others take {busy:.0%} of this machine's cores now: scores will hardly tell good from bad"
    ]


def _drive(
    found: Plan,
    store: Store,
    pool: EvaluatorPool,
    keys: Mapping[str, str],
    quiet: bool,
    search_only: bool,
    moved: bool = False,
    notes: Sequence[str] = (),
) -> Outcome:
    """Search and close. `moved`: to another device, whose latencies do not compare."""
    title = f"{found.definition.name} on {pool.facts.get('name', found.device)}"
    with Display(title, quiet) as display:
        display.say("\n".join([f"run {store.run_dir}", *_warnings(found.device), *notes]))
        with _proposing(found, store, pool, keys, display) as proposing:
            engine = Engine(
                store,
                found.config,
                found.definition,
                found.seeds,
                pool,
                display,
                proposing,
                player.population(store, found.config, found.definition),
            )
            engine.new_epoch_first = moved
            with _interrupts(engine, display):
                reason = engine.run()
        if reason == "interrupted":
            where = shlex.quote(str(store.run_dir))
            display.say(f"interrupted; everything is recorded. evolve resume {where}")
            if proposing is not None and (waiting := proposing.unanswered()):
                display.say(f"{waiting} prompts have no answer yet; resume asks them again")
            return Outcome(store.run_dir, reason, INTERRUPTED, None)
        display.say(f"search ended: {reason}")
        if search_only:
            return Outcome(store.run_dir, reason, 0, None)
        report = close(found, store, pool, engine, display)
    return Outcome(store.run_dir, reason, 0 if report.get("champion") else 1, report)


@contextmanager
def _proposing(
    found: Plan, store: Store, pool: EvaluatorPool, keys: Mapping[str, str], display: Display
) -> Iterator[Proposing | None]:
    """The run's authors, or None where it has none."""
    with local_model.reachable(found.config.llm) as llm:
        authors = hire(found.config, llm, store, keys, os.environ)
        if not authors:
            yield None
            return
        about = background.load(store.meta, found.definition, cost=pool.cost)
        proposing = Proposing(store, found.config, found.definition, about, authors, display.say)
        try:
            yield proposing
        finally:
            proposing.close()


def close(
    found: Plan, store: Store, pool: EvaluatorPool, engine: Engine, display: Display
) -> dict[str, Any]:
    """Verify, measure beside seeds and peers, record the report, export and draw."""
    from evolve import output

    elites = engine.population.elites()
    epoch = store.counts()["epoch"] + 1
    seed = found.config.seed
    verified = closing.verify(pool, found.anchor, epoch, seed, elites, display.say)
    if verified is None:
        display.say("no elite passed verification: no champion")
        return {"champion": None, "entries": []}
    program, evaluation, replays = verified
    peers = catalog.peers(found.operator, found.definition, found.device)
    entries, workloads = closing.measure(
        pool,
        found.anchor,
        epoch + 1,
        seed,
        closing.contenders(program.solution, found.seeds, peers if found.config.peers else []),
        display.say,
    )
    report = {
        "champion": {
            "program_id": program.id,
            "solution": program.solution.model_dump(mode="json"),
            "verified": True,
            "verification": evaluation.model_dump(mode="json"),
            "stability": replays.model_dump(mode="json"),
        },
        "entries": entries,
        "workloads": [w.model_dump(mode="json") for w in workloads],
        "evaluators": pool.accounting(),
        "authors": summarise(store),
    }
    store.set_meta({"report": report})
    output.write(store, store.run_dir, display.say)
    return report


@contextmanager
def _interrupts(engine: Engine, display: Display) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): finish what is in flight. Second: stop now.

    Every recorded evaluation is on disk already, so that stopping now is an exception like others.
    """

    def handle(number: int, frame: Any) -> None:
        if engine.stopping:
            raise KeyboardInterrupt
        engine.stop()
        display.say("stopping: finishing what is in flight (Ctrl-C again to stop now)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
