"""Language models as an author: the client of `[llm]` behind the author's contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future

from evolve.authors.author import PROBING_S, Author
from evolve.llm.client import Client
from evolve.llm.exchange import Answer, Prompt, Refused, Usage
from evolve.llm.settings import LlmSettings
from evolve.llm.spend import Spend


class Models(Author):
    """The models of one `[llm]` section. UserError when a key is missing."""

    name = "llm"

    def __init__(self, settings: LlmSettings, spend: Spend, environ: Mapping[str, str]) -> None:
        self.concurrency = settings.concurrency
        self.prompt_tokens = settings.prompt_tokens
        self.patience = settings.patience
        self._models = {model.name: model for model in settings.models}
        self._client = Client(settings, spend=spend, environ=environ)
        self._under_way: Counter[str] = Counter()
        self._futures: list[tuple[str, Future[Answer | Refused]]] = []

    def models(self) -> dict[str, float]:
        self._settle()
        rests = self._client.pauses()
        for name, failing in self._client.failing().items():
            # After a rest one call decides; until it has, others would only be turned away.
            if failing and not rests[name] and self._under_way[name]:
                rests[name] = PROBING_S
        return rests

    def send(self, prompt: Prompt, model: str) -> Future[Answer | Refused]:
        future = self._client.submit(prompt, model)
        self._futures.append((model, future))
        self._under_way[model] += 1
        return future

    def worst(self, prompt: Prompt, model: str) -> Usage:
        asked = self._models[model]
        inputs, outputs = prompt.most_tokens, asked.max_output_tokens
        cost = asked.cost(inputs, outputs)
        return Usage(input_tokens=inputs, output_tokens=outputs, cost=cost)

    def limit(self, prompt: Prompt, model: str) -> str:
        worst = self.worst(prompt, model)
        return self._client.spend.limit(worst.tokens, worst.cost)

    def close(self) -> None:
        self._client.close()

    def _settle(self) -> None:
        done = [pair for pair in self._futures if pair[1].done()]
        self._futures = [pair for pair in self._futures if not pair[1].done()]
        self._under_way.subtract(model for model, _ in done)
