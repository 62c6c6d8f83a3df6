"""Reading a chat completion off the wire: event stream or plain JSON, capped while it arrives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from evolve.llm.exchange import Reason, clean

FRAME_BYTES = 65_536
"""Room for what surrounds an answer's text in one JSON document."""
MOST_TOKENS = 10**9
"""Of one request; an endpoint that reports more reports nonsense."""


class Unreadable(Exception):
    """What arrived is no answer. Never leaves the client: it becomes a typed fault."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Reply:
    """An answer while it arrives; what is known of it remains when reading fails midway.

    `begun`: the model has produced something; `finished`: it said that it was done; `usage`: input
    and output tokens as the endpoint reports them. `size`: bytes of text, hidden
    reasoning included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._visible = 0
        self._raw = 0
        self._role: str | None = None
        self.size = 0
        self.begun = False
        self.finished = False
        self.finish = "stop"
        self.usage: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        return clean("".join(self._parts))

    async def read(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Reads a whole body. Unreadable when it is no answer, or a longer one than the limit."""
        if "event-stream" in content_type:
            await self._read_events(chunks)
        else:
            await self._read_document("json" in content_type, chunks)
        if not self.finished:
            raise Unreadable(Reason.MALFORMED, "the answer ended before it was complete")
        if self._role is not None:
            raise Unreadable(Reason.WRONG_ROLE, f"the answer speaks as {self._role!r}")
        if not self.text.strip():
            raise Unreadable(Reason.EMPTY, f"the answer has no text (finish: {self.finish})")

    async def _read_events(self, chunks: AsyncIterator[bytes]) -> None:
        buffer = bytearray()
        async for chunk in chunks:
            # An event costs some hundred bytes for each token of a few.
            self._count(chunk, 128 * self._limit)
            buffer += chunk
            *lines, rest = bytes(buffer).split(b"\n") if b"\n" in chunk else (buffer,)
            for line in lines:
                if self._event(line.strip()):
                    return
            buffer = bytearray(rest)
            if len(buffer) > 4 * self._limit + FRAME_BYTES:
                raise self._too_large()
        self._event(bytes(buffer).strip())

    def _event(self, line: bytes) -> bool:
        """Takes one line; True at the stream's end mark."""
        if not line.startswith(b"data:"):
            return False
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            self.finished = True
            return True
        if data:
            self._take(self._decode(data), "delta")
        return False

    async def _read_document(self, is_json: bool, chunks: AsyncIterator[bytes]) -> None:
        """One JSON document: an endpoint that does not stream."""
        body = bytearray()
        async for chunk in chunks:
            self._count(chunk, 4 * self._limit + FRAME_BYTES)
            self.begun = self.begun or (is_json and bool(chunk))
            body += chunk
        self._take(self._decode(bytes(body)), "message")
        self.finished = True

    def _count(self, chunk: bytes, limit: int) -> None:
        self._raw += len(chunk)
        if self._raw > limit:
            raise self._too_large()

    def _too_large(self) -> Unreadable:
        return Unreadable(Reason.TOO_LARGE, f"the answer exceeds {self._limit} bytes")

    def _decode(self, data: bytes) -> dict[str, Any]:
        try:
            payload = json.loads(data)
        except (ValueError, RecursionError):
            self.begun = self.begun or data.startswith(b"{")
            raise Unreadable(Reason.MALFORMED, "the answer is not valid JSON") from None
        if not isinstance(payload, dict):
            raise Unreadable(Reason.MALFORMED, "the answer is not a JSON object")
        return payload

    def _take(self, payload: dict[str, Any], field: str) -> None:
        if payload.get("error"):
            self.begun = bool(self._parts)
            raise Unreadable(Reason.SERVER_ERROR, f"error within the answer: {payload['error']}")
        self._take_usage(payload.get("usage"))
        choices = payload.get("choices", [] if "usage" in payload else None)
        if not isinstance(choices, list):
            raise Unreadable(Reason.MALFORMED, "the answer has no list of choices")
        for choice in choices:
            if not isinstance(choice, dict):
                raise Unreadable(Reason.MALFORMED, "a choice is not a JSON object")
            if choice.get("index", 0) == 0:
                self.begun = True
                self._take_message(choice.get(field) or {})
                if isinstance(choice.get("finish_reason"), str):
                    self.finish, self.finished = choice["finish_reason"], True

    def _take_message(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise Unreadable(Reason.MALFORMED, "a message is not a JSON object")
        role = message.get("role")
        if role not in (None, "", "assistant"):
            # Read to the end all the same: the usage comes last.
            self._role = str(role)[:40]
        for hidden in ("reasoning_content", "reasoning"):
            if isinstance(message.get(hidden), str):
                self.size += len(clean(message[hidden]).encode())
        text = _text(message.get("content"))
        self._parts.append(text)
        size = len(clean(text).encode())
        self.size += size
        self._visible += size
        if self._visible > self._limit:
            raise self._too_large()

    def _take_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            known = (type(count) is int and 0 <= count <= MOST_TOKENS for count in tokens)
            if all(known) and any(tokens):
                self.usage = (int(tokens[0] or 0), int(tokens[1] or 0))


def _text(content: Any) -> str:
    """Text of a message's content: a string, nothing, or a list of typed parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        if len(parts) == len(content):
            return "".join(part for part in parts if isinstance(part, str))
    raise Unreadable(Reason.MALFORMED, "a message's content is not text")
