"""A CUDA device that is not there: enough of one to compile for it, nothing runs on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from evaluators.builders.base import BuildError

DEVICES = {
    80: SimpleNamespace(name="A100", multi_processor_count=108, shared=166912, l2=40 << 20),
    89: SimpleNamespace(name="L40S", multi_processor_count=142, shared=101376, l2=96 << 20),
    90: SimpleNamespace(name="H200", multi_processor_count=132, shared=232448, l2=50 << 20),
    100: SimpleNamespace(name="B200", multi_processor_count=148, shared=232448, l2=126 << 20),
}
"""By compute capability: what host code asks of a device. `shared`: most bytes a block may use."""


def capability_of(target: str) -> int:
    """90 for `sm_90` or `sm_90a`. BuildError for another text or an unknown architecture."""
    match = re.fullmatch(r"sm_(\d+)a?", target)
    number = int(match[1]) if match else 0
    if number not in DEVICES:
        known = ", ".join(f"sm_{n}" for n in DEVICES)
        raise BuildError(f"unknown target {target!r}; known: {known}")
    return number


def shared_limit(target: str) -> int:
    """Most bytes of shared memory a block may use on `target`."""
    return int(DEVICES[capability_of(target)].shared)


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """`owner` with some attributes replaced until the block ends."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def torch_device(target: str) -> Iterator[None]:
    """torch.cuda answers questions about `target` (processor count, capability, current stream)."""
    import torch

    number = capability_of(target)
    facts = DEVICES[number]
    properties = SimpleNamespace(
        name=facts.name,
        major=number // 10,
        minor=number % 10,
        multi_processor_count=facts.multi_processor_count,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=facts.shared,
        shared_memory_per_multiprocessor=facts.shared + 1024,
        L2_cache_size=facts.l2,
        total_memory=80 << 30,
        warp_size=32,
        max_threads_per_multi_processor=2048,
    )
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    with ExitStack() as stack:
        stack.enter_context(
            replaced(
                torch.cuda,
                is_available=lambda: True,
                device_count=lambda: 1,
                current_device=lambda: 0,
                current_stream=lambda device=None: stream,
                get_device_capability=lambda device=None: (number // 10, number % 10),
                get_device_name=lambda device=None: facts.name,
                get_device_properties=lambda device=None: properties,
                is_current_stream_capturing=lambda: False,
                synchronize=lambda device=None: None,
            )
        )
        yield
