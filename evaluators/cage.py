"""What a candidate's process can reach: its own folder, libraries and compilers, the device.

Everything else on the machine is closed to its native code as well: the store, results, the user's
home, the folders and processes of other candidates, the judge. Landlock closes the files, system
calls that reach another process of the same user fail, and root is an ordinary user inside. Nothing
here needs a privilege; what a kernel cannot enforce is said.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluators import installation, landlock, mounts, seccomp

PROC = (
    "cpuinfo", "meminfo", "stat", "version", "uptime", "loadavg", "filesystems", "modules",
    "devices", "misc", "driver", "sys",
)  # fmt: skip
"""Readable below /proc. The process's own folder is open too; those of others, which tell their
command lines, are not."""

DEVICES = ("null", "zero", "full", "random", "urandom")
ACCELERATORS = ("nvidia", "dri", "kfd", "dxg", "mxcd", "mxgd", "mxgpu", "htcd")
"""Beginnings of device names below /dev."""

KEPT_CAPABILITIES = (1, 2, 3)
"""Root's passing over permissions of files (`<linux/capability.h>`: DAC_OVERRIDE, DAC_READ_SEARCH,
FOWNER): an installation may belong to another user, and Landlock bounds it."""

_CAPABILITY_VERSION = 0x20080522
_PR_CAPBSET_DROP = 24


@dataclass(frozen=True)
class Shut:
    """What the system cannot enforce, for people; '' where all holds."""

    files: str
    network: str


def shut(folder: Path) -> Shut:
    """Close the cage around the caller, whose folder is `folder`, and go there.

    Only the calling thread is held, and what it starts later: call it while there is no other.
    """
    version = min(landlock.abi(), landlock.KNOWN_ABI)
    own = [folder, *_shared()]
    rules = _rules(folder, own)
    lacking = []
    refused = mounts.read_only([*own, Path("/proc")])
    os.chdir(folder)  # the path leads to the new mount, the old working folder does not
    if refused:
        lacking.append(f"modes and times of the user's files can be changed: {refused}")
    if version == 0:
        lacking.append("Landlock is not in this kernel, or switched off")
    else:
        try:
            landlock.restrict(rules, version)
        except OSError as error:
            lacking.append(f"Landlock: {error.strerror}")
            version = 0
    _drop_capabilities(keep=KEPT_CAPABILITIES if version else ())
    if version == 1:
        _move_by_copying()
    network = ""
    try:
        seccomp.install(seccomp.rules(os.getpid(), version))
    except OSError as error:
        network = f"seccomp: {error.strerror}"
        lacking.append(f"limits and priority of the user's processes can be changed: {network}")
    return Shut("; ".join(lacking), network)


def _rules(folder: Path, own: list[Path]) -> list[tuple[list[Path], landlock.Right]]:
    read = [*installation.readable(folder.parent), *(Path("/proc", name) for name in PROC)]
    used = [Path("/proc/self"), *(Path("/dev", name) for name in DEVICES), *_accelerators()]
    return [(read, landlock.READ), (used, landlock.USE), (own, landlock.OWN)]


def _accelerators() -> list[Path]:
    return [Path("/dev", name) for name in os.listdir("/dev") if name.startswith(ACCELERATORS)]


def _shared() -> list[Path]:
    """Where CUDA keeps what processes share by IPC, and torch the reference counts of it."""
    return [p for p in (Path("/dev/shm"),) if _accelerators() and p.is_dir()]


def _drop_capabilities(keep: tuple[int, ...]) -> None:
    """Give up all capabilities but `keep`, here and in every program that is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        last = int(file.read())
    for number in range(last + 1):
        if number not in keep:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused to who has none to give up
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    libc.capget(header, held)
    permitted = struct.unpack("6I", held.raw)[1] & sum(1 << number for number in keep)
    libc.capset(header, struct.pack("6I", permitted, permitted, 0, 0, 0, 0))


def _move_by_copying() -> None:
    """Have `os.rename` and `os.replace` copy where the first Landlock lets nothing be moved: from
    one folder to another, as compilers fill their caches."""
    for name in ("rename", "replace"):
        setattr(os, name, partial(_moved, getattr(os, name)))


def _moved(move: Callable[..., None], source: Any, target: Any, **options: Any) -> None:
    try:
        move(source, target, **options)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    near = f"{os.fsdecode(target)}.{os.getpid()}.moving"
    if os.path.isdir(source):
        shutil.copytree(source, near, symlinks=True)
        move(near, target)
        shutil.rmtree(source)
    else:
        shutil.copy2(source, near, follow_symlinks=False)
        move(near, target)
        os.unlink(source)
