"""Asking language models: deadlines, retries, budgets, and an outcome for every call.

A client owns one thread with one event loop. Whatever a service does ends as an `Answer` or a
`Refused`; no exception escapes for it, and keys appear in neither.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from evolve.llm.breaker import State
from evolve.llm.endpoint import Endpoint
from evolve.llm.exchange import Answer, Prompt, Reason, Refused, Usage, clean
from evolve.llm.reply import Reply
from evolve.llm.retry import Fault, retrying
from evolve.llm.settings import LlmSettings, key_of
from evolve.llm.spend import Reservation, Spend
from evolve.redaction import in_order, redact

DETAIL_LIMIT = 400
"""Most characters of detail kept with a refusal."""


@dataclass
class _Call:
    """One submission on its way."""

    prompt: Prompt
    endpoint: Endpoint
    started: float = field(default_factory=time.monotonic)
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    fault: Fault | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Client:
    """Asks the models of `[llm]`; thread-safe.

    `spend` belongs to this client alone; its limits decide, not those of `settings`. `environ`
    holds the keys, `rng` (used by the client's own thread) jitters the waits. UserError when a key
    is missing or cannot be sent.
    """

    def __init__(
        self,
        settings: LlmSettings,
        *,
        spend: Spend | None = None,
        environ: Mapping[str, str] = os.environ,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._settings = settings
        self.spend = spend or Spend(settings.max_cost, settings.max_tokens)
        self._rng = rng or np.random.default_rng()
        keys = {model.name: key_of(model, environ) for model in settings.models}
        self._secrets = in_order(key for key in keys.values() if key)
        self._endpoints = {
            model.name: Endpoint(model, keys[model.name], settings) for model in settings.models
        }
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._settled = asyncio.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Answer | Refused]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="llm-client", daemon=True)
        self._thread.start()

    def submit(self, prompt: Prompt, model: str | None = None) -> Future[Answer | Refused]:
        """Asks `model` (None: the first); the outcome comes within the deadline.

        KeyError for a model that is not configured. Cancelling the future abandons the call.
        """
        endpoint = self._endpoints[self._settings.models[0].name if model is None else model]
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(
                    self._outcome(_Call(prompt, endpoint)), self._loop
                )
        done: Future[Answer | Refused] = Future()
        done.set_result(self._refused(_Call(prompt, endpoint), Fault(Reason.CLOSED)))
        return done

    def pauses(self) -> dict[str, float]:
        """Seconds that each model still rests after failures; 0.0 for one that can be asked."""
        return {name: e.breaker.pause_left for name, e in self._endpoints.items()}

    def failing(self) -> dict[str, bool]:
        """Whether each model is resting, or has rested and not answered since."""
        return {n: e.breaker.state is not State.CLOSED for n, e in self._endpoints.items()}

    def close(self) -> None:
        """Ends all calls (`CLOSED`) and the thread; does nothing the second time.

        Not to be called from a future's callback, which runs on that thread.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _shut(self) -> None:
        await asyncio.sleep(0)  # a call submitted just before has begun by now
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for endpoint in self._endpoints.values():
            await endpoint.close()

    async def _outcome(self, call: _Call) -> Answer | Refused:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        remaining = self._settings.deadline_s - call.seconds
        try:
            async with asyncio.timeout(remaining), self._slots:
                return await self._tried(call)
        except TimeoutError:
            last = f", last: {call.fault.detail}" if call.fault else ""
            detail = f"no answer within {self._settings.deadline_s:g} s{last}"
            return self._refused(call, Fault(Reason.DEADLINE, detail))
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return self._refused(call, Fault(Reason.CLOSED))
        finally:
            self._tasks.discard(task)

    async def _tried(self, call: _Call) -> Answer | Refused:
        """All attempts of a call."""
        remaining = self._settings.deadline_s - call.seconds
        again = retrying(self._settings, remaining, self._rng)
        result: Reply | Fault = await again(self._attempt, call)
        if isinstance(result, Reply):
            return Answer(
                model=call.endpoint.model.name,
                text=self._redact(result.text),
                finish=self._redact(result.finish)[:40],
                usage=call.usage,
                attempts=call.attempts,
                seconds=call.seconds,
            )
        if result.reason is Reason.RATE_LIMITED or result.retry_after is not None:
            # Throttling is everyday: it rests the model only when it outlasts a call's patience.
            call.endpoint.breaker.hold(result.retry_after or self._settings.breaker_s)
        return self._refused(call, result)

    async def _attempt(self, call: _Call) -> Reply | Fault:
        """One HTTP request, if the budget and the breaker let it pass."""
        endpoint, breaker = call.endpoint, call.endpoint.breaker
        reservation = await self._reserve(call)
        if reservation is None:
            return Fault(Reason.BUDGET, "the request's worst case no longer fits the budget")
        if not breaker.allow():
            self._release(reservation)
            last = f", last: {call.fault.detail}" if call.fault else ""
            return Fault(Reason.OUTAGE, f"resting for {breaker.pause_left:.0f} s{last}")
        call.attempts += 1
        reply = endpoint.new_reply()
        ended = False
        try:
            call.fault = await endpoint.ask(call.prompt, reply)
            ended = True
        finally:
            usage = endpoint.charge(call.prompt, reply)
            call.usage += usage
            self.spend.settle(reservation, usage)
            self._wake()
            if ended:
                _judge(endpoint, call.fault)
            elif call.seconds >= self._settings.deadline_s:
                breaker.failure()
            else:
                breaker.abandon()
        return call.fault or reply

    async def _reserve(self, call: _Call) -> Reservation | None:
        """Waits for requests in flight when they hold what this one needs."""
        model = call.endpoint.model
        inputs, outputs = call.prompt.most_tokens, model.max_output_tokens
        tokens, cost = inputs + outputs, model.cost(inputs, outputs)
        while self.spend.could_fit(tokens, cost):
            if reservation := self.spend.reserve(tokens, cost):
                return reservation
            await self._settled.wait()
        return None

    def _release(self, reservation: Reservation) -> None:
        self.spend.release(reservation)
        self._wake()

    def _wake(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    def _refused(self, call: _Call, fault: Fault) -> Refused:
        detail = " ".join(self._redact(fault.detail).split())
        return Refused(
            model=call.endpoint.model.name,
            reason=fault.reason,
            detail=detail[:DETAIL_LIMIT],
            usage=call.usage,
            attempts=call.attempts,
            seconds=call.seconds,
        )

    def _redact(self, text: str) -> str:
        """`text` fit for a record, without keys: endpoints repeat them in their complaints."""
        return redact(clean(text), self._secrets)


def _judge(endpoint: Endpoint, fault: Fault | None) -> None:
    """Tells the breaker how the service did."""
    breaker = endpoint.breaker
    if fault is None or not fault.reason.of_service:
        breaker.success()
    elif fault.reason is Reason.WRONG_KEY:
        breaker.failure()
        breaker.hold(breaker.longest_pause)  # no request can succeed until a person acts
    elif fault.reason is Reason.RATE_LIMITED:
        breaker.abandon()
    else:
        breaker.failure()
