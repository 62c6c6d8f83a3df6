"""A view of the file system in which almost nothing can be changed, for a process and its children.

Landlock leaves free what does not open a file: another mode, owner or time stamp by a file's name.
On a read-only mount that fails. Needs Linux 5.12, and the right to a mount namespace: root's, or
that of a user namespace entered before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1

_libc = ctypes.CDLL(None, use_errno=True)


def read_only(writable: Sequence[Path]) -> str:
    """Give the caller mounts of its own, of which only `writable` folders can be written.

    Returns '' or why that is impossible; then nothing has changed. What is
    open stays as it was, and the working folder has to be entered again.
    """
    try:
        _checked(_libc.unshare(_CLONE_NEWNS))
        _mount(None, Path("/"), _MS_REC | _MS_PRIVATE)
        for path in writable:
            if not os.path.ismount(path):
                _mount(path, path, _MS_BIND)
        _set(Path("/"), _AT_RECURSIVE, struct.pack("4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0))
    except OSError as error:
        return f"mount namespace: {error.strerror}"
    for path in writable:
        # Refused for what was read-only before: then it stays so.
        with contextlib.suppress(OSError):
            _set(path, 0, struct.pack("4Q", 0, _MOUNT_ATTR_RDONLY, 0, 0))
    return ""


def _mount(source: Path | None, target: Path, flags: int) -> None:
    named = None if source is None else os.fsencode(source)
    _checked(_libc.mount(named, os.fsencode(target), None, flags, None))


def _set(path: Path, flags: int, attributes: bytes) -> None:
    """`mount_setattr` with a `struct mount_attr`."""
    size = len(attributes)
    name = os.fsencode(path)
    _checked(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, name, flags, attributes, size))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
