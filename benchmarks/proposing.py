"""How much the evaluator waits for models: a scripted model that takes seconds, a toy evaluator.

`python benchmarks/proposing.py` prints a table with its target, `--json` the same for machines. All
parts but the two are real: HTTP, client, prompts, store, islands, engine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray

from benchmarks.engine import Figure, document, show
from benchmarks.noop_evaluator import NoOpEvaluator
from evaluators import catalog
from evaluators.schema import Definition, Evaluation, Solution
from evolve import cluster
from evolve.authors.hiring import hire
from evolve.authors.proposing import Proposing
from evolve.authors.report import summarise
from evolve.config import RunConfig, parse
from evolve.engine import Engine
from evolve.export import definition_json
from evolve.llm import background
from evolve.pool import EvaluatorPool
from evolve.store import Store
from tests.llm.server import Behaviour, Exchange, ScriptedServer, answers

MOST_IDLE = 15.0
"""Target at the highest concurrency, in percent of the search's time."""
INCLUDE = "#include <cmath>"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Idle share of the evaluator while a slow model writes all programs.",
        epilog="Example: python benchmarks/proposing.py --concurrency 8 --json",
    )
    parser.add_argument("--evaluations", type=int, default=60, help="of each run")
    parser.add_argument("--model-s", type=float, default=5.0, help="seconds that the model takes")
    parser.add_argument("--evaluation-s", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=1, help="evaluations at once")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[2, 8], help="calls at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    os.environ.pop("RAY_ADDRESS", None)
    cluster.start()
    figures: list[Figure] = []
    for concurrency in sorted(options.concurrency):
        last = concurrency == max(options.concurrency)
        with tempfile.TemporaryDirectory(prefix="tilevolve-bench-") as folder:
            figures += run_figures(Path(folder) / "run", concurrency, options, last)
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    if options.json:
        print(json.dumps(document(settings, figures), indent=2))
    else:
        show({**settings, "islands": 3}, figures)


def run_figures(
    run_dir: Path, concurrency: int, options: argparse.Namespace, target: bool
) -> list[Figure]:
    """One whole run with so many calls at once."""
    with ScriptedServer([_writes(options.model_s)]) as model:
        config = _config(model.url, concurrency, options)
        spent, store = _search(run_dir, config, options)
    with closing(store):
        facts = summarise(store)
    assert facts is not None
    idle = 100 * spent["idle_s"] / (spent["idle_s"] + spent["busy_s"])
    at = f"at {concurrency} calls"
    return [
        Figure(f"evaluator idle {at}", idle, "%", most=MOST_IDLE if target else None),
        Figure(f"search {at}", spent["wall_s"], "s"),
        Figure(f"staleness {at}", facts["staleness"], "evaluations"),
    ]


def _search(
    run_dir: Path, config: RunConfig, options: argparse.Namespace
) -> tuple[dict[str, float], Store]:
    """(idle and busy seconds of the evaluator's slots from the first wait on, the run's store)."""
    operator = catalog.load_operator(config.operator)
    definition = operator.definition(None, "cpu")
    seeds = [s for s in catalog.seeds(operator, definition, "cpu") if INCLUDE in s.entry_source][:1]
    store = Store.create(run_dir, _meta(operator.name, definition, config))
    actor = ray.remote(num_cpus=0, max_concurrency=options.in_flight + 1)(_Timed)
    pool = EvaluatorPool([lambda: actor.remote(options.in_flight, options.evaluation_s)])
    about = background.load(store.meta, definition, cost=pool.cost)
    authors = hire(config, config.llm, store, {}, {})
    proposing = Proposing(store, config, definition, about, authors)
    started = time.perf_counter()
    reason = Engine(store, config, definition, seeds, pool, proposing=proposing).run()
    wall = time.perf_counter() - started
    if reason != "budget":
        raise SystemExit(f"the run ended early: {reason}")
    (facts,) = pool.accounting()
    pool.close()
    return {"busy_s": facts["busy_s"], "idle_s": facts["idle_s"], "wall_s": wall}, store


class _Timed(NoOpEvaluator):
    """Counts how long its slots worked and waited, from the end of the first seed's evaluation."""

    def __init__(self, slots: int, delay_s: float) -> None:
        super().__init__(slots, delay_s, fail_every=10**6)
        self._lock = threading.Lock()
        self._since: float | None = None
        self._until = 0.0
        self._busy = 0.0

    def evaluate(self, solution: Solution, **options: Any) -> Evaluation:
        start = time.monotonic()
        evaluation = super().evaluate(solution, **options)
        end = time.monotonic()
        with self._lock:
            if self._since is None:
                self._since = end
            else:
                self._busy += end - start
            self._until = end
        return evaluation

    def facts(self) -> dict[str, Any]:
        whole = (self._until - (self._since or 0.0)) * self._slots
        return {**super().facts(), "busy_s": self._busy, "idle_s": whole - self._busy}


def _writes(seconds: float) -> Behaviour:
    """A model that adds a function of its own to any program."""
    numbers, lock = itertools.count(), threading.Lock()

    def behave(exchange: Exchange) -> None:
        with lock:
            number = next(numbers)
        text = (
            f"CHANGE: function {number}\n\n<<<<<<< SEARCH\n{INCLUDE}\n=======\n{INCLUDE}\n"
            f"static inline int extra_{number}(int x) {{ return x + {number}; }}\n"
            ">>>>>>> REPLACE\n"
        )
        answers(text, inputs=3000, outputs=100, after_s=seconds)(exchange)

    return behave


def _config(url: str, concurrency: int, options: argparse.Namespace) -> RunConfig:
    return parse(
        {
            "operator": "matmul_bias_gelu",
            "device": "cpu",
            "languages": ["cpp"],
            "seed": options.seed,
            "in_flight": options.in_flight,
            "budget": {"evaluations": options.evaluations},
            "islands": {"count": 3, "emitters": {"llm": 1.0}},
            "llm": {
                "models": [{"name": "scripted", "base_url": url}],
                "concurrency": concurrency,
                "batch": 0,
            },
        }
    )


def _meta(operator: str, definition: Definition, config: RunConfig) -> dict[str, Any]:
    return {
        "operator": operator,
        "definition": definition.name,
        "definition_record": definition_json(definition),
        "device": {"type": "cpu", "name": "no-op"},
        "config": config.model_dump(mode="json", exclude_none=True),
    }


if __name__ == "__main__":
    main()
