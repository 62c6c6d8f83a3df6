"""Where candidates run: which device there is, what it is called, and what it can do at best.

CUDA goes through `torch.cuda` alone (events, memory, properties), so that a vendor's compatible
stack such as MetaX MACA serves too.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from evaluators import processor

DeviceKind = Literal["cuda", "cpu"]

_MIB = 1 << 20
_PACKAGES = ("torch", "triton", "tilelang", "apache-tvm-ffi", "numpy")


class DeviceError(Exception):
    """The device that was asked for is not there; one clear line."""


def pick(name: str) -> DeviceKind:
    """`auto`, `cuda` or `cpu` to a device that exists. Imports torch. Raises DeviceError."""
    if name == "cpu":
        return "cpu"
    if name not in ("auto", "cuda"):
        raise DeviceError(f"unknown device {name!r}; choose auto, cuda or cpu")
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise DeviceError("no CUDA device is available to torch on this machine; use --device cpu")
    return "cpu"


def default_slots(device: str) -> int:
    """Evaluations that may overlap: on the CPU one, because a build disturbs what is timed."""
    return 1 if device == "cpu" else max(1, min(12, (os.cpu_count() or 2) * 3 // 4))


def default_memory_bytes(slots: int) -> int:
    """Host memory for one candidate: an even share of the machine's, between 2 and 16 GiB."""
    return max(2 << 30, min(16 << 30, host_bytes() // (slots + 2)))


def host_bytes() -> int:
    """RAM of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def input_bytes(device: str, fraction: float) -> int:
    """Bytes that one epoch's inputs may take: `fraction` of the device's memory.

    On the CPU that is the memory now available, of which the candidate needs a part as well.
    """
    if device == "cpu":
        return int(_available_bytes() * fraction / 2)
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory * fraction)


def facts(device: str) -> dict[str, Any]:
    """Name and sizes of the device: strings and numbers for tables and records."""
    if device == "cpu":
        return {
            "kind": "cpu",
            "name": processor.name(),
            "cores": processor.cores(),
            "memory_bytes": host_bytes(),
            "instructions": " ".join(processor.vectors()),
            "caches": ", ".join(f"{k} {v >> 10} KiB" for k, v in processor.caches().items()),
        }
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "kind": "cuda",
        "name": properties.name,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", 0),
        "runtime": str(torch.version.cuda or ""),
    }


def versions() -> dict[str, str]:
    """Versions of what builds and runs kernels, as far as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def ceilings(device: str, dtypes: tuple[str, ...] = ("float32",)) -> dict[str, Any]:
    """What this device reaches at best: `copy_gbps` (bytes read + written), `tflops` by dtype.

    Measured with a large copy and a square matrix product; less than half a second.
    """
    import torch

    nbytes = 256 * _MIB if device == "cpu" else 1024 * _MIB
    source = torch.ones(nbytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = _best_seconds(partial(target.copy_, source), device)
    copy_gbps = 2 * nbytes / seconds / 1e9
    tflops = {}
    del source, target
    size = 1024 if device == "cpu" else 8192
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        if not kind.is_floating_point or kind.itemsize == 1:
            continue
        a = torch.randn(size, size, device=device).to(kind)
        b = torch.randn(size, size, device=device).to(kind)
        c = torch.empty_like(a)
        seconds = _best_seconds(partial(torch.matmul, a, b, out=c), device)
        tflops[dtype] = 2 * size**3 / seconds / 1e12
    if device != "cpu":
        torch.cuda.empty_cache()
    return {"copy_gbps": copy_gbps, "tflops": tflops}


def _best_seconds(call: Callable[[], Any], device: str) -> float:
    """Median seconds of a call, out of as many as fit into a tenth of a second."""
    call()
    samples: list[float] = []
    if device == "cpu":
        end = time.perf_counter() + 0.1
        while len(samples) < 3 or (time.perf_counter() < end and len(samples) < 50):
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
        return statistics.median(samples)
    import torch

    for _ in range(15):
        start_event = torch.cuda.Event(enable_timing=True)
        end_event = torch.cuda.Event(enable_timing=True)
        start_event.record()
        call()
        end_event.record()
        torch.cuda.synchronize()
        samples.append(start_event.elapsed_time(end_event) / 1e3)
    return statistics.median(samples)


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return host_bytes()
