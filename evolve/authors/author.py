"""The contract of an author: it takes a prompt and answers later, whatever happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import ClassVar

from evolve.llm.exchange import Answer, Prompt, Refused, Usage

PROBING_S = 1.0
"""Shown as the rest of a model whose probe is under way."""


class Author(ABC):
    """Somebody who writes programs from prompts.

    Contract: `send` returns at once, and its future ends with an `Answer` or a `Refused` within the
    author's deadline; it raises only when `close` or a cancellation came first. All methods are
    called by one thread. Keys and other secrets appear in no outcome.
    """

    name: ClassVar[str]
    """The emitter's name, and that of its section in the configuration."""
    served: ClassVar[bool] = True
    """Whether a service stands between: its failures say nothing of who writes, and use up no
    patience."""
    concurrency: int
    prompt_tokens: int
    patience: int

    @abstractmethod
    def models(self) -> dict[str, float]:
        """Every model by name -> seconds that it still rests after failures; 0.0: may be asked."""

    @abstractmethod
    def send(self, prompt: Prompt, model: str) -> Future[Answer | Refused]:
        """Asks a model. KeyError for one that there is not."""

    @abstractmethod
    def worst(self, prompt: Prompt, model: str) -> Usage:
        """The most that a call can use."""

    def limit(self, prompt: Prompt, model: str) -> str:
        """`cost` or `tokens` where the call no longer fits that limit; empty while it does."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """Ends all calls at once (`CLOSED`); does nothing the second time."""
