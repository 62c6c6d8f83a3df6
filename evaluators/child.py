"""The judge's handle on the nursery and on one candidate's process.

Every wait has a deadline. Whatever a candidate does ends in a `CandidateFailed` with a status and
a log; `EvaluatorError` says that the evaluator itself is broken.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluators import confinement, processes
from evaluators.channel import (
    Channel,
    ChannelClosed,
    ChannelDeadline,
    ChannelError,
)
from evaluators.keeper import Verdict
from evaluators.schema import Language, Status

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 180.0
"""For a request to the nursery: the first one of a language imports its compiler."""

STOP_DEADLINE_S = 20.0
REPLY_LIMIT = 4 << 20


class EvaluatorError(Exception):
    """The evaluator cannot do its work, and no candidate is to blame."""


class CandidateFailed(Exception):
    """A candidate's end: its status and what to tell its author."""

    def __init__(self, status: Status, log: str) -> None:
        super().__init__(f"{status.value}: {log}")
        self.status = status
        self.log = log


class CandidateLost(CandidateFailed):
    """Its keeper ended it because the nursery died, perhaps at another candidate's hand."""


class Nursery:
    """Starts the nursery process and asks it for children. Thread-safe."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the nursery)

    def start(self) -> None:
        """Start the process; it imports nothing heavy yet."""
        ours, theirs = socket.socketpair()
        environment = confinement.scrubbed(dict(os.environ), self._device)
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evaluators.nursery", str(theirs.fileno())],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Ctrl-C at a terminal reaches the foreground group: what is in flight has to finish.
            start_new_session=True,
        )
        theirs.close()
        self._channel = Channel(ours, REPLY_LIMIT)

    def fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Have a child forked that owns the sockets `fds`; its keeper's process id.

        Raises EvaluatorError.

        A nursery that died (a candidate may have killed it) is started again, once.
        """
        with self._lock:
            for attempt in (0, 1):
                if self._channel is None:
                    self.start()
                assert self._channel is not None
                try:
                    self._channel.send(request, fds, START_DEADLINE_S)
                    return int(self._channel.receive(START_DEADLINE_S)["keeper"])
                except ChannelError as error:
                    log = self._tail()
                    self._stop()
                    if attempt:
                        raise EvaluatorError(f"the nursery does not run: {error}\n{log}") from error
        raise AssertionError("unreachable")

    @property
    def pid(self) -> int:
        """Id of the nursery; 0 before it is started."""
        return self._process.pid if self._process is not None else 0

    def processes(self) -> list[int]:
        """Ids of the nursery and of all that descends from it."""
        if self._process is None:
            return []
        return [self._process.pid, *processes.descendants(self._process.pid)]

    def close(self) -> None:
        """End the nursery and all that descends from it."""
        with self._lock:
            self._stop()
            self._log.close()

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        return self._log.read().decode(errors="replace")


@dataclass(frozen=True)
class Limits:
    """What one candidate may use, in bytes.

    `memory_bytes`: RAM of all its processes; `file_bytes`: the largest file; `address_bytes`:
    address space beyond what it starts with, None where the device maps its memory there.
    """

    memory_bytes: int
    file_bytes: int = confinement.FILE_BYTES
    address_bytes: int | None = None


class Child:
    """One candidate process. Used by one thread at a time; a context manager."""

    def __init__(self, nursery: Nursery, language: Language, limits: Limits) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tilevolve-"))
        own, theirs = socket.socketpair()
        keeper, keepers = socket.socketpair()
        request = {
            "language": language.value,
            "folder": str(self.folder),
            **asdict(limits),
        }
        try:
            self._pid = nursery.fork(request, [theirs.fileno(), keepers.fileno()])
        except EvaluatorError:
            own.close()
            keeper.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            theirs.close()
            keepers.close()
        self._channel = Channel(own, REPLY_LIMIT)
        self._keeper = Channel(keeper, REPLY_LIMIT)
        self._verdict: Verdict | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, message: dict[str, Any], deadline_s: float, fds: list[int] | None = None
    ) -> dict[str, Any]:
        """Send a command and wait for its reply. Raises CandidateFailed."""
        command = str(message["command"])
        end = time.monotonic() + deadline_s
        try:
            self._channel.send(message, fds or [], deadline_s)
            while True:
                left = max(0.0, end - time.monotonic())
                ready, _, _ = select.select([self._channel, self._keeper], [], [], left)
                if self._channel in ready:
                    reply = self._channel.receive(max(0.001, end - time.monotonic()))
                    break
                if ready:
                    raise self._ended(command)
                raise ChannelDeadline("no reply in time")
        except ChannelDeadline as error:
            log = f"{command} passed its deadline of {deadline_s:g} s"
            raise self._failed(Status.TIMEOUT, log) from error
        except ChannelClosed as error:
            raise self._ended(command) from error
        except ChannelError as error:
            raise self._failed(Status.RUNTIME_ERROR, f"{command}: {error}") from error
        return self._judged(command, reply)

    def processes(self) -> list[int]:
        """Ids of the candidate's process and of all that it started, without its keeper."""
        return processes.descendants(self._pid)

    def close(self) -> Verdict | None:
        """End the candidate and all that it started, and remove its folder."""
        verdict = self._stop()
        self._channel.close()
        self._keeper.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return verdict

    def _judged(self, command: str, reply: dict[str, Any]) -> dict[str, Any]:
        if reply.get("ok") is True:
            return reply
        try:
            status = Status(str(reply.get("status")))
        except ValueError:
            status = Status.RUNTIME_ERROR
        if status is Status.PASSED:
            status = Status.RUNTIME_ERROR
        raise self._failed(status, str(reply.get("log", "")) or f"{command} failed")

    def _failed(self, status: Status, log: str) -> CandidateFailed:
        printed = confinement.printed(self.folder)
        text = f"{log}\n--- printed ---\n{printed}" if printed else log
        return CandidateFailed(status, confinement.cleaned(text, self.folder))

    def _ended(self, command: str) -> CandidateFailed:
        """The failure of a candidate whose process is gone, from its keeper's verdict."""
        verdict = self._stop()
        if verdict is None:
            return self._failed(Status.RUNTIME_ERROR, f"{command}: the keeper was killed")
        if verdict.reason == "lost":
            log = f"{command}: the process that all candidates come from died"
            return CandidateLost(Status.RUNTIME_ERROR, log)
        if verdict.reason == "memory":
            held = verdict.peak_bytes / 2**20
            log = f"{command}: {held:.0f} MiB of memory held, which is more than the limit"
            return self._failed(Status.OUT_OF_MEMORY, log)
        if verdict.reason == "processes":
            return self._failed(Status.RUNTIME_ERROR, f"{command}: too many processes started")
        if verdict.signal is not None:
            return self._failed(Status.RUNTIME_ERROR, f"{command}: {_describe(verdict.signal)}")
        return self._failed(
            Status.RUNTIME_ERROR, f"{command}: the process exited with code {verdict.exit_code}"
        )

    def _stop(self) -> Verdict | None:
        """Have the keeper end everything; its verdict, or None when the keeper was killed."""
        if self._verdict is None:
            # The candidate may be gone already: then the verdict waits and nobody reads this.
            with contextlib.suppress(ChannelError):
                self._keeper.send({"stop": True}, timeout_s=STOP_DEADLINE_S)
            try:
                self._verdict = Verdict(**self._keeper.receive(STOP_DEADLINE_S))
            except ChannelError:
                return None
        return self._verdict


def _describe(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    text = f"the process was killed by {name}"
    if number == signal.SIGSEGV:
        text += " (memory that is not its own; on the CPU inputs are read-only)"
    if number == signal.SIGXFSZ:
        text += f" (it wrote or printed more than {confinement.FILE_BYTES >> 20} MiB)"
    return text
