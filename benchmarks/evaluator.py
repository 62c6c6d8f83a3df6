#!/usr/bin/env python3
"""Throughput of the evaluator over tuner programs, and where the time goes.

python benchmarks/evaluator.py gqa_paged_decode --programs 60 --language triton [--json]

All programs are proposed first (the tuner mutates the seeds of one language), then evaluated with
as many in flight as the device has slots. `limit` is the rate if nothing but the timed calls were
left of an evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray

from evaluators.catalog import CatalogError
from evaluators.schema import Evaluation
from evolve.config import parse
from evolve.emitters import EMITTERS
from evolve.errors import UserError
from evolve.plan import Plan, plan, pool_for
from evolve.pool import EvaluatorPool
from islands.island import Island
from islands.program import Program

STAGES = ("wait", "build", "correctness", "latency", "contest")


def propose(found: Plan, pool: EvaluatorPool, count: int) -> list[Program]:
    """`count` new programs near the seeds."""
    island = Island(0, found.config.seed, found.definition, [(EMITTERS["tuner"](), 1.0)])
    for solution in found.seeds:
        island.tell(Program.of(solution), pool.evaluate(solution))
    programs = (island.ask() for _ in range(count))
    return [program for program in programs if program is not None]


def evaluate(pool: EvaluatorPool, programs: list[Program]) -> list[Evaluation]:
    """Evaluate all, `pool.capacity` in flight."""
    waiting, flying, done = list(programs), [], []
    while waiting or flying:
        while waiting and len(flying) < pool.capacity:
            flying.append(pool.submit(waiting.pop(0).solution))
        ready, flying = ray.wait(flying, num_returns=1)
        done += [e for ref in ready if (e := pool.result(ref)) is not None]
    return done


def measure(operator: str, count: int, languages: list[str], device: str) -> dict[str, Any]:
    """The figures of one run."""
    config = parse({"operator": operator, "device": device, "languages": languages})
    found = plan(config)
    with pool_for(found) as pool:
        workloads = pool.sample("search", 0, config.seed, None)
        opened = time.perf_counter()
        pool.open_epoch(0, workloads, found.anchor)
        opened = time.perf_counter() - opened
        programs = propose(found, pool, count)
        before = pool.accounting()[0]
        start = time.perf_counter()
        evaluations = evaluate(pool, programs)
        wall = time.perf_counter() - start
        after = pool.accounting()[0]
    stages = {s: sum(e.seconds.get(s, 0.0) for e in evaluations) for s in STAGES}
    busy = after["busy_s"] - before["busy_s"]
    passed = [e for e in evaluations if e.passed]
    return {
        "operator": operator,
        "definition": found.definition.name,
        "device": after["name"],
        "slots": after["slots"],
        "programs": len(evaluations),
        "workloads": len(workloads),
        "statuses": dict(Counter(e.status.value for e in evaluations)),
        "wall_s": wall,
        "per_minute": 60 * len(evaluations) / wall,
        "open_epoch_s": opened,
        "mean_s": {s: t / len(evaluations) for s, t in stages.items()},
        "device_busy": busy / wall,
        "device_idle": 1 - busy / wall,
        "limit_per_minute": 60 * len(passed) / stages["latency"] if passed else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operator", nargs="?", default="matmul_bias_gelu")
    parser.add_argument("--programs", type=int, default=60, help="how many; fewer if none is new")
    parser.add_argument("--language", action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        found = measure(given.operator, given.programs, given.language, given.device)
    except (UserError, CatalogError) as error:
        parser.error(str(error))
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['definition']} on {found['device']}, {found['slots']} slots")
    print(f"{found['programs']} programs on {found['workloads']} workloads: {found['statuses']}")
    print(f"{found['per_minute']:.1f} evaluations/minute in {found['wall_s']:.1f} s")
    print(f"  {found['limit_per_minute']:.1f}/minute if only the timed part were left")
    print(f"  device busy {found['device_busy']:.0%}, idle {found['device_idle']:.0%}")
    for stage, seconds in found["mean_s"].items():
        print(f"  {stage:12s} {seconds:.3f} s a program")


if __name__ == "__main__":
    main()
