"""A search whose programs come from authors: all parts are real but the evaluator."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from evaluators import catalog
from evolve.authors.calls import Call, Calls
from evolve.authors.hiring import hire
from evolve.authors.proposing import Proposing
from evolve.config import RunConfig, parse
from evolve.engine import Engine
from evolve.exchanges import Exchange, Exchanges, Reply
from evolve.export import definition_json
from evolve.llm import background
from evolve.pool import EvaluatorPool
from evolve.progress import Progress
from evolve.store import FILE, Store
from tests.engine.odd_evaluators import Reliable, spawn
from tests.llm.server import Behaviour, ScriptedServer, answers
from tests.llm.server import Exchange as Request

OPERATOR = catalog.load_operator("matmul_bias_gelu")
DEFINITION = OPERATOR.definition(None, "cpu")
SEEDS = [s for s in catalog.seeds(OPERATOR, DEFINITION, "cpu") if s.spec.language.value == "cpp"]
SUMMARY = "INSIGHT 1: one more function costs nothing at all\n"
PLAN = "BOTTLENECK: reading x twice\nDIRECTION: pack x once a tile\nAVOID: more threads\n"

_numbers = itertools.count()
_lock = threading.Lock()


def model(url: str, **changes: Any) -> dict[str, Any]:
    """One entry of `llm.models`."""
    return {"name": "m", "base_url": url, "max_output_tokens": 500, **changes}


def config(
    *models: dict[str, Any],
    evaluations: int = 6,
    shares: Mapping[str, float] | None = None,
    llm: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunConfig:
    """A small run; without `shares` the models alone propose."""
    section = {"models": models, "backoff_s": 0.05, "backoff_max_s": 0.1, "batch": 0, **(llm or {})}
    data: dict[str, Any] = {
        "operator": "matmul_bias_gelu",
        "device": "cpu",
        "languages": ["cpp"],
        "seed": 5,
        "budget": {"evaluations": evaluations},
        "islands": {"count": 1, "emitters": dict(shares or {"llm": 1.0})},
        "epochs": {"evaluations": 1000},
    }
    return parse({**data, **({"llm": section} if models else {}), **changes})


def edit(prompt: str) -> str:
    """A usable answer to any prompt about C++: one more function, which no other answer has."""
    with _lock:
        number = next(_numbers)
    assert "#include <cmath>" in prompt
    return (
        f"CHANGE: function number {number}\n\n<<<<<<< SEARCH\n#include <cmath>\n=======\n"
        f"#include <cmath>\nstatic inline int extra_{number}(int x) {{ return x + {number}; }}\n"
        ">>>>>>> REPLACE\n"
    )


def prompt_of(exchange: Request) -> str:
    text: str = exchange.body["messages"][-1]["content"]
    return text


def writes(after_s: float = 0.0, text: Callable[[str], str] = edit, inputs: int = 20) -> Behaviour:
    """Answers prompts for programs with `text`, questions with a plan or a summary.

    Each is said to have taken `inputs` tokens in and 10 out.
    """

    def behave(exchange: Request) -> None:
        prompt = prompt_of(exchange)
        summary = "INSIGHT <numbers" in prompt
        answer = PLAN if "BOTTLENECK:" in prompt else SUMMARY if summary else text(prompt)
        answers(answer, inputs=inputs, after_s=after_s)(exchange)

    return behave


@cache
def pool_of(**how: Any) -> EvaluatorPool:
    """Evaluators that the searches of one test module share."""
    return EvaluatorPool([lambda: spawn(Reliable, **how)])


class Search:
    """One store, searched once or again with authors."""

    def __init__(self, run_dir: Path, settings: RunConfig, **how: Any) -> None:
        self.run_dir, self.config, self.how = run_dir, settings, how
        self.said: list[str] = []
        self.seen: list[Progress] = []
        self.watch: Callable[[Engine], None] = lambda engine: None
        self.accounting: list[dict[str, Any]] = []
        self.engine: Engine

    @property
    def store(self) -> Store:
        return Store.open(self.run_dir, readonly=True)

    def run(
        self, keys: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
    ) -> str:
        """Search until the end; returns why it ended."""
        store = self._writable()
        pool = pool_of(**self.how)
        authors = hire(self.config, self.config.llm, store, keys or {}, environ or {})
        about = background.load(store.meta, DEFINITION, cost=pool.cost)
        proposing = Proposing(store, self.config, DEFINITION, about, authors, self.said.append)
        try:
            self.engine = Engine(store, self.config, DEFINITION, SEEDS, pool, self._seen, proposing)
            reason = self.engine.run()
            self.accounting = pool.accounting()
            return reason
        finally:
            proposing.close()
            with suppress(Exception):
                store.close()

    def _seen(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.watch(self.engine)

    def _writable(self) -> Store:
        settings = self.config.model_dump(mode="json", exclude_none=True)
        if (self.run_dir / FILE).exists():
            store = Store.open(self.run_dir)
            store.set_meta({"config": settings})
            return store
        return Store.create(
            self.run_dir,
            {
                "operator": OPERATOR.name,
                "definition": DEFINITION.name,
                "definition_record": definition_json(DEFINITION),
                "device": {"type": "cpu", "name": "no-op"},
                "config": settings,
                "seeds": [s.name for s in SEEDS],
            },
        )


Serve = Callable[..., ScriptedServer]


# -- what a search has left -----------------------------------------------------------------------


def asked(search: Search) -> list[Exchange]:
    return Exchanges(search.store).all()


def replies(search: Search) -> list[Reply]:
    exchanges = Exchanges(search.store)
    return [r for e in exchanges.all() for r in exchanges.replies(e.id)]


def calls(search: Search) -> list[Call]:
    return Calls(search.store).all()


def how(search: Search) -> Counter[str]:
    return Counter(call.end.how if call.end else "OPEN" for call in calls(search))


def by_emitter(search: Search) -> dict[str, int]:
    return search.store.by("emitter")


# -- agents ---------------------------------------------------------------------------------------

AGENT = """\
import os, re, sys, time
prompt = sys.stdin.read()
number = os.getpid()
{extra}
print(f"CHANGE: by process {{number}}\\n")
print("<<<<<<< SEARCH\\n#include <cmath>\\n=======\\n#include <cmath>")
print(f"static inline int extra_{{number}}(int x) {{{{ return x; }}}}\\n>>>>>>> REPLACE")
"""


def agent(folder: Path, extra: str = "", **changes: Any) -> dict[str, Any]:
    script = folder / "agent.py"
    script.write_text(AGENT.format(extra=extra))
    return {"command": [sys.executable, str(script)], **changes}


def with_agent(folder: Path, extra: str = "", evaluations: int = 4, **changes: Any) -> Any:
    return config(
        shares={"agent": 1.0}, agent=agent(folder, extra, **changes), evaluations=evaluations
    )


def run_agents(search: Search) -> str:
    return search.run(environ=dict(os.environ))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
