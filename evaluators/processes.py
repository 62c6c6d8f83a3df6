"""Linux process trees: who descends from whom, what they hold in memory, and their end."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE = os.sysconf("SC_PAGE_SIZE")


def become_subreaper() -> None:
    """Orphans among the caller's descendants become its children, even after `setsid`."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """The caller is killed when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Process ids below `root`, nearest first, zombies included. Reads all of /proc: about 2 ms."""
    children = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            children[_parent(name)].append(int(name))
    found = list(children[root])
    for pid in found:
        found.extend(children[pid])
    return found


def resident_bytes(pid: int) -> int:
    """Memory of one process that is in RAM, shared pages included; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Memory of one process with shared pages divided among their holders; 0 when it is gone.

    Slower than `resident_bytes` (milliseconds), but a sum over a family counts no page twice.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            found = next(line for line in file if line.startswith(b"Pss:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        return 0


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has spent, all its threads together; 0.0 when it is gone."""
    # MAKE_PROCESS_CPUCLOCK of <linux/posix-timers.h>: any process may ask for any other's.
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def queued_seconds(pid: int | None = None) -> float:
    """How long the first thread of a process, or without `pid` the calling thread, was ready to run
    but waited for a processor; 0.0 where the system does not say."""
    # The second number of proc(5)'s schedstat, nanoseconds; readable by everybody.
    where = "thread-self" if pid is None else str(pid)
    try:
        with open(f"/proc/{where}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def virtual_bytes() -> int:
    """Address space of the calling process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * _PAGE


def kill_descendants(root: int, deadline_s: float = 10.0) -> bool:
    """Kill and reap everything below `root`, which must be the caller and a subreaper.

    They are stopped before they are killed, so that none can fork while the list is read. Returns
    whether none is left at the deadline.
    """
    end = time.monotonic() + deadline_s
    while True:
        _signal(descendants(root), signal.SIGSTOP)
        _signal(descendants(root), signal.SIGKILL)
        reap()
        if not descendants(root):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.002)


def reap() -> dict[int, int]:
    """Wait statuses of all children that have ended, by process id."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return -1


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
