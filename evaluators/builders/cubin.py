"""What a compiled CUDA binary says about its kernels, through cuobjdump (NVIDIA, optional)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_USAGE = re.compile(
    r"Function (?P<name>[^:\s]+):\s+REG:(?P<reg>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+)"
)


@dataclass(frozen=True)
class KernelUsage:
    """One kernel: registers a thread, bytes of stack a thread, bytes of static shared memory."""

    name: str
    registers: int
    stack_bytes: int
    shared_bytes: int


def usage(files: Iterable[Path]) -> list[KernelUsage]:
    """Usage of every kernel in the cubin files; empty where cuobjdump is missing or fails."""
    tool = _cuobjdump()
    found = []
    for file in files if tool else ():
        done = subprocess.run(
            [str(tool), "-res-usage", str(file)], capture_output=True, text=True, check=False
        )
        found += [
            KernelUsage(m["name"], int(m["reg"]), int(m["stack"]), int(m["shared"]))
            for m in _USAGE.finditer(done.stdout + done.stderr)
        ]
    return found


def _cuobjdump() -> Path | None:
    """The tool on PATH or the one that comes with Triton."""
    found = shutil.which("cuobjdump")
    if found:
        return Path(found)
    try:
        import triton
    except ImportError:
        return None
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return bundled if bundled.exists() else None
