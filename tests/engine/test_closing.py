"""Which of the leading elites becomes the champion, and what a champion has to survive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evaluators.schema import Replays
from evolve import closing, cluster
from evolve.pool import EvaluatorPool
from islands.program import Program
from tests.engine.driver import seed_solution
from tests.engine.odd_evaluators import Unstable, spawn
from tests.islands.samples import passed, program, tunable_source


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.start()
        yield
    import ray

    ray.shutdown()


def elites(count: int) -> list[tuple[str, Program, object]]:
    """Programs of equal score: the evaluator is deterministic, the first one stays first."""
    made = [
        program(tunable_source({"N": [4, 8]}, tail=f"# {i}\nX{i} = {i}\n")) for i in range(count)
    ]
    return [("niche", p, passed(1.0)) for p in made]


@pytest.mark.parametrize("failures", [0, 1, 99])
def test_a_champion_survives_many_judged_calls(failures: int) -> None:
    pool = EvaluatorPool([lambda: spawn(Unstable, failures=failures)])
    leading, said = elites(3), []
    try:
        found = closing.verify(pool, seed_solution(), 1, 5, leading, said.append)
    finally:
        pool.close()
    refused = [line for line in said if f"3 of {closing.REPLAYS} judged calls failed" in line]
    assert len(refused) == min(failures, 3)
    if failures < 3:
        assert found is not None
        assert found.program == leading[failures][1]
        assert found.replays.calls == closing.REPLAYS
        assert not found.replays.failures
    else:
        assert found is None


def test_what_makes_a_kernel_unstable() -> None:
    assert closing.unstable(Replays(device="cpu", calls=200)) == []
    slack = closing.GROWTH["cuda"]
    grown = Replays(device="cuda", calls=200, start_bytes=1, final_bytes=slack + 2, peak_bytes=9)
    assert "memory grew by 32 MiB" in closing.unstable(grown)[0]
    held = Replays(device="cuda", calls=200, start_bytes=1, final_bytes=slack + 1, peak_bytes=9)
    assert closing.unstable(held) == []
    (text,) = closing.unstable(Replays(device="cuda", calls=200, launches="a library's gemm ran"))
    assert text == "a library's gemm ran"
    unknown = Replays(device="cuda", calls=200, launches="not available: no profiler")
    assert closing.unstable(unknown) == []
