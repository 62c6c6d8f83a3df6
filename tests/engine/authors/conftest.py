"""Ray for the searches of a module, and scripted servers for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from evolve import cluster
from tests.engine import authored
from tests.engine.authored import Serve
from tests.llm.server import Behaviour, ScriptedServer


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    authored.pool_of.cache_clear()
    ray.shutdown()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts scripted servers, which end with the test."""
    open_: list[AbstractContextManager[ScriptedServer]] = []

    def start(*script: Behaviour) -> ScriptedServer:
        found = ScriptedServer(script)
        open_.append(found)
        return found.__enter__()

    yield start
    for found in open_:
        found.__exit__(None, None, None)
