"""The first step: where all this was measured, so that a reader can judge what it is worth."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from evaluators import processor
from evolve.verification.record import Outcome, Step

_ASKED = (
    "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
    "temperature.gpu", "power.limit", "utilization.gpu", "mig.mode.current",
)  # fmt: skip


def describe(device: str, facts: Mapping[str, Any]) -> Step:
    """The environment as a step; `facts` are the evaluator's. It tells, and convicts nobody."""
    found: dict[str, Any] = {
        k: v for k, v in facts.items() if isinstance(v, str | int | float) and k not in _SPENT
    }
    ceilings = facts.get("ceilings") or {}
    found["copy_gbps"] = ceilings.get("copy_gbps")
    found |= {f"tflops_{k}": v for k, v in (ceilings.get("tflops") or {}).items()}
    found |= {f"{k}_version": v for k, v in (facts.get("versions") or {}).items()}
    found["tilevolve_version"] = version()
    found["system"] = f"{platform.system()} {platform.release()}"
    found |= _cpu() if device == "cpu" else _gpu()
    notes = [
        f"candidates are not kept from {what}: {facts[key]}"
        for key, what in (("network", "the network"), ("files", "other files"))
        if str(facts.get(key, "isolated")) != "isolated"
    ]
    busy = found.get("busy_share")
    if isinstance(busy, float) and busy > processor.BUSY:
        notes.append(f"others take {busy:.0%} of the machine's cores: latencies mean little")
    return Step(
        name="environment",
        outcome=Outcome.PASSED,
        summary=f"{facts.get('name', device)}, torch {found.get('torch_version', '?')}",
        notes=tuple(notes),
        facts={k: v for k, v in found.items() if v is not None},
    )


_SPENT = ("busy_s", "idle_s")


def version() -> str | None:
    """Tilevolve's own version; None where it is used from its folder without being installed."""
    try:
        return metadata.version("tilevolve")
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "busy_share": round(processor.busy(), 2),
        "governor": governor.read_text().strip() if governor.is_file() else None,
    }


def _gpu() -> dict[str, Any]:
    """What nvidia-smi says of this machine's first GPU; nothing where it is absent."""
    line = _said("nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader")
    values = [value.strip() for value in (line or "").split(",")]
    found: dict[str, Any] = {}
    if len(values) == len(_ASKED):
        found = dict(zip((name.replace(".", "_") for name in _ASKED), values, strict=True))
    return found


def _said(program: str, *arguments: str) -> str | None:
    """The first line of a program's output; None when it is absent or fails."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else None
