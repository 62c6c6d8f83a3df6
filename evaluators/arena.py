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

BAND = 64 << 10
"""Bytes of a guard band before, between and behind outputs."""

RING_BYTES = 4 << 30
"""A ring takes at most this: calls on more are long enough to be timed one by one."""

RESULT_BYTES = 512 << 20
"""Outputs of a ring take at most this: every evaluation under way has a set of its own."""

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
    """Arguments of one workload, by offset in the input block and the output block.

    `base` inputs keep their values for an epoch; `live` inputs, laid out alike, get new values for
    every judged or timed call. Inputs of either take `span` bytes. Outputs lie between guard bands,
    `reach` bytes in all. `slots` further sets of inputs and outputs follow the live ones, `span`
    and `reach` bytes apart: the ring.
    """

    base: tuple[Entry, ...]
    live: tuple[Entry, ...]
    outputs: tuple[Entry, ...]
    base_start: int
    live_start: int
    span: int
    reach: int
    slots: int = 0

    def inputs(self, slot: int = 0) -> tuple[Entry, ...]:
        """Live inputs, or those of ring slot `slot`, which counts from 1."""
        return tuple(_moved(e, slot * self.span) for e in self.live)

    def results(self, slot: int = 0) -> tuple[Entry, ...]:
        """Outputs, or those of a ring slot."""
        return tuple(_moved(e, slot * self.reach) for e in self.outputs)

    def bands(self, slot: int = 0) -> tuple[tuple[int, int], ...]:
        """(start, end) of the bytes around the outputs that no call may write."""
        edges, at = [], slot * self.reach
        for entry in self.results(slot):
            edges.append((at, entry.offset))
            at = entry.offset + entry.nbytes
        return (*edges, (at, (slot + 1) * self.reach))


def _moved(entry: Entry, by: int) -> Entry:
    if entry.shape is None or not by:
        return entry
    return entry.model_copy(update={"offset": entry.offset + by})


@dataclass(frozen=True)
class Plan:
    """Calls of an epoch, and the bytes that their blocks need."""

    calls: tuple[Call, ...]
    input_bytes: int
    output_bytes: int


def plan(
    definition: Definition, axes: list[dict[str, int]], scalars: list[dict[str, Any]], ring: int = 0
) -> Plan:
    """Lay out workloads: base inputs one after another, live inputs and outputs over each other.

    `scalars` gives each workload's scalar inputs by name; `ring` is how many slots a ring should
    have, as far as `RING_BYTES` and `RESULT_BYTES` hold them. KeyError when a scalar or an axis
    is missing.
    """
    bases, spans, start = [], [], 0
    for sizes, values in zip(axes, scalars, strict=True):
        entries, end = _entries(definition, definition.inputs, sizes, values, start)
        bases.append((start, entries))
        spans.append(end - start)
        start = end
    largest = max(spans)
    room = ring_bytes(largest, ring)
    calls = []
    for (first, base), span, sizes in zip(bases, spans, axes, strict=True):
        outputs, end = _entries(definition, definition.outputs, sizes, {}, BAND, gap=BAND)
        calls.append(
            Call(
                base=base,
                live=tuple(_moved(e, start - first) for e in base),
                outputs=outputs,
                base_start=first,
                live_start=start,
                span=span,
                reach=end,
                slots=min(ring, room // span, RESULT_BYTES // end) if span else 0,
            )
        )
    output_bytes = max(c.reach * (1 + c.slots) for c in calls)
    return Plan(tuple(calls), start + largest + room, output_bytes)


def ring_bytes(largest: int, slots: int) -> int:
    """Bytes of a ring of `slots` sets of inputs, the largest of which takes `largest`."""
    return min(RING_BYTES, slots * largest)


def view(block: Any, entry: Entry) -> Any:
    """The argument of `entry`: a tensor over the uint8 tensor `block`, or the scalar itself."""
    import torch

    if entry.shape is None:
        return entry.value
    dtype = getattr(torch, entry.dtype)
    return block[entry.offset : entry.offset + entry.nbytes].view(dtype).view(entry.shape)


def _entries(
    definition: Definition, specs: dict[str, Any], axes: dict[str, int], values: dict[str, Any],
    start: int, gap: int = 0,
) -> tuple[tuple[Entry, ...], int]:  # fmt: skip
    entries = []
    for name, spec in specs.items():
        if spec.shape is None:
            entries.append(Entry(name=name, dtype=spec.dtype, value=values[name]))
            continue
        shape = definition.shape_of(spec, axes)
        entries.append(Entry(name=name, dtype=spec.dtype, shape=shape, offset=start))
        start += -(-entries[-1].nbytes // ALIGNMENT) * ALIGNMENT + gap
    return tuple(entries), start


class Block(Protocol):
    """Shared memory. `tensor` is the owner's uint8 view of it."""

    tensor: Any
    nbytes: int

    def share(self) -> tuple[dict[str, Any], list[int]]:
        """What `attach` needs in the other process: JSON, and descriptors to send beside it."""

    def seal(self) -> None:
        """No process that attaches from now on can write, but the owner; CPU only."""

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


def allocate(device: str, nbytes: int, old: Block | None = None, reserve: int = 0) -> Block:
    """A block of at least `nbytes`. On CUDA `old` is used again when it is large enough, and grows
    at least twofold otherwise, so that what torch still holds never exceeds the newest block; the
    first one has `reserve` bytes, if that is more."""
    if device == "cpu":
        if old is not None:
            old.close()
        return HostBlock(nbytes)
    if old is not None:
        if old.nbytes >= nbytes:
            return old
        nbytes = max(nbytes, 2 * old.nbytes)
        old.close()
    return CudaBlock(max(nbytes, reserve))


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
