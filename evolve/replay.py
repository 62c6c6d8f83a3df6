"""`evolve replay`: a run's proposals again, without a model, and how much of its claim is reached.

The programs that the run evaluated are evaluated again in a new run, on this machine, over the same
seeds and by the same rules; verification and the closing measurements choose a champion anew. The
share reached is the weighted geometric mean, over the workloads of the report grid that both have,
of the ratio of the two champions' speedups over the anchor.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluators.schema import Evaluation
from evolve import cluster, session
from evolve.authors.keys import drop, named
from evolve.config import current, parse
from evolve.emitters import EMITTERS
from evolve.errors import UserError
from evolve.plan import check_name, plan
from evolve.recording import Claim, Recording, claim, keep, kept, take
from evolve.store import Row, Store

THRESHOLDS = (0.6, 0.8, 0.9)
"""Shares of a claim at which contests score a submission that is measured again."""
REPORT = "replay.json"


def replay(
    run_dir: Path,
    results: Path,
    name: str | None,
    evaluations: int | None,
    peers: bool,
    exchanges_only: bool,
    quiet: bool,
    require: float | None = None,
) -> session.Outcome:
    """Repeat a run in a new one. UserError: nothing to repeat, or not on this kind of device.

    `require`: the share of the claim that is wanted; UserError when there is no claim.
    """
    results = cluster.results_dir(results)
    check_name(results, name)
    source = Store.open(run_dir, readonly=True)
    try:
        recording = take(source, exchanges_only)
        if require is not None and recording.claim is None:
            raise UserError(f"{run_dir} has no champion whose speed could be required")
        config = parse(_config(source.meta, recording, evaluations, peers))
        drop(named(source.meta), os.environ)
    finally:
        source.close()
    found = replace(plan(config), seeds=list(recording.seeds))
    new = name or f"{recording.run}-replay-{time.strftime('%Y%m%d-%H%M%S')}"

    def prepare(store: Store) -> list[str]:
        keep(store, recording)
        return said(recording)

    return session.begin(found, results / new, {}, quiet, search_only=False, prepare=prepare)


def _config(
    meta: dict[str, Any], recording: Recording, evaluations: int | None, peers: bool
) -> dict[str, Any]:
    """The run's configuration without authors, with room for every program.

    Elites measured again are at most a third of an epoch's searches, but for the last epoch.
    """
    data = {k: v for k, v in current(meta["config"]).items() if k not in {"llm", "agent"}}
    shares = data["islands"]["emitters"]
    own = {n: share for n, share in shares.items() if n in EMITTERS} or {"tuner": 1.0}
    return {
        **data,
        "definition": meta["definition"],
        "device": meta["device"]["type"],
        "peers": peers and data.get("peers", True),
        "islands": {**data["islands"], "emitters": own},
        "budget": {"evaluations": evaluations or 3 * len(recording.programs) + 10},
    }


def said(recording: Recording) -> list[str]:
    """Lines about what will be repeated."""
    answers = recording.exchanged
    lines = [f"repeating {len(recording.programs)} programs of {recording.run}"]
    if answers.exchanges:
        lines.append(
            f"{answers.exchanges} exchanges, {answers.replies} answers: {answers.alike} are worth "
            "the same as then"
        )
    if recording.claim is None:
        lines.append("it has no champion: there is no claim to reach a share of")
    for found in answers.differences:
        why = f" ({found.reason})" if found.reason else ""
        lines.append(
            f"  {found.exchange}, answer {found.attempt}: {found.then}, now {found.now}{why}"
        )
    return lines


# -- what became of it ------------------------------------------------------------------------


def conclusion(run_dir: Path) -> dict[str, Any] | None:
    """How a finished replay compares with its run; None for a run that repeats none."""
    store = Store.open(run_dir, readonly=True)
    try:
        recording = kept(store)
        if recording is None:
            return None
        return {
            "run": str(run_dir),
            "repeats": recording.run,
            **_compared(recording.claim, claim(store)),
            "programs": len(recording.programs),
            "evaluated": sum(store.evaluated(p.id) for p in recording.programs),
            "left_out": recording.left_out,
            "emitters": _by_emitter(recording, store),
            "outcomes": _outcomes(recording, store),
            "exchanges": recording.exchanged.model_dump(mode="json"),
        }
    finally:
        store.close()


def _compared(then: Claim | None, now: Claim | None) -> dict[str, Any]:
    """Both champions, and the share of the claim that is reached; None where one is missing."""
    share = error = None
    facts: dict[str, Any] = {"claimed": _short(then), "reached": _short(now)}
    if then is not None and now is not None:
        both = then.grid.keys() & now.grid.keys()
        facts["same_champion"] = then.program == now.program
        facts["share_unseen"] = now.unseen / then.unseen
        facts["workloads"] = len(both)
        if both:
            share, error = share_of(then, now, both)
    thresholds = {f"{x:.0%}": share is not None and share >= x for x in THRESHOLDS}
    return {**facts, "share": share, "share_error": error, "thresholds": thresholds}


def share_of(then: Claim, now: Claim, workloads: Set[str]) -> tuple[float, float]:
    """(share of the claim, half width of its 95% interval relative to it) over `workloads`.

    Weighted geometric mean; workloads' errors, and those of the two runs, taken as independent.
    """
    total = sum(then.grid[k].weight for k in workloads)
    mean = variance = 0.0
    for key in workloads:
        old, new = then.grid[key], now.grid[key]
        weight = old.weight / total
        mean += weight * math.log(new.speedup / old.speedup)
        variance += weight**2 * (old.half_width**2 + new.half_width**2)
    return math.exp(mean), math.expm1(math.sqrt(variance))


def _short(found: Claim | None) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = found.grid.values()
    logs = sum(row.weight * math.log(row.speedup) for row in rows)
    return {
        "program": found.program,
        "emitter": found.emitter,
        "device": found.device,
        "speedup": math.exp(logs / sum(row.weight for row in rows)) if rows else None,
        "unseen": found.unseen,
    }


def _first(store: Store) -> dict[str, Row]:
    """The first evaluation of every program."""
    found: dict[str, Row] = {}
    for row in store.evaluations():
        found.setdefault(row.program_id, row)
    return found


def _by_emitter(recording: Recording, store: Store) -> dict[str, dict[str, int]]:
    """Programs repeated, and passed then and now, by emitter."""
    first = _first(store)
    programs = Counter(program.emitter for program in recording.programs)
    passed = Counter(
        program.emitter
        for program in recording.programs
        if program.id in first and first[program.id].evaluation.passed
    )
    return {
        emitter: {
            "programs": programs[emitter],
            "passed_then": recording.passed.get(emitter, 0),
            "passed_now": passed[emitter],
        }
        for emitter in sorted(programs | Counter(recording.passed))
    }


def _outcomes(recording: Recording, store: Store) -> dict[str, Any]:
    """How many statuses are as then, the others by both, and the claimed champion's fate."""
    first = _first(store)
    pairs = [
        (then, first[program.id].evaluation.status.value)
        for program, then in zip(recording.programs, recording.statuses, strict=True)
        if program.id in first
    ]
    champion = first.get(recording.claim.program) if recording.claim else None
    return {
        "alike": sum(then == now for then, now in pairs),
        "changed": dict(Counter(f"{then}, now {now}" for then, now in pairs if then != now)),
        "champion": None if champion is None else _fate(champion.evaluation),
    }


def _fate(evaluation: Evaluation) -> str:
    log = "" if evaluation.passed else evaluation.log.strip()
    return evaluation.status.value + (f": {log.splitlines()[0]}" if log else "")


def write(run_dir: Path, facts: dict[str, Any]) -> Path:
    """Keep a conclusion beside the run's tables."""
    file = run_dir / REPORT
    file.write_text(json.dumps(facts, indent=2) + "\n")
    return file


def conclusion_lines(facts: dict[str, Any]) -> list[str]:
    """The conclusion for people."""
    then, now, answers = facts["claimed"], facts["reached"], facts["exchanges"]
    lines = [f"replay of {facts['repeats']}: {facts['evaluated']} of {facts['programs']} programs"]
    for emitter, n in facts["emitters"].items():
        lines.append(
            f"  {emitter:<10} {n['programs']}, passed {n['passed_then']} then, "
            f"{n['passed_now']} now"
        )
    changed = facts["outcomes"]["changed"].items()
    lines.append(
        f"outcomes   {facts['outcomes']['alike']} as then"
        + "".join(f"; {n} were {what}" for what, n in changed)
    )
    if answers["exchanges"]:
        lines.append(
            f"exchanges  {answers['exchanges']} ({answers['unanswered']} without an answer); of "
            f"{answers['replies']} answers {answers['alike']} are worth the same as then"
        )
    lines += [_champion_line("claimed", then), _champion_line("reached", now)]
    if facts["share"] is None:
        return [*lines, "share      unknown: one of the runs has no champion, or another grid"]
    passed = ", ".join(f"{k} {'yes' if ok else 'no'}" for k, ok in facts["thresholds"].items())
    fate = facts["outcomes"]["champion"] or "not evaluated"
    same = (
        "the same program"
        if facts["same_champion"]
        else f"another program (the claimed one: {fate})"
    )
    return [
        *lines,
        f"share      {facts['share']:.1%} of the claim (±{100 * facts['share_error']:.1f}%) over "
        f"{facts['workloads']} workloads, {facts['share_unseen']:.1%} on unseen ones; {same}",
        f"           {passed}",
    ]


def _champion_line(word: str, champion: dict[str, Any] | None) -> str:
    if champion is None:
        return f"{word:<10} no champion"
    return (
        f"{word:<10} {champion['speedup']:.3f}x the anchor on {champion['device']}, "
        f"{champion['unseen']:.3f}x on unseen workloads ({champion['emitter']})"
    )


def holds(facts: dict[str, Any], share: float | None) -> bool:
    """Whether the share of the claim that is wanted was reached."""
    return share is None or (facts["share"] is not None and facts["share"] >= share)


def check_share(share: float | None) -> None:
    """UserError unless `share` is None or in (0, 1]."""
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--require takes a share of the claim such as 0.9, got {share}")
