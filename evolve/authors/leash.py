"""The process between `evolve` and an agent's command: it sees to the end of all that was started.

Agents start shells, and shells start servers and watchers in sessions of their own, which no
process group reaches. What is left of them would take processor time from what is measured.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import NoReturn

from evaluators import processes

GRACE_S = 1.0
"""Seconds between asking a command to end and killing it."""
NOT_FOUND = 127
"""Exit status, as of a shell, when the command cannot be started."""
_WATCHED = (signal.SIGCHLD, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1


def leashed(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that runs `command`, whose first word is a full path, on a leash."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from {__name__} import hold; hold(sys.argv[1:])"
    )
    return (sys.executable, "-ISc", code, root, *command)


def hold(command: list[str]) -> NoReturn:
    """Runs `command` and ends with its status (128 and the signal's number after a signal).

    SIGTERM, which also comes when the parent ends, asks the process group, the caller's own, to
    end; `GRACE_S` later the command is killed. Nothing that it started outlives this process,
    unless this process is killed itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    processes.become_subreaper()
    child = os.fork()
    if child == 0:
        _become(command)
    status = _wait(child)
    processes.kill_descendants(os.getpid(), deadline_s=GRACE_S)
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _become(command: list[str]) -> NoReturn:
    processes.die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    try:
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"the command cannot be started: {error.strerror}\n".encode())
    os._exit(NOT_FOUND)


def _wait(child: int) -> int | None:
    """The command's wait status; None when it did not end in time after it was asked to."""
    end = float("inf")
    while True:
        if (status := processes.reap().get(child)) is not None:
            return status
        left = min(end - time.monotonic(), 1.0)
        if left <= 0:
            return None
        told = signal.sigtimedwait(_WATCHED, left)
        if told is not None and told.si_signo == signal.SIGTERM and end == float("inf"):
            end = time.monotonic() + GRACE_S
            os.killpg(0, signal.SIGTERM)  # here it is blocked
