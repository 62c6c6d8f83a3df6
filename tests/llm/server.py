"""An OpenAI-compatible server on loopback that behaves as scripted, faults included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request, and the means to answer it."""

    handler: BaseHTTPRequestHandler
    body: dict[str, Any]
    headers: dict[str, str]
    stopped: threading.Event
    work: Callable[[float], None]
    at: float = field(default_factory=time.monotonic)

    def start(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("content-type", kind)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def event(self, payload: Any) -> None:
        self.send(b"data: " + json.dumps(payload).encode() + b"\n\n")

    def delta(self, finish: str | None = None, **delta: Any) -> None:
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def usage(self, inputs: int, outputs: int) -> None:
        usage = {"prompt_tokens": inputs, "completion_tokens": outputs}
        self.event({"choices": [], "usage": usage})

    def done(self) -> None:
        self.send(b"data: [DONE]\n\n")


class ScriptedServer:
    """Answers request n by `script[n]`, and by the last one from there on."""

    def __init__(self, script: Iterable[Behaviour]) -> None:
        self.script = list(script)
        self.requests: list[Exchange] = []
        self.most_at_once = 0
        self._active = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        body = json.loads(handler.rfile.read(length))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        exchange = Exchange(handler, body, headers, self._stopped, self._work)
        with self._lock:
            number = len(self.requests)
            self.requests.append(exchange)
        with suppress(OSError):  # the client went away, as many tests want
            self.script[min(number, len(self.script) - 1)](exchange)

    def _work(self, seconds: float) -> None:
        """Takes its time, and is over before the client can know: `most_at_once` counts these."""
        with self._lock:
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
        self._stopped.wait(seconds)
        with self._lock:
            self._active -= 1

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answers(
    text: str, inputs: int = 20, outputs: int = 10, finish: str = "stop", after_s: float = 0.0
) -> Behaviour:
    """A well-behaved stream, in pieces of a few characters."""

    def behave(exchange: Exchange) -> None:
        exchange.work(after_s)
        exchange.start()
        exchange.delta(role="assistant", content="")
        for at in range(0, len(text), 7):
            exchange.delta(content=text[at : at + 7])
        exchange.delta(finish=finish)
        exchange.usage(inputs, outputs)
        exchange.done()

    return behave


def document(payload: Any, kind: str = "application/json", cut: int | None = None) -> Behaviour:
    """A plain JSON body, as endpoints that do not stream give it."""

    def behave(exchange: Exchange) -> None:
        exchange.start(kind=kind)
        exchange.send(json.dumps(payload).encode()[:cut])

    return behave


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.start(status, "application/json", **headers)
        exchange.send(json.dumps({"error": {"message": message, "code": code}}).encode())

    return behave


def echoes_key(status: int) -> Behaviour:
    """A complaint that repeats the key it was given, as real endpoints do."""

    def behave(exchange: Exchange) -> None:
        key = exchange.headers["authorization"]
        fails(status, f"Incorrect API key provided: {key}")(exchange)

    return behave


def hangs(exchange: Exchange) -> None:
    exchange.stopped.wait(30)


def hangs_midway(exchange: Exchange) -> None:
    exchange.start()
    exchange.delta(role="assistant", content="so far")
    exchange.stopped.wait(30)


def hangs_after_headers(exchange: Exchange) -> None:
    exchange.start()
    exchange.stopped.wait(30)


def drips(exchange: Exchange) -> None:
    """A stream that never falls silent and never ends."""
    exchange.start()
    while not exchange.stopped.wait(0.05):
        exchange.delta(content="x")


def floods(exchange: Exchange) -> None:
    exchange.start()
    while not exchange.stopped.is_set():
        exchange.delta(content="x" * 4000)


def floods_one_line(exchange: Exchange) -> None:
    """Without end, and without a line's end."""
    exchange.start()
    exchange.send(b'data: {"choices": [{"delta": {"content": "')
    while not exchange.stopped.is_set():
        exchange.send(b"x" * 65536)


def truncated_event(exchange: Exchange) -> None:
    exchange.start()
    exchange.delta(role="assistant", content="half")
    exchange.send(b'data: {"choices": [{"del')


def ends_early(exchange: Exchange) -> None:
    """Valid events, and then the stream is over without a word."""
    exchange.start()
    exchange.delta(role="assistant", content="half an ans")


def drops_when_done(exchange: Exchange) -> None:
    """Says that it is done, promises more, and closes the connection."""
    exchange.start(content_length="100000")
    exchange.delta(role="assistant", content="whole")
    exchange.delta(finish="stop")


def drops(exchange: Exchange) -> None:
    """Closes the connection without a response."""
    exchange.handler.connection.close()


def says(role: str, text: str) -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.start()
        exchange.delta(role=role, content=text)
        exchange.delta(finish="stop")
        exchange.usage(20, 10)
        exchange.done()

    return behave
