"""The authors that a configuration names, with what they have spent already."""

from __future__ import annotations

from collections.abc import Mapping

from evolve.authors.agent import Agent
from evolve.authors.author import Author
from evolve.authors.calls import Calls
from evolve.config import RunConfig
from evolve.llm.settings import LlmSettings
from evolve.llm.spend import Spend
from evolve.store import Store


def hire(
    config: RunConfig,
    llm: LlmSettings | None,
    store: Store,
    keys: Mapping[str, str],
    environ: Mapping[str, str],
) -> list[Author]:
    """The authors of a run; empty without any. `llm`: the models as they are served now.

    `keys`: models' keys by variable; `environ`: what a command may see besides those of `keys` that
    it names. UserError when the command is not found or a key is missing.
    """
    authors: list[Author] = []
    if config.agent is not None:
        kept = {name: keys[name] for name in config.agent.keep_env if name in keys}
        authors.append(Agent(config.agent, {**environ, **kept}))
    if llm is not None:
        from evolve.authors.models import Models  # the client's library takes a second to import

        spend = Spend(llm.max_cost, llm.max_tokens, earlier=Calls(store).usages())
        authors.insert(0, Models(llm, spend, keys))
    return authors
