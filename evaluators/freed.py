"""Memory that a candidate's process has freed is poisoned in judged calls; how much it still holds.

A kernel that reads a workspace before it writes it works by luck, because new memory is often zero
or what the last call left. In judged calls it finds numbers that spoil every sum.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from typing import Any

from evaluators import processes

_M_PERTURB = -6
"""<malloc.h>: malloc fills what it gives out with the complement of this byte."""

_PERTURB = 0xC0
"""Freed memory reads -6.02 in float32 (-8578 in float64, -6 in bfloat16), new memory 0.747 (4.8e-4,
0.746): small blocks are handed out again as they were freed, so that both have to spoil a sum."""

_NAN = 0xFF
_SMALL = 1 << 20
"""Bytes; torch serves requests up to this size from segments of their own."""


@contextlib.contextmanager
def poisoned(device: str) -> Iterator[None]:
    """Memory allocated inside holds no zeros and nothing that a call before has left there."""
    if device != "cpu":
        _fill_inactive()
        yield
        return
    _perturb(_PERTURB)
    try:
        yield
    finally:
        _perturb(0)


def held(device: str) -> dict[str, int]:
    """Bytes that the calling process holds now, and its peak: RAM, or torch's device memory."""
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return {"held": processes.resident_bytes(os.getpid()), "peak": peak}
    import torch

    return {"held": torch.cuda.memory_allocated(), "peak": torch.cuda.max_memory_allocated()}


def _perturb(value: int) -> None:
    # Another C library than glibc has no such thing.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_PERTURB, value)


def _fill_inactive() -> None:
    """Fill blocks that torch's allocator keeps for later with NaN: take each, write, give back."""
    import torch

    taken: list[Any] = []
    stream = torch.cuda.current_stream().cuda_stream
    for size in sorted(_inactive(torch.cuda.memory_snapshot(), stream), reverse=True):
        try:
            taken.append(torch.empty(size, dtype=torch.uint8, device="cuda").fill_(_NAN))
        except torch.cuda.OutOfMemoryError:
            return  # such a block is not to be had in one piece


def _inactive(segments: list[dict[str, Any]], stream: int) -> list[int]:
    """Sizes in bytes of unused blocks of `stream`, outside the private pools of captured graphs."""
    sizes = []
    for segment in segments:
        if segment.get("stream", stream) != stream:
            continue  # a request on `stream` is never served from it
        if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0):
            continue
        most = _SMALL if segment["segment_type"] == "small" else segment["total_size"]
        for block in segment["blocks"]:
            left = block["size"] if block["state"] == "inactive" else 0
            while left > 0:
                sizes.append(min(left, most))
                left -= most
    return sizes
