"""Which cores the evaluator's own processes may use, so that no candidate slows them by that.

OpenMP binds its threads to cores by the threads' ids: a filter on system calls cannot tell that
from binding threads of others. So it is allowed, and looked at after each candidate.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress


class Cores:
    """Cores of some processes' threads as they were when they were noted."""

    def __init__(self) -> None:
        self._noted: dict[int, set[int]] = {}

    def note(self, pids: Iterable[int]) -> None:
        """Take the present cores of all threads of `pids` for right."""
        self._noted = {tid: cores for pid in pids for tid, cores in _threads(pid)}

    def changed(self) -> int:
        """How many of these threads have other cores now. They get theirs back where they may."""
        count = 0
        for tid, cores in self._noted.items():
            now = _cores(tid)
            if now and now != cores:
                count += 1
                with suppress(OSError):
                    os.sched_setaffinity(tid, cores)
                self._noted[tid] = _cores(tid) or cores
        return count


def _threads(pid: int) -> Iterable[tuple[int, set[int]]]:
    try:
        tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [(tid, cores) for tid in tids if (cores := _cores(tid))]


def _cores(tid: int) -> set[int]:
    """Empty when the thread is gone."""
    try:
        return os.sched_getaffinity(tid)
    except OSError:
        return set()
