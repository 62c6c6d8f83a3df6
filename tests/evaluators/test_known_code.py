"""A program whose built code is known is built and not run."""

from __future__ import annotations

from pathlib import Path

from evaluators.schema import Language, Status
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import CPP, evaluator, solution

FAST = EvaluatorSettings(samples=5, latency_s=0.1, build_deadline_s=60, run_deadline_s=10)
SAME = (CPP % "").replace("const float* a ", "const float* input ").replace("a[i]", "input[i]")


def test_equal_code_is_a_duplicate_and_other_code_is_not(tmp_path: Path) -> None:
    with evaluator(tmp_path, FAST) as judge:
        first = judge.evaluate(solution(CPP % "", Language.CPP))
        assert first.build is not None
        twins = {first.build.binary: "the first one"}
        again = judge.evaluate(solution(SAME, Language.CPP), twins=twins)
        assert again.status is Status.DUPLICATE
        assert "the first one" in again.log
        assert again.build is not None
        assert again.build.binary == first.build.binary
        assert not again.results
        assert "latency" not in again.seconds
        other = SAME.replace("* scale", "* scale * 3")
        wrong = judge.evaluate(solution(other, Language.CPP), twins=twins)
        assert wrong.status is Status.INCORRECT_NUMERICAL
        unknown = judge.evaluate(solution(SAME, Language.CPP), twins={"": "a program without hash"})
        assert unknown.status is not Status.DUPLICATE
