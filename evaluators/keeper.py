"""The process between the nursery and one candidate: it sees to the candidate's end.

The keeper is the subreaper of everything the candidate starts. When the candidate ends, exceeds its
memory, when the judge says stop or when the judge is gone, the keeper kills all that descends from
it, reports one `Verdict` and ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NoReturn

from evaluators import processes
from evaluators.channel import Channel, ChannelError

POLL_S = 0.02
"""How often the candidate's own memory is read."""

SCAN_S = 0.1
"""How often the memory of all its descendants is read."""

PROCESS_LIMIT = 256
"""Most processes below one keeper; more is taken for a fork bomb."""


@dataclass(frozen=True)
class Verdict:
    """How a candidate ended: by itself (`exit_code`), by a signal, or by the keeper (`reason`).

    `reason` is '' or one of `memory`, `processes`, `stop` (the judge asked, or is gone) and `lost`
    (the nursery is gone). `peak_bytes` is the largest memory seen.
    """

    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    peak_bytes: int = 0
    clean: bool = True


def keep(
    live: Callable[[], None], own: socket.socket, judge: socket.socket, memory_bytes: int
) -> NoReturn:
    """Fork `live` into a candidate process that keeps the socket `own`, and watch it."""
    os.setsid()
    processes.become_subreaper()
    candidate = os.fork()
    if candidate == 0:
        judge.close()
        _live(live)
    own.close()
    channel = Channel(judge)
    verdict = _watch(candidate, channel, memory_bytes)
    try:
        channel.send(asdict(verdict), timeout_s=5.0)
    except ChannelError:
        os._exit(1)
    os._exit(0)


def _live(live: Callable[[], None]) -> NoReturn:
    """Run the candidate; whatever it raises ends in an exit code, never in the keeper's code."""
    code = 1
    try:
        processes.die_with_parent()
        # A session of its own: no process outside it can be reached through a group.
        os.setsid()
        live()
        code = 0
    finally:
        os._exit(code)


def _watch(candidate: int, judge: Channel, memory_bytes: int) -> Verdict:
    parent = os.getppid()
    base = processes.resident_bytes(candidate)
    peak, next_scan, reason, status = 0, 0.0, "", None
    watched = _watched(candidate, judge)
    while not reason and status is None:
        ready, _, _ = select.select(watched, [], [], POLL_S)
        now = time.monotonic()
        used = processes.resident_bytes(candidate)
        if now >= next_scan:
            next_scan = now + SCAN_S
            below = processes.descendants(os.getpid())
            used = sum(map(processes.resident_bytes, below))
            if len(below) > 1 and used - base > memory_bytes:  # children share their parent's pages
                used = sum(map(processes.proportional_bytes, below))
            if len(below) > PROCESS_LIMIT:
                reason = "processes"
        peak = max(peak, used - base)
        if peak > memory_bytes:
            reason = "memory"
        elif os.getppid() != parent:
            reason = "lost"
        elif judge.fileno() in ready:
            reason = "stop"
        status = processes.reap().get(candidate)
    if status is None:
        os.kill(candidate, signal.SIGKILL)
        status = os.waitpid(candidate, 0)[1]
    clean = processes.kill_descendants(os.getpid())
    return Verdict(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        reason=reason,
        peak_bytes=peak,
        clean=clean,
    )


def _watched(candidate: int, judge: Channel) -> list[int]:
    """Descriptors that wake the keeper; without the candidate's (an old kernel) it only polls."""
    try:
        return [judge.fileno(), os.pidfd_open(candidate)]
    except OSError:
        return [judge.fileno()]
