"""The client against a service with every fault: deadlines, attempts, budgets, secrets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from evolve.errors import UserError
from evolve.llm.client import Client
from evolve.llm.exchange import Answer, Outcome, Prompt, Reason, Refused
from evolve.llm.settings import LlmSettings
from evolve.llm.spend import Spend
from tests.llm import server as scripted
from tests.llm.server import Behaviour, ScriptedServer, answers, document, fails, says

KEY = "sk-planted-7f3a9c2e51d84b60"
PROMPT = Prompt(user="Make this kernel faster.", system="You write kernels.")
QUICK: dict[str, Any] = {
    "deadline_s": 4.0, "stall_s": 1.0, "attempts": 3, "backoff_s": 0.02, "backoff_max_s": 0.05,
    "breaker_failures": 100,
}  # fmt: skip
PRICES = {"input_price": 1.0, "output_price": 10.0, "max_output_tokens": 100}

Start = Callable[..., tuple[Client, ScriptedServer]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server that follows a script and a client of it; both end with the test."""
    with ExitStack() as stack:

        def make(
            *script: Behaviour, spend: Spend | None = None, **changes: Any
        ) -> tuple[Client, ScriptedServer]:
            server = stack.enter_context(ScriptedServer(script))
            client = stack.enter_context(client_of(server.url, spend=spend, **changes))
            return client, server

        yield make


def client_of(url: str, spend: Spend | None = None, **changes: Any) -> Client:
    model = {"name": "m", "base_url": url, "key_env": "A_KEY", **PRICES, **changes.pop("model", {})}
    settings = LlmSettings.model_validate({**QUICK, **changes, "models": [model]})
    return Client(settings, spend=spend, environ={"A_KEY": KEY}, rng=np.random.default_rng(0))


def ask(client: Client, prompt: Prompt = PROMPT) -> Answer | Refused:
    return client.submit(prompt).result(timeout=10)


def refused(outcome: Answer | Refused) -> Refused:
    assert isinstance(outcome, Refused), outcome
    return outcome


def answered(outcome: Answer | Refused) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_an_answer_arrives_whole_with_its_usage_and_cost(start: Start) -> None:
    text = "Wäre: <<<<<<< SEARCH\n" * 20
    client, server = start(answers(text, inputs=1000, outputs=50))
    answer = answered(ask(client))
    assert answer.text == text
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1000, 50)
    assert answer.usage.cost == pytest.approx((1000 * 1.0 + 50 * 10.0) / 1e6)
    assert not answer.usage.estimated
    assert (answer.attempts, answer.model, answer.finish) == (1, "m", "stop")
    assert client.spend.totals.cost == pytest.approx(answer.usage.cost)
    assert client.spend.totals.reserved_tokens == 0
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["max_tokens"] == 100
    assert [m["role"] for m in request.body["messages"]] == ["system", "user"]


def test_an_endpoint_that_does_not_stream_is_understood(start: Start) -> None:
    message = {"role": "assistant", "content": "plain"}
    payload = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    client, _ = start(document(payload))
    answer = answered(ask(client))
    assert (answer.text, answer.usage.tokens) == ("plain", 5)


def test_an_answer_that_is_done_outlives_its_connection(start: Start) -> None:
    client, _ = start(scripted.drops_when_done)
    answer = answered(ask(client))
    assert (answer.text, answer.attempts, answer.usage.estimated) == ("whole", 1, True)


def test_a_hang_is_tried_again(start: Start) -> None:
    client, server = start(scripted.hangs, answers("at last"))
    assert answered(ask(client)).attempts == len(server.requests) == 2


def test_a_cut_answer_says_so(start: Start) -> None:
    client, _ = start(answers("half", finish="length"))
    assert answered(ask(client)).cut


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({"served_as": "org/m-8b"}, {"model": "org/m-8b"}),
        ({"temperature": 0.3}, {"temperature": 0.3}),
        ({"output_limit": "max_completion_tokens"}, {"max_completion_tokens": 100}),
        ({"extra": {"reasoning_effort": "low"}}, {"reasoning_effort": "low"}),
        ({}, {"stream_options": {"include_usage": True}}),
    ],
    ids=lambda value: "-".join(value),
)
def test_the_request_is_as_configured(
    start: Start, changes: dict[str, Any], sent: dict[str, Any]
) -> None:
    client, server = start(answers("x"), model=changes)
    answered(ask(client))
    body = server.requests[0].body
    assert {name: body[name] for name in sent} == sent
    assert ("max_tokens" in body) == ("output_limit" not in changes)


@pytest.mark.parametrize("reported", [10**400, -1, 2.5, "7", None])
def test_usage_that_cannot_be_is_replaced_by_the_upper_bound(start: Start, reported: Any) -> None:
    body = {
        "choices": [{"index": 0, "message": {"content": "text"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": reported},
    }
    client, _ = start(document(body))
    answer = answered(ask(client))
    assert answer.usage.estimated
    assert answer.usage.input_tokens == PROMPT.most_tokens
    assert client.spend.totals.tokens == answer.usage.tokens


def test_usage_is_not_asked_of_an_endpoint_that_refuses_it(start: Start) -> None:
    client, server = start(answers("x"), model={"ask_usage": False})
    answered(ask(client))
    assert "stream_options" not in server.requests[0].body


def test_a_server_on_this_machine_is_asked_past_a_proxy(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client, server = start(answers("here"))
    assert answered(ask(client)).text == "here"
    assert len(server.requests) == 1


def test_an_endpoint_without_key_never_gets_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client, server = start(answers("x"), model={"key_env": None})
    answered(ask(client))
    assert KEY not in str(server.requests[0].headers)


FAULTS: list[tuple[str, Behaviour, Reason, int]] = [
    ("429", fails(429), Reason.RATE_LIMITED, 3),
    ("429-retry-after", fails(429, retry_after="0.05"), Reason.RATE_LIMITED, 3),
    ("429-retry-after-too-long", fails(429, retry_after="60"), Reason.RATE_LIMITED, 1),
    ("429-no-quota", fails(429, code="insufficient_quota"), Reason.BAD_REQUEST, 1),
    ("500", fails(500), Reason.SERVER_ERROR, 3),
    ("503", fails(503, retry_after="0"), Reason.SERVER_ERROR, 3),
    ("drop", scripted.drops, Reason.CONNECTION, 3),
    ("hang", scripted.hangs, Reason.TIMEOUT, 3),
    ("hang-after-headers", scripted.hangs_after_headers, Reason.TIMEOUT, 3),
    ("hang-midway", scripted.hangs_midway, Reason.TIMEOUT, 1),
    ("slow-stream", scripted.drips, Reason.DEADLINE, 1),
    ("truncated-event", scripted.truncated_event, Reason.MALFORMED, 1),
    ("truncated-document", document({"choices": []}, cut=8), Reason.MALFORMED, 1),
    ("ends-early", scripted.ends_early, Reason.MALFORMED, 1),
    ("html", document("<html>", kind="text/html"), Reason.MALFORMED, 1),
    ("no-choices", document({"ok": True}), Reason.MALFORMED, 1),
    ("odd-choice", document({"choices": ["x"]}), Reason.MALFORMED, 1),
    ("odd-content", document({"choices": [{"message": {"content": 7}}]}), Reason.MALFORMED, 1),
    ("error-in-200", document({"error": {"message": "overloaded"}}), Reason.SERVER_ERROR, 3),
    ("empty", says("assistant", ""), Reason.EMPTY, 1),
    ("blank", says("assistant", " \n"), Reason.EMPTY, 1),
    ("null", document({"choices": [{"message": {"content": None}}]}), Reason.EMPTY, 1),
    ("wrong-role", says("user", "hello"), Reason.WRONG_ROLE, 1),
    ("huge", scripted.floods, Reason.TOO_LARGE, 1),
    ("huge-line", scripted.floods_one_line, Reason.TOO_LARGE, 1),
    ("wrong-key", scripted.echoes_key(401), Reason.WRONG_KEY, 1),
    ("forbidden", scripted.echoes_key(403), Reason.WRONG_KEY, 1),
    ("bad-request", scripted.echoes_key(400), Reason.BAD_REQUEST, 1),
    ("not-found", fails(404), Reason.BAD_REQUEST, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour", "reason", "attempts"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_fault_is_a_typed_refusal_within_the_deadline(
    start: Start,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
    reason: Reason,
    attempts: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    limits = {"deadline_s": 1.2} if reason is Reason.DEADLINE else {}
    if behaviour in (scripted.hangs, scripted.hangs_after_headers):
        limits = {"stall_s": 0.2}
    client, server = start(behaviour, spend=Spend(max_cost=1.0), max_answer_bytes=20_000, **limits)
    began = time.monotonic()
    outcome = refused(ask(client))
    assert time.monotonic() - began < limits.get("deadline_s", QUICK["deadline_s"]) + 0.5
    assert outcome.reason is reason
    assert outcome.attempts == attempts == len(server.requests)
    assert outcome.detail
    totals = client.spend.totals
    assert totals.reserved_tokens == 0
    assert totals.cost == pytest.approx(outcome.usage.cost)
    assert TypeAdapter(Outcome).validate_json(outcome.model_dump_json()) == outcome
    for text in (outcome.model_dump_json(), repr(outcome), caplog.text, repr(client)):
        assert KEY not in text


@pytest.mark.parametrize("fault", [fails(429, retry_after="0"), fails(500), scripted.drops])
def test_a_passing_fault_is_tried_again_and_costs_nothing(start: Start, fault: Behaviour) -> None:
    client, server = start(fault, fault, answers("at last", inputs=7, outputs=3))
    answer = answered(ask(client))
    assert (answer.text, answer.attempts, len(server.requests)) == ("at last", 3, 3)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("headers", "least_s"),
    [({"retry_after": "0.4"}, 0.4), ({"retry_after_ms": "400"}, 0.4), ({}, 0.0)],
    ids=["seconds", "milliseconds", "none"],
)
def test_retry_after_is_honoured(start: Start, headers: dict[str, str], least_s: float) -> None:
    client, server = start(fails(429, **headers), answers("x"))
    answered(ask(client))
    waited = server.requests[1].at - server.requests[0].at
    assert least_s <= waited < least_s + 1.0


def test_a_retry_after_beyond_the_deadline_rests_the_model_instead_of_blocking(
    start: Start,
) -> None:
    client, server = start(fails(429, retry_after="60"))
    began = time.monotonic()
    assert refused(ask(client)).reason is Reason.RATE_LIMITED
    assert refused(ask(client)).reason is Reason.OUTAGE
    assert time.monotonic() - began < 1.0
    assert len(server.requests) == 1
    assert 50 < client.pauses()["m"] <= 60


def test_an_outage_opens_the_breaker_and_one_probe_closes_it(start: Start) -> None:
    script = [fails(500)] * 3 + [answers("back")]
    client, server = start(*script, breaker_failures=3, breaker_s=0.8, attempts=2)
    assert refused(ask(client)).reason is Reason.SERVER_ERROR
    # The third failure opens the breaker in the middle of the second call.
    assert refused(ask(client)).reason is Reason.OUTAGE
    for _ in range(20):
        resting = refused(ask(client))
        assert (resting.reason, resting.attempts, resting.usage.tokens) == (Reason.OUTAGE, 0, 0)
    assert len(server.requests) == 3
    assert client.pauses()["m"] > 0
    time.sleep(client.pauses()["m"] + 0.02)
    assert answered(ask(client)).text == "back"
    assert answered(ask(client)).text == "back"
    assert client.pauses() == {"m": 0.0}


def test_after_an_outage_one_probe_at_a_time_and_longer_rests(start: Start) -> None:
    client, server = start(fails(500), breaker_failures=1, breaker_s=0.5, attempts=1)
    refused(ask(client))
    time.sleep(0.55)
    outcomes = [f.result(10) for f in [client.submit(PROMPT) for _ in range(4)]]
    assert len(server.requests) == 2
    assert sorted(refused(o).attempts for o in outcomes) == [0, 0, 0, 1]
    assert client.pauses()["m"] > 0.5


def test_a_wrong_key_is_not_tried_again_and_rests_the_model(start: Start) -> None:
    client, server = start(scripted.echoes_key(401))
    first = refused(ask(client))
    assert "[key]" in first.detail
    assert refused(ask(client)).reason is Reason.OUTAGE
    assert len(server.requests) == 1


def test_throttled_calls_in_flight_do_not_open_the_breaker(start: Start) -> None:
    script = [fails(429, retry_after="0.05")] * 4 + [answers("x")]
    client, _ = start(*script, breaker_failures=2, concurrency=4)
    outcomes = [f.result(10) for f in [client.submit(PROMPT) for _ in range(4)]]
    assert all(isinstance(outcome, Answer) for outcome in outcomes)


def test_concurrency_is_kept_and_waiting_counts_against_the_deadline(start: Start) -> None:
    client, server = start(answers("x", after_s=1.0), concurrency=2, deadline_s=1.8, stall_s=1.7)
    outcomes = [f.result(10) for f in [client.submit(PROMPT) for _ in range(5)]]
    assert server.most_at_once == 2
    assert sum(isinstance(outcome, Answer) for outcome in outcomes) == 2
    late = [refused(o) for o in outcomes if isinstance(o, Refused)]
    assert {o.reason for o in late} == {Reason.DEADLINE}
    assert all(o.seconds < 2.3 for o in late)


WORST_TOKENS = PROMPT.most_tokens + 100
WORST_COST = (PROMPT.most_tokens * 1.0 + 100 * 10.0) / 1e6


@pytest.mark.parametrize("limit", ["cost", "tokens"])
def test_many_calls_in_flight_never_exceed_a_budget(start: Start, limit: str) -> None:
    billed_in, billed_out = PROMPT.most_tokens, 100  # all that the request allows
    spend = {
        "cost": Spend(max_cost=5.5 * WORST_COST),
        "tokens": Spend(max_tokens=int(5.5 * WORST_TOKENS)),
    }[limit]
    client, server = start(
        answers("x", inputs=billed_in, outputs=billed_out, after_s=0.05),
        spend=spend, concurrency=20, deadline_s=5.0,
    )  # fmt: skip
    outcomes = [f.result(10) for f in [client.submit(PROMPT) for _ in range(20)]]
    assert len(server.requests) == 5
    reasons = [refused(o).reason for o in outcomes if isinstance(o, Refused)]
    assert reasons == [Reason.BUDGET] * 15
    assert spend.totals.tokens == 5 * WORST_TOKENS
    assert spend.totals.cost == pytest.approx(5 * WORST_COST)


def test_a_call_waits_for_room_that_others_hold_and_do_not_use(start: Start) -> None:
    client, server = start(
        answers("x", inputs=5, outputs=5, after_s=0.05),
        spend=Spend(max_tokens=int(1.5 * WORST_TOKENS)), concurrency=4,
    )  # fmt: skip
    outcomes = [f.result(10) for f in [client.submit(PROMPT) for _ in range(4)]]
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert server.most_at_once == 1


def test_what_the_endpoint_does_not_report_is_charged_at_its_upper_bound(start: Start) -> None:
    client, _ = start(scripted.hangs_midway, scripted.floods, max_answer_bytes=4096)
    for _ in range(2):
        usage = refused(ask(client)).usage
        assert (usage.tokens, usage.estimated) == (WORST_TOKENS, True)
    payload = {"choices": [{"message": {"content": "five!"}}]}
    client, _ = start(document(payload))
    usage = answered(ask(client)).usage
    assert (usage.output_tokens, usage.estimated) == (5, True)


def test_attempts_that_never_began_to_answer_cost_nothing(start: Start) -> None:
    client, server = start(scripted.hangs, spend=Spend(max_tokens=WORST_TOKENS), stall_s=0.2)
    assert refused(ask(client)).usage.tokens == 0
    assert len(server.requests) == 3
    assert client.spend.totals.tokens == 0


def test_an_answer_is_cut_off_at_its_limit_and_not_at_the_wire_s(start: Start) -> None:
    def line_without_end(exchange: scripted.Exchange) -> None:
        exchange.start()
        exchange.send(b"data: " + b"x" * 100_000)
        exchange.stopped.wait(30)

    client, _ = start(
        answers("x" * 2000), answers("x" * 3000), line_without_end, max_answer_bytes=2048
    )
    assert len(answered(ask(client)).text) == 2000
    assert refused(ask(client)).reason is Reason.TOO_LARGE
    assert refused(ask(client)).reason is Reason.TOO_LARGE


def test_closing_ends_calls_in_flight_at_once(start: Start) -> None:
    client, server = start(scripted.hangs, deadline_s=60, stall_s=60, concurrency=2)
    futures = [client.submit(PROMPT) for _ in range(4)]
    while len(server.requests) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 2.0
    assert {refused(f.result(0)).reason for f in futures} == {Reason.CLOSED}
    assert refused(client.submit(PROMPT).result(0)).reason is Reason.CLOSED
    assert client.spend.totals.reserved_tokens == 0
    assert "llm-client" not in {thread.name for thread in threading.enumerate()}


def test_a_cancelled_call_gives_back_its_slot_and_its_room(start: Start) -> None:
    client, server = start(scripted.hangs, answers("x"), deadline_s=20, stall_s=20, concurrency=1)
    first = client.submit(PROMPT)
    while not server.requests:
        time.sleep(0.01)
    assert first.cancel()
    assert answered(ask(client)).text == "x"
    assert client.spend.totals.reserved_tokens == 0


def test_a_key_that_the_model_repeats_is_cut_out_of_its_answer(start: Start) -> None:
    client, _ = start(answers(f"your key is {KEY}!"))
    assert answered(ask(client)).text == "your key is [key]!"


def test_surrogates_are_replaced_and_pairs_are_joined(start: Start) -> None:
    # Pieces of seven characters: the pair is cut in two.
    client, server = start(answers("a\ud800bcde\ud83d\ude00"), fails(400, "no \udfff"))
    assert answered(ask(client, Prompt(user="c\udfffd"))).text == "a\ufffdbcde\U0001f600"
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "c\ufffdd"}]
    assert "no \ufffd" in refused(ask(client)).detail


@pytest.mark.parametrize(
    ("value", "says"), [("", "needs its key"), ("sk-secret\nbroken", "cannot be sent")]
)
def test_a_key_that_cannot_work_is_named_by_its_variable_only(value: str, says: str) -> None:
    model = {"name": "m", "base_url": "http://127.0.0.1:1/v1", "key_env": "A_KEY"}
    settings = LlmSettings.model_validate({"models": [model]})
    with pytest.raises(UserError, match=f"A_KEY|{says}") as raised:
        Client(settings, environ={"A_KEY": value})
    assert "A_KEY" in str(raised.value)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_model_that_is_not_configured_is_a_mistake_of_the_caller(start: Start) -> None:
    client, _ = start(answers("x"))
    with pytest.raises(KeyError):
        client.submit(PROMPT, "other")
