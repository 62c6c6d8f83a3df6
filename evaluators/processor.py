"""The host's processor as Linux describes it: name, cores, vector instructions, caches."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

_VECTORS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq"),
    *("avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
"""Instruction sets that matter to a kernel, x86 then ARM, as /proc/cpuinfo spells them."""


BUSY = 0.2
"""Share of the cores' time taken by others from which on latencies mean little."""


def name() -> str:
    """The model's name, as far as the system says."""
    return _line("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def vectors() -> tuple[str, ...]:
    """Vector instruction sets; empty where the system does not say."""
    have = set((_line("flags") or _line("Features")).split())
    return tuple(v for v in _VECTORS if v in have)


def caches() -> dict[str, int]:
    """Bytes of the first core's data caches by level (`L1`, `L2`, ...), shared ones in whole."""
    found = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = (
                (index / part).read_text().strip() for part in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}"] = int(size[:-1]) * 1024
    return found


def busy(seconds: float = 0.25) -> float:
    """Share of all cores' time that was not idle in the next `seconds`; 0.0 where unknown."""
    before = _times()
    time.sleep(seconds)
    spent = [b - a for a, b in zip(before, _times(), strict=True)]
    return 1 - sum(spent[3:5]) / sum(spent) if sum(spent) else 0.0


def _times() -> list[int]:
    """The first line of proc(5)'s stat: user, nice, system, idle, waiting for disks, ..."""
    return (
        [int(n) for n in _STAT.read_text().splitlines()[0].split()[1:9]] if _STAT.exists() else []
    )


def _line(key: str) -> str:
    if not _INFO.exists():
        return ""
    for line in _INFO.read_text().splitlines():
        if line.partition(":")[0].strip() == key:
            return line.partition(":")[2].strip()
    return ""
