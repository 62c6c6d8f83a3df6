"""A filter on the caller's system calls: what one process can do to another of the same user.

Limits, scheduling and priority of a process yield to everybody who runs as the same user, and so do
signals where Landlock does not know them. A filter (`<linux/seccomp.h>`, classic BPF) sees numbers
only: a call is allowed where its arguments name the caller, and fails with an error otherwise.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from dataclasses import dataclass

from evaluators import landlock

_SET_MODE_FILTER = 1
_SPEC_ALLOW = 1 << 2
"""Without it older kernels slow down every filtered process against speculative reads."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000

_F_SETOWN, _F_SETOWN_EX = 8, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902

Clause = dict[int, tuple[int, ...]]
"""Position of an argument -> values (32 bits) that it may have; all of them have to fit."""


@dataclass(frozen=True)
class Machine:
    """`AUDIT_ARCH_*` of a processor, and its numbers of system calls."""

    architecture: int
    numbers: dict[str, int]


_SAME = {
    "io_uring_setup": 425, "pidfd_send_signal": 424, "pidfd_getfd": 438, "process_madvise": 440,
    "process_mrelease": 448,
}  # fmt: skip

MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        _SAME
        | {
            "socket": 41, "connect": 42, "kill": 62, "fcntl": 72, "truncate": 76, "ptrace": 101,
            "rt_sigqueueinfo": 129, "setpriority": 141, "sched_setparam": 142,
            "sched_setscheduler": 144, "ioctl": 16, "tkill": 200, "sched_setaffinity": 203,
            "tgkill": 234, "add_key": 248, "request_key": 249, "keyctl": 250, "ioprio_set": 251,
            "migrate_pages": 256, "move_pages": 279, "rt_tgsigqueueinfo": 297, "prlimit64": 302,
            "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "sched_setattr": 314,
            "seccomp": 317,
        },
    ),
    "aarch64": Machine(
        0xC00000B7,
        _SAME
        | {
            "socket": 198, "connect": 203, "kill": 129, "fcntl": 25, "truncate": 45, "ptrace": 117,
            "rt_sigqueueinfo": 138, "setpriority": 140, "sched_setparam": 118,
            "sched_setscheduler": 119, "ioctl": 29, "tkill": 130, "sched_setaffinity": 122,
            "tgkill": 131, "add_key": 217, "request_key": 218, "keyctl": 219, "ioprio_set": 30,
            "migrate_pages": 238, "move_pages": 239, "rt_tgsigqueueinfo": 240, "prlimit64": 261,
            "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "sched_setattr": 274,
            "seccomp": 277,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A call fails with `error` unless one of the clauses fits; without clauses it always fails.

    `when`: position and values of an argument; with others the call is not touched.
    """

    call: str
    unless: tuple[Clause, ...] = ()
    error: int = errno.EPERM
    when: tuple[int, tuple[int, ...]] | None = None


def rules(process: int, landlock_abi: int) -> tuple[Rule, ...]:
    """What `process` and its children may not do, beyond what Landlock of that ABI forbids them."""
    own = (0, process)
    found = [
        # No network, also where there is no namespace for it; and no daemon of this machine.
        Rule("socket", ({0: (socket.AF_UNIX, socket.AF_NETLINK)},), errno.EAFNOSUPPORT),
        # As if no daemon were there: CUDA asks for that of its multi-process service.
        Rule("connect", error=errno.ENOENT),
        Rule("io_uring_setup", error=errno.ENOSYS),
        # Limits and priority of other processes, such as the anchor's; of cores see `cores`.
        *(Rule(call, ({0: own},)) for call in ("prlimit64", "migrate_pages")),
        *(Rule(call, ({0: own},)) for call in ("sched_setparam", "sched_setattr", "move_pages")),
        Rule("sched_setscheduler", ({0: own},)),
        Rule("setpriority", ({0: (os.PRIO_PROCESS,), 1: own},)),
        Rule("ioprio_set", ({0: (1,), 1: own},)),
        # Keys that the user's session keeps in the kernel.
        *(Rule(call) for call in ("add_key", "request_key", "keyctl")),
    ]
    if landlock_abi < 1:
        calls = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp")
        found += [Rule(call) for call in (*calls, "process_madvise", "process_mrelease")]
    if landlock_abi < 3:
        found.append(Rule("truncate"))
    if landlock_abi < 6:
        found += _signals(process)
    return tuple(found)


def install(found: tuple[Rule, ...], machine: Machine | None = None) -> None:
    """Filter the calling thread and what it starts later. Raises OSError.

    Needs a known processor: ENOSYS on others.
    """
    machine = machine or MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {platform.machine()}")
    code = b"".join(program(found, machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    landlock.give_up_privileges()
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (_SPEC_ALLOW, 0):
        if libc.syscall(machine.numbers["seccomp"], _SET_MODE_FILTER, flags, header) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def program(found: tuple[Rule, ...], machine: Machine) -> list[bytes]:
    """The filter's instructions (`struct sock_filter`). Calls of another architecture fail."""
    foreign = [_instruction(_RETURN, _ERROR | errno.ENOSYS)]
    lines = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_EQUAL, machine.architecture, 1, 0),
        *foreign,
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_JUMP_AT_LEAST, _X32, 0, 1),
        *foreign,
    ]
    for rule in found:
        body = [line for clause in rule.unless for line in _clause(clause)]
        if rule.when is not None:
            body += _other_than(*rule.when)
        body.append(_instruction(_RETURN, _ERROR | rule.error))
        lines += [_instruction(_JUMP_EQUAL, machine.numbers[rule.call], 0, len(body)), *body]
    return [*lines, _instruction(_RETURN, _ALLOW)]


def _clause(clause: Clause) -> list[bytes]:
    """Allow the call when every argument has one of its values; else go on behind the clause."""
    lines = [_instruction(_RETURN, _ALLOW)]
    for position, values in reversed(clause.items()):
        rest = len(lines)
        tests = []
        for left, value in enumerate(reversed(values)):
            # The last value decides: what does not fit leaves the clause.
            tests.append(_instruction(_JUMP_EQUAL, value & 0xFFFFFFFF, left, 0 if left else rest))
        lines = [_instruction(_LOAD, _ARGUMENTS_AT + 8 * position), *reversed(tests), *lines]
    return lines


def _other_than(position: int, values: tuple[int, ...]) -> list[bytes]:
    """Allow the call when the argument has none of the values."""
    lines = [_instruction(_LOAD, _ARGUMENTS_AT + 8 * position)]
    for left in range(len(values), 0, -1):
        lines.append(_instruction(_JUMP_EQUAL, values[-left], left, 0))
    return [*lines, _instruction(_RETURN, _ALLOW)]


def _signals(process: int) -> list[Rule]:
    """Signals go to the process itself and to its group; 0 only asks whether a process is there."""
    own = (process, 0, -process)
    return [
        Rule("kill", ({0: own}, {1: (0,)})),
        Rule("tgkill", ({0: (process,)}, {2: (0,)})),
        Rule("tkill", ({0: (process,)},)),
        Rule("rt_sigqueueinfo", ({0: (process,)},)),
        Rule("rt_tgsigqueueinfo", ({0: (process,)},)),
        Rule("pidfd_send_signal"),
        # Who owns a descriptor gets signals from it.
        Rule("fcntl", when=(1, (_F_SETOWN, _F_SETOWN_EX))),
        Rule("ioctl", when=(1, (_FIOSETOWN, _SIOCSPGRP))),
    ]


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)
