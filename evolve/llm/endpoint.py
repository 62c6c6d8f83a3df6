"""One model behind its endpoint: a single HTTP attempt, every fault of the service typed."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import openai

from evolve.llm.breaker import Breaker
from evolve.llm.exchange import Prompt, Reason, Usage
from evolve.llm.reply import Reply, Unreadable
from evolve.llm.retry import Fault, retry_after
from evolve.llm.settings import LlmSettings, Model

CONNECT_S = 10.0
"""Longest wait for a connection."""
BROKEN = (
    openai.APIConnectionError,
    httpx2.HTTPError,
    httpx2.StreamError,
    anyio.EndOfStream,  # this and OSError: TLS failures that httpx2 passes through
    OSError,
)


class Endpoint:
    """A model, its connection and its breaker. `key` is held by the connection alone."""

    def __init__(self, model: Model, key: str | None, settings: LlmSettings) -> None:
        self.model = model
        self.breaker = Breaker(
            settings.breaker_failures, settings.breaker_s, settings.breaker_max_s
        )
        self._limit = settings.max_answer_bytes
        stall = settings.stall_s
        # Without a key of its own an endpoint must not get the one that the library would find in
        # the environment. Retries are the caller's: the library's would multiply them.
        self._connection = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=model.base_url,
            timeout=openai.Timeout(stall, connect=min(CONNECT_S, stall)),
            max_retries=0,
            http_client=_past_proxies() if _is_here(model.base_url) else None,
        )

    def new_reply(self) -> Reply:
        return Reply(self._limit)

    async def ask(self, prompt: Prompt, reply: Reply) -> Fault | None:
        """Sends one request and reads its answer into `reply`; None when that is complete."""
        try:
            completions = self._connection.chat.completions.with_streaming_response
            async with completions.create(**self._request(prompt)) as response:
                kind = response.headers.get("content-type", "").lower()
                await reply.read(kind, response.iter_bytes())
        except Unreadable as error:
            return Fault(error.reason, error.detail, begun=reply.begun)
        except openai.APIStatusError as error:
            return _of_status(error)
        except (openai.APITimeoutError, httpx2.TimeoutException):
            return self._broken(Reason.TIMEOUT, "the endpoint fell silent", reply)
        except BROKEN as error:
            return self._broken(Reason.CONNECTION, f"connection failed: {_why(error)}", reply)
        except (openai.OpenAIError, httpx2.InvalidURL) as error:
            return Fault(Reason.MALFORMED, str(error), begun=reply.begun)
        return None

    async def close(self) -> None:
        await self._connection.close()

    def charge(self, prompt: Prompt, reply: Reply) -> Usage:
        """What an attempt that was sent has used: as reported, else its upper bound.

        An attempt whose answer never began is free: an outage must not use up a budget.
        """
        if reply.finished and reply.usage is not None:
            return self._usage(*reply.usage, estimated=False)
        if not reply.begun:
            return Usage()
        most = self.model.max_output_tokens
        return self._usage(
            prompt.most_tokens, min(reply.size, most) if reply.finished else most, estimated=True
        )

    def _usage(self, inputs: int, outputs: int, *, estimated: bool) -> Usage:
        cost = self.model.cost(inputs, outputs)
        return Usage(input_tokens=inputs, output_tokens=outputs, cost=cost, estimated=estimated)

    def _broken(self, reason: Reason, detail: str, reply: Reply) -> Fault | None:
        """The connection failed; an answer that had said it was done is complete all the same."""
        if reply.finished and reply.text.strip():
            return None
        return Fault(reason, detail, begun=reply.begun)

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        model = self.model
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        request: dict[str, Any] = {
            "model": model.served_as or model.name,
            "messages": [*messages, {"role": "user", "content": prompt.user}],
            "stream": True,
            model.output_limit: model.max_output_tokens,
        }
        if model.ask_usage:
            request["stream_options"] = {"include_usage": True}
        if model.temperature is not None:
            request["temperature"] = model.temperature
        if model.extra:
            request["extra_body"] = dict(model.extra)
        return request


def _past_proxies() -> openai.DefaultAsyncHttpxClient:
    """A proxy that the environment names cannot reach what this machine alone can."""
    return openai.DefaultAsyncHttpxClient(trust_env=False)


def _is_here(url: str) -> bool:
    """Whether the endpoint is on this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_status(error: openai.APIStatusError) -> Fault:
    code = error.status_code
    detail = f"HTTP {code}: {error.message}"
    wait = retry_after(error.response.headers)
    if code in {401, 403}:
        return Fault(Reason.WRONG_KEY, detail)
    if code == 429 and error.code != "insufficient_quota":
        return Fault(Reason.RATE_LIMITED, detail, wait)
    if code == 408:
        return Fault(Reason.TIMEOUT, detail, wait)
    if code >= 500:
        return Fault(Reason.SERVER_ERROR, detail, wait)
    return Fault(Reason.BAD_REQUEST, detail)


def _why(error: Exception) -> str:
    """The kind of failure: texts of connection errors may hold what was sent."""
    return type(error.__cause__ or error).__name__
