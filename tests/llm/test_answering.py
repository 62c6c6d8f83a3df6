"""A second attempt: what is told of the first one, within the prompt's budget."""

from __future__ import annotations

import pytest

from evolve.llm.answering import again
from evolve.llm.fit import tokens_of

ANSWER = "```\nnonsense\n```\n" * 800
REASON = "Block 1: no such lines. " * 400


@pytest.mark.parametrize("used", [100, 600, 900, 940, 990, 1000])
def test_a_second_attempt_stays_within_the_budget(used: int) -> None:
    prompt = "x" * (4 * used)
    assert tokens_of(again(prompt, ANSWER, REASON, 1000)) <= 1000


def test_the_answer_is_cut_before_the_reason() -> None:
    short = "Block 1: no such lines."
    whole = again("ask", "my answer", short, 1000)
    assert short in whole
    assert "my answer" in whole
    tight = again("x" * 3000, ANSWER, short, 1000)
    assert short in tight
    assert "nonsense" in tight
    assert "... (cut)" in tight
    assert "nonsense" not in again("x" * 3400, ANSWER, short + "y" * 300, 1000)


def test_without_any_room_the_prompt_is_sent_as_it_was() -> None:
    prompt = "x" * 4000
    assert again(prompt, ANSWER, REASON, 1000) == prompt
