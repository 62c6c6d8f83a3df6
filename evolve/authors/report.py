"""How a run's authors stand: plain data for `evolve status`, and the lines that show it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from evolve.authors.calls import Calls
from evolve.authors.commissions import standing
from evolve.config import current, parse
from evolve.exchanges import Exchanges, Verdict
from evolve.llm.bandit import ArmState
from evolve.phrases import counted
from evolve.store import Store


def summarise(store: Store) -> dict[str, Any] | None:
    """Exchanges, calls, what they cost and what the bandits believe; None without exchanges."""
    exchanges = Exchanges(store)
    asked = exchanges.all()
    if not asked:
        return None
    verdicts: Counter[str] = Counter()
    staleness: list[int] = []
    for exchange in asked:
        replies = exchanges.replies(exchange.id)
        verdicts[replies[-1].verdict.value if replies else "NO_ANSWER"] += 1
        queued = [r for r in replies if r.verdict is Verdict.QUEUED]
        staleness += [r.staleness for r in queued if r.staleness is not None]
    totals = Calls(store).totals()
    config = parse(current(store.meta["config"]))
    limits = config.llm
    return {
        "exchanges": dict(Counter(e.emitter for e in asked)),
        "verdicts": dict(verdicts),
        "staleness": sum(staleness) / len(staleness) if staleness else None,
        "calls": [vars(total) for total in totals],
        "cost": sum(total.cost for total in totals),
        "tokens": sum(total.tokens for total in totals),
        "max_cost": limits.max_cost if limits else None,
        "max_tokens": limits.max_tokens if limits else None,
        "bandits": {
            name: {arm: state.model_dump() for arm, state in arms.items()}
            for name, arms in standing(store, config).items()
        },
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    stale = facts["staleness"]
    late = f"; {stale:.1f} evaluations between prompt and program" if stale is not None else ""
    found = [
        f"exchanges    {counted(facts['exchanges'])}: {counted(facts['verdicts'])}{late}",
    ]
    if facts["calls"]:
        found.append(
            f"spent        {_of(facts['tokens'], facts['max_tokens'], '{:,}')} tokens, "
            f"{_of(facts['cost'], facts['max_cost'], '${:.4f}')}"
        )
    for call in facts["calls"]:
        found.append(
            f"  {call['model']}: {call['calls']} calls ({counted(call['ends'])}), "
            f"{call['tokens']:,} tokens, ${call['cost']:.4f}"
        )
    for name, arms in facts["bandits"].items():
        tried = {arm: ArmState(**state) for arm, state in arms.items() if state["pulls"]}
        if tried:
            told = ", ".join(f"{a} {s.pulls}x {s.reward:.2f}" for a, s in tried.items())
            found.append(f"{name + ' ':13}{told} (times, expected reward)")
    return found


def _of(used: float, limit: float | None, form: str) -> str:
    text = form.format(used)
    return text if limit is None else f"{text} of {form.format(limit)}"
