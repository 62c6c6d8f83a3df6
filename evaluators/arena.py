"""Memory that the judge and its candidates share: tensors in one block, found by offset.

On the CPU a block is a memfd, whose inputs are sealed against writing once they are filled. On CUDA
it is one torch buffer shared by CUDA IPC: it is kept and used again, because torch holds a shared
buffer for as long as a consumer that was killed has not said that it is done with it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import math
import mmap
import os
import pickle
import warnings
from dataclasses import dataclass
from typing import Any, Protocol

from evaluators.schema import Definition, Record

ALIGNMENT = 256
"""Bytes; every tensor starts at a multiple of it, as an allocation on the device would."""

_CUDA_GRAIN = 32 << 20
# <linux/fcntl.h>; Python names it only since 3.13.
_F_SEAL_FUTURE_WRITE = 0x0010

_ITEM_BYTES = {
    "float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


class Entry(Record):
    """One argument of a kernel: a tensor at `offset` bytes, or a scalar `value`."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None = None
    offset: int = 0
    value: bool | int | float | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.shape is None else math.prod(self.shape) * _ITEM_BYTES[self.dtype]


class Call(Record):
    """Arguments of one workload: inputs in one block, outputs in another."""

    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]


@dataclass(frozen=True)
class Plan:
    """Calls of all workloads of an epoch, and the bytes that their blocks need."""

    calls: tuple[Call, ...]
    input_bytes: int
    output_bytes: int


def plan(definition: Definition, axes: list[dict[str, int]], scalars: list[dict[str, Any]]) -> Plan:
    """Lay out workloads: inputs one after another, outputs of all workloads over each other.

    `scalars` gives each workload's scalar inputs by name. KeyError when one or an axis is missing.
    """
    calls, start, most = [], 0, 0
    for sizes, values in zip(axes, scalars, strict=True):
        inputs, start = _entries(definition, definition.inputs, sizes, values, start)
        outputs, end = _entries(definition, definition.outputs, sizes, {}, 0)
        calls.append(Call(inputs=inputs, outputs=outputs))
        most = max(most, end)
    return Plan(tuple(calls), start, most)


def view(block: Any, entry: Entry) -> Any:
    """The argument of `entry`: a tensor over the uint8 tensor `block`, or the scalar itself."""
    import torch

    if entry.shape is None:
        return entry.value
    dtype = getattr(torch, entry.dtype)
    return block[entry.offset : entry.offset + entry.nbytes].view(dtype).view(entry.shape)


def _entries(
    definition: Definition, specs: dict[str, Any], axes: dict[str, int], values: dict[str, Any],
    start: int,
) -> tuple[tuple[Entry, ...], int]:  # fmt: skip
    entries = []
    for name, spec in specs.items():
        if spec.shape is None:
            entries.append(Entry(name=name, dtype=spec.dtype, value=values[name]))
            continue
        shape = definition.shape_of(spec, axes)
        entries.append(Entry(name=name, dtype=spec.dtype, shape=shape, offset=start))
        start += -(-entries[-1].nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(entries), start


class Block(Protocol):
    """Shared memory. `tensor` is the owner's uint8 view of it."""

    tensor: Any
    nbytes: int

    def share(self) -> tuple[dict[str, Any], list[int]]:
        """What `attach` needs in the other process: JSON, and descriptors to send beside it."""

    def seal(self) -> None:
        """No process that attaches from now on can write; CPU only, otherwise nothing."""

    def close(self) -> None:
        """The owner needs it no more."""


class HostBlock:
    """A memfd. Consumers keep their mapping after `close`."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, mmap.PAGESIZE)
        self._fd = os.memfd_create("tilevolve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, self.nbytes)
        seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
        self._sealed = False
        self.tensor = _mapped(self._fd, self.nbytes, writable=True)

    def seal(self) -> None:
        # Where the kernel lacks the seal (Linux before 5.1), consumers still map read-only.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        self._sealed = True

    def share(self) -> tuple[dict[str, Any], list[int]]:
        return {"kind": "host", "nbytes": self.nbytes, "writable": not self._sealed}, [self._fd]

    def close(self) -> None:
        os.close(self._fd)
        self.tensor = None


class CudaBlock:
    """A torch buffer in a device allocation of its own, shared by CUDA IPC."""

    def __init__(self, nbytes: int) -> None:
        import torch

        self.nbytes = -(-max(nbytes, 1) // _CUDA_GRAIN) * _CUDA_GRAIN
        # IPC shares whole allocations: an empty cache and a large size keep the block to itself.
        torch.cuda.empty_cache()
        self.tensor = torch.empty(self.nbytes, dtype=torch.uint8, device="cuda")
        from torch.multiprocessing import reductions

        rebuild, arguments = reductions.reduce_tensor(self.tensor)
        self._handle = base64.b64encode(pickle.dumps((rebuild, arguments))).decode()

    def seal(self) -> None:
        """CUDA IPC knows no read-only mapping; the epoch's checksums watch the inputs instead."""

    def share(self) -> tuple[dict[str, Any], list[int]]:
        return {"kind": "cuda", "handle": self._handle}, []

    def close(self) -> None:
        self.tensor = None


def allocate(device: str, nbytes: int, old: Block | None = None) -> Block:
    """A block of at least `nbytes`. On CUDA `old` is used again when it is large enough, and grows
    at least twofold otherwise, so that what torch still holds never exceeds the newest block."""
    if device == "cpu":
        if old is not None:
            old.close()
        return HostBlock(nbytes)
    if old is not None:
        if old.nbytes >= nbytes:
            return old
        nbytes = max(nbytes, 2 * old.nbytes)
        old.close()
    return CudaBlock(nbytes)


def attach(message: dict[str, Any], fds: list[int]) -> Any:
    """The uint8 tensor of another process's block; takes its descriptor off the front of `fds`.

    Unpickles the handle of a CUDA block, so `message` has to come from a trusted process.
    """
    if message["kind"] == "cuda":
        rebuild, arguments = pickle.loads(base64.b64decode(message["handle"]))
        return rebuild(*arguments)
    fd = fds.pop(0)
    try:
        return _mapped(fd, message["nbytes"], writable=message["writable"])
    finally:
        os.close(fd)


def _mapped(fd: int, nbytes: int, *, writable: bool) -> Any:
    import torch

    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of read-only memory: it is meant
        return torch.frombuffer(mmap.mmap(fd, nbytes, mmap.MAP_SHARED, access), dtype=torch.uint8)
