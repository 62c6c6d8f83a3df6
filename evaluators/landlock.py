"""Linux Landlock: a process and its children give up files, signals and other processes, for good.

It needs no privilege and holds for root as well. System calls, structures and rights are those of
`<linux/landlock.h>`; what a kernel knows is told by its ABI: 1 since Linux 5.13, files; 2 (5.19)
moves between folders; 3 (6.2) `truncate`; 6 (6.12) signals and abstract sockets. Under every ABI a
process cannot trace, or read the memory or environment of, one that is not confined by the same
call or below it.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable, Sequence
from enum import IntFlag
from pathlib import Path

KNOWN_ABI = 6
"""Newest ABI used here."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1, 2
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


class Right(IntFlag):
    """Rights on files; `LANDLOCK_ACCESS_FS_*`. What a device's `ioctl` does is left free."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14


FIRST = Right((1 << 13) - 1)
"""The rights of ABI 1."""

SINCE = {2: Right.REFER, 3: Right.TRUNCATE}
OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE
"""Rights that a rule on something else than a folder may name."""

READ = Right.EXECUTE | Right.READ_FILE | Right.READ_DIR
USE = Right.READ_FILE | Right.WRITE_FILE | Right.TRUNCATE | Right.READ_DIR
"""To open devices and what the kernel offers as files, for reading and writing. With `truncate`,
since CUDA names its threads in /proc/self/task/*/comm and does not start where that is refused."""

OWN = (FIRST | Right.REFER | Right.TRUNCATE) & ~(Right.MAKE_CHAR | Right.MAKE_BLOCK)


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("rights", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi() -> int:
    """The kernel's ABI; 0 where it has no Landlock, or has it switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict(rules: Iterable[tuple[Sequence[Path], Right]], version: int) -> None:
    """Leave to the caller only what `rules` name: paths, all below them, and rights on them.

    Paths that are not there are passed over. `version` is an ABI that the kernel has; an older one
    holds less, see above. Holds the calling thread and what it starts later. Raises OSError.
    """
    handled = FIRST
    for since, right in SINCE.items():
        if version >= since:
            handled |= right
    scoped = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL if version >= KNOWN_ABI else 0
    known = ctypes.sizeof(_Ruleset) if version >= KNOWN_ABI else ctypes.sizeof(ctypes.c_uint64)
    attributes = _Ruleset(handled, 0, scoped)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), known, 0))
    try:
        for paths, rights in rules:
            for path in paths:
                _allow(ruleset, path, rights & handled)
        give_up_privileges()
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def give_up_privileges() -> None:
    """No program that the caller starts gains privileges from now on. Raises OSError."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _allow(ruleset: int, path: Path, rights: Right) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= OF_FILES
        rule = _PathBeneath(rights, beneath)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(beneath)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
