"""Which exchange comes next, and with which model: chosen by what earlier ones were worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from evolve.authors import rewards
from evolve.authors.calls import Calls
from evolve.config import RunConfig
from evolve.exchanges import Exchange, Mode
from evolve.llm import prompt, sections
from evolve.llm.background import Background
from evolve.llm.bandit import ArmState
from evolve.llm.counsel import Counsel
from evolve.llm.fit import Section, TooFewTokens
from evolve.llm.history import History
from evolve.llm.modes import Task, choose
from evolve.store import Store

STREAM = 0x636F6D
"""Sets these random streams apart from others of the run's seed."""
RETURNED = 1000
"""Tokens kept free for the reason why an answer could not be used, and the answer, where that may
be; at most an eighth of the prompt's."""
DRAWS = 3
"""Times that a parent is drawn when prompts about the first do not fit."""
EVALUATION_COST = 0.01
"""What an evaluation is worth in USD to the bandit over modes where no `[llm]` says it."""


class Commissions:
    """Makes exchanges of one store. Same owner and thread as the store's.

    Mode and model are drawn by the run's seed and the exchange's number from bandits that are folds
    over the store, so that a resumed run continues with what it has learned.
    """

    def __init__(
        self, store: Store, config: RunConfig, background: Background, counsel: Counsel
    ) -> None:
        self._store, self._config = store, config
        self._background, self._counsel = background, counsel
        self._calls = Calls(store)
        self._history: History | None = None
        self._outcomes: list[rewards.Outcome] = []

    def history(self) -> History:
        """The run's history as the store has it now."""
        self._history = History(self._store, self._history)
        return self._history

    def next(self, emitter: str, tokens: int) -> Exchange:
        """The exchange that comes next; not stored. TooFewTokens: `tokens` is too few for any."""
        history = self.history()
        self._outcomes = rewards.outcomes(history, self._calls)
        number = history.exchanges.next_number()
        short = TooFewTokens(f"no prompt fits {tokens} tokens")
        for room in (tokens - min(RETURNED, tokens // 8), tokens):
            for task in self._tasks(history, number):
                try:
                    return self._exchange(history, task, emitter, room)
                except TooFewTokens as error:
                    short = error  # a shorter parent, or another mode, may do
        raise short

    def _exchange(self, history: History, task: Task, emitter: str, tokens: int) -> Exchange:
        exchange = prompt.build(
            history,
            self._background,
            task,
            emitter=emitter,
            tokens=tokens,
            as_file=False,
            learned=self._learned(history, task),
        )
        return exchange.model_copy(update={"told": self._store.evaluated_of(task.island)})

    def _learned(self, history: History, task: Task) -> list[Section]:
        """Plan and insights, and that others have the same task."""
        told = self._counsel.sections(history, task.island, sections.PRIORITY)
        return [sections.asked_before(history, task), *told]

    def model(self, number: int, attempt: int, among: Collection[str]) -> str:
        """The model of `[llm]` for a call; ValueError when `among` has none."""
        assert self._config.llm is not None
        bandit = rewards.models(self._outcomes, self._config.llm)
        return bandit.choose(self._rng(number, 1 + attempt), among)

    def _tasks(self, history: History, number: int) -> Iterator[Task]:
        """By the bandit, the best drawn first; modes that have nothing to work on are left out."""
        worth = self._config.llm.evaluation_cost if self._config.llm else EVALUATION_COST
        bandit = rewards.modes(self._outcomes, worth)
        rng = self._rng(number, 0)
        for draw in range(DRAWS):
            left = {mode.value for mode in Mode}
            while left:
                mode = Mode(bandit.choose(rng, left))
                left.remove(mode.value)
                task = choose(history, number, mode, draw)
                if task.mode is mode:
                    yield task

    def _rng(self, number: int, use: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, STREAM, number, use])


def standing(store: Store, config: RunConfig) -> dict[str, dict[str, ArmState]]:
    """What the bandits believe of each mode and each model."""
    found = rewards.outcomes(History(store), Calls(store))
    worth = config.llm.evaluation_cost if config.llm else EVALUATION_COST
    bandits = {"modes": rewards.modes(found, worth)}
    if config.llm is not None:
        bandits["models"] = rewards.models(found, config.llm)
    return {name: bandit.state() for name, bandit in bandits.items()}
