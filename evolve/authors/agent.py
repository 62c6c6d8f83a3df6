"""A coding agent as an author: a command that reads the prompt on stdin and answers on stdout.

Nothing of what the command starts outlives its call: all of it is killed when the command ends,
when its deadline passes, when its answer grows too long and when the run stops.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from evolve.authors.author import PROBING_S, Author
from evolve.authors.leash import GRACE_S, leashed
from evolve.authors.settings import AgentSettings, command_of
from evolve.llm.breaker import Breaker, State
from evolve.llm.exchange import Answer, Prompt, Reason, Refused, Usage, clean
from evolve.redaction import redact, secrets

LOOK_S = 0.05
"""Seconds between two looks at a running command."""
END_S = 3 * GRACE_S
"""Seconds in which a leash ends its command and what that started."""
DETAIL = 400
"""Most characters of a complaint that are kept."""
FAILURES, REST_S, LONGEST_REST_S = 3, 30.0, 600.0
"""Failures in a row after which the command rests, and for how long."""
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""Colours, cursor movements and titles for a terminal (ECMA-48, sections 5.4 and 5.6)."""


class Agent(Author):
    """The command of one `[agent]` section. UserError when there is no such command."""

    name = "agent"
    served = False  # nobody can tell a command's own failure from that of a service behind it

    def __init__(self, settings: AgentSettings, environ: Mapping[str, str]) -> None:
        self.concurrency = settings.concurrency
        self.prompt_tokens = settings.prompt_tokens
        self.patience = settings.patience
        self._settings = settings
        self._command = leashed(command_of(settings, environ))
        self._model = name_of(settings.command)
        self._environ = dict(environ)
        self._secrets = secrets(environ)
        self._breaker = Breaker(FAILURES, REST_S, LONGEST_REST_S)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="agent")

    def models(self) -> dict[str, float]:
        with self._lock:
            # After a rest one call decides; until it has, others would only be turned away.
            probing = PROBING_S if self._breaker.state is State.HALF_OPEN else 0.0
            return {self._model: self._breaker.pause_left or probing}

    def worst(self, prompt: Prompt, model: str) -> Usage:
        return Usage()

    def send(self, prompt: Prompt, model: str) -> Future[Answer | Refused]:
        if model != self._model:
            raise KeyError(model)
        if self._closed.is_set():
            done: Future[Answer | Refused] = Future()
            done.set_result(self._refused(Reason.CLOSED, "", 0.0))
            return done
        return self._pool.submit(self._call, prompt)

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=True)

    def _call(self, prompt: Prompt) -> Answer | Refused:
        started = time.monotonic()
        if self._closed.is_set():
            return self._refused(Reason.CLOSED, "", 0.0)
        with self._lock:
            if not self._breaker.allow():
                return self._refused(Reason.OUTAGE, "the command rests after failures", 0.0)
        with tempfile.TemporaryDirectory(prefix="tilevolve-agent-") as folder:
            try:
                outcome = self._run(prompt, Path(folder), started)
            except OSError as error:
                detail = f"the command cannot be started: {error.strerror}"
                outcome = self._refused(Reason.CONNECTION, detail, 0.0)
        with self._lock:
            if isinstance(outcome, Answer) or not outcome.reason.of_service:
                self._breaker.success()
            else:
                self._breaker.failure()
        return outcome

    def _run(self, prompt: Prompt, folder: Path, started: float) -> Answer | Refused:
        text, answer, errors = (folder / name for name in ("prompt", "answer", "errors"))
        work = folder / "work"
        work.mkdir()
        text.write_text("\n\n".join(part for part in (prompt.system, prompt.user) if part))
        with text.open("rb") as stdin, answer.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                self._command,
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd=work,
                env=self._environ,
                start_new_session=True,
            )
        try:
            stopped = self._watch(process, answer, errors, started)
        finally:
            _end(process)
        seconds = time.monotonic() - started
        if stopped is not None:
            return self._refused(stopped, self._last_words(errors), seconds)
        if process.returncode:
            said = (
                f"the command ended with {process.returncode}: {self._last_words(errors, answer)}"
            )
            return self._refused(Reason.SERVER_ERROR, said, seconds)
        reply = redact(plain(answer.read_bytes().decode(errors="replace")), self._secrets)
        if not reply.strip():
            return self._refused(Reason.EMPTY, self._last_words(errors), seconds)
        return Answer(model=self._model, text=reply, attempts=1, seconds=seconds)

    def _watch(
        self, process: subprocess.Popen[bytes], answer: Path, errors: Path, started: float
    ) -> Reason | None:
        """Waits for the command; why it must be ended, or None when it ended by itself."""
        most = self._settings.max_answer_bytes
        while process.poll() is None:
            if self._closed.wait(LOOK_S):
                return Reason.CLOSED
            if time.monotonic() - started > self._settings.deadline_s:
                return Reason.DEADLINE
            if answer.stat().st_size > most or errors.stat().st_size > 16 * most:
                return Reason.TOO_LARGE
        return Reason.TOO_LARGE if answer.stat().st_size > most else None

    def _last_words(self, *files: Path) -> str:
        """The end of the first file that says anything."""
        for file in files:
            with file.open("rb") as stream:
                start = max(0, file.stat().st_size - 16 * DETAIL)
                stream.seek(start)
                said = plain(stream.read().decode(errors="replace")).split()
            # Nobody can tell whether a first word that is cut is the rest of a key.
            words = " ".join(said[1:] if start else said)
            if words:
                return words
        return ""

    def _refused(self, reason: Reason, detail: str, seconds: float) -> Refused:
        said = redact(clean(detail), self._secrets)[-DETAIL:]
        sent = 0 if reason in {Reason.OUTAGE, Reason.CLOSED} and not seconds else 1
        return Refused(
            model=self._model, reason=reason, detail=said, attempts=sent, seconds=seconds
        )


def name_of(command: Sequence[str]) -> str:
    """What an agent is called: its program, also where `env NAME=VALUE ...` starts that."""
    first, *rest = command
    if Path(first).name == "env":
        first = next((word for word in rest if "=" not in word), first)
    return Path(first).name


def plain(text: str) -> str:
    """What a command printed, without what only a terminal understands."""
    return _TERMINAL.sub("", clean(text))


def _end(leash: subprocess.Popen[bytes]) -> None:
    """Ends the command and all that it started: asked first where it still runs, then killed."""
    if leash.poll() is None:
        leash.terminate()
        with suppress(subprocess.TimeoutExpired):
            leash.wait(END_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leash.pid, signal.SIGKILL)
    leash.wait()
