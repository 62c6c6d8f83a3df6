"""What exchanges were worth, and the bandits that learn from it. Folds over a run's store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evolve.authors.calls import Calls, may_be_sent_again, written_in_vain
from evolve.exchanges import ATTEMPTS, Exchange, Mode, Verdict
from evolve.llm.bandit import Bandit, Prior, Pull
from evolve.llm.history import History
from evolve.llm.modes import ROUND
from evolve.llm.settings import LlmSettings
from evolve.store import Row

PASSED = 0.1
"""Reward of a program that passes and is nobody's elite."""
ELITE = 0.4
"""Reward of a new niche's first elite, and the least of one that beats a niche's elite."""
PER_GAIN = 4.0
"""Reward of an elite for each unit of gain over its parent: 15% more earns the most there is."""
MODE_WEIGHTS = {mode: float(n) for mode, n in Counter(ROUND).items()}
"""Trust in the modes before any outcome: as often as a round of the mailbox has them."""


@dataclass(frozen=True)
class Outcome:
    """An exchange of which nothing more is to come. `reward` in [0, 1], `cost` in USD.

    `unserved`: given up because of a service, which says something of the model, not of the mode.
    """

    exchange: Exchange
    model: str
    reward: float
    cost: float
    unserved: bool = False


def outcomes(history: History, calls: Calls) -> list[Outcome]:
    """The settled exchanges in the order asked."""
    charged = calls.charged()
    found = []
    for exchange in history.asked():
        reward, unserved = _reward(history, calls, exchange)
        if reward is not None:
            model, cost = charged.get(exchange.id, ("", 0.0))
            found.append(Outcome(exchange, model, reward, cost, unserved))
    return found


def modes(found: list[Outcome], evaluation_cost: float) -> Bandit:
    """The bandit over modes, which learns from every exchange that was served."""
    priors = {mode.value: Prior(weight=MODE_WEIGHTS[mode]) for mode in Mode}
    served = [o for o in found if not o.unserved]
    pulls = [Pull(arm=o.exchange.mode.value, reward=o.reward, cost=o.cost) for o in served]
    return Bandit(priors, overhead=evaluation_cost).fold(pulls)


def models(found: list[Outcome], settings: LlmSettings) -> Bandit:
    """The bandit over models, each believed as dear as a prompt and a short answer."""
    priors = {
        m.name: Prior(
            weight=m.weight, cost=m.cost(settings.prompt_tokens, m.max_output_tokens // 4)
        )
        for m in settings.models
    }
    pulls = [Pull(arm=o.model, reward=o.reward, cost=o.cost) for o in found if o.model in priors]
    return Bandit(priors, overhead=settings.evaluation_cost).fold(pulls)


def _reward(history: History, calls: Calls, exchange: Exchange) -> tuple[float | None, bool]:
    """(what an exchange was worth, whether it was given up because of a service).

    The worth is None while more may come of it.
    """
    replies = history.replies(exchange.id)
    queued = next((r for r in replies if r.verdict is Verdict.QUEUED), None)
    if queued is not None and queued.program is not None:
        row = history.last(queued.program)
        return (None if row is None else reward(history, exchange, row)), False
    if len(replies) >= ATTEMPTS:
        return 0.0, False
    made = [call for call in calls.of(exchange.id) if call.attempt == len(replies) + 1]
    if not made or may_be_sent_again(made):
        return None, False
    return 0.0, not (replies or written_in_vain(made))


def reward(history: History, exchange: Exchange, row: Row) -> float:
    """What an evaluated program was worth: nothing when it failed, most for a gain of an elite.

    The gain is over the parent, or over what a repaired program was made from.
    """
    if not row.evaluation.passed:
        return 0.0
    if row.status_in_archive not in {"NEW", "IMPROVED"}:
        return PASSED
    over = history.programs.get(exchange.parents[0])
    if over is not None and exchange.mode is Mode.REPAIR:
        over = history.base(over)
    gain = history.gain(row.program_id, over.id) if over else None
    return min(1.0, ELITE + PER_GAIN * max(0.0, (gain or 1.0) - 1.0))
