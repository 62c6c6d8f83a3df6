"""Whether claimed latencies can be true: by the judge's clock, and by what the device can do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators import processor
from evaluators.latency import Paired, Side

HIDDEN_SHARE = 0.25
"""Part of the claimed latency that a call may take beside it, beyond what the anchor's does."""

HIDDEN_MS = {"cpu": 0.5, "cuda": 0.3}
"""The same in milliseconds per call, for short ones: messages and launches vary by that much."""

QUEUED = 4.0
"""A round's wait for a processor that is nobody's fault, over the anchor's average."""

MATRIX_MARGIN = 1.6
"""A device's matrix rate over what an ordinary matrix product reached when it was measured."""

BANDWIDTH_MARGIN = 1.25
"""A device's memory bandwidth over what a copy reached: reading alone is faster."""

CPU_HZ = 5.5e9
"""No core is clocked higher."""

CPU_CACHE_BYTES = 128
"""Bytes that a core loads from its nearest cache in one cycle: two vectors of 512 bits."""


@dataclass(frozen=True)
class Ceiling:
    """What a device cannot exceed. `cached_bytes` may be there already when a call starts."""

    flops: float
    bytes_per_s: float
    cached_bytes: float = 0.0

    def floor_ms(self, cost: tuple[float, float]) -> float:
        """Least latency of a job of `cost` (flops, least bytes)."""
        flops, least = cost
        moved = max(0.0, least - self.cached_bytes)
        return 1e3 * max(flops / self.flops, moved / self.bytes_per_s)


def ceiling(facts: dict[str, Any], dtypes: set[str]) -> Ceiling:
    """The ceiling of a device, from its `facts` with `ceilings`, for a job on inputs of `dtypes`.

    On the CPU the arithmetic of its vector units: what is measured there depends on the neighbours.
    """
    if facts["kind"] == "cpu":
        cores = facts["cores"]
        return Ceiling(cores * CPU_HZ * _flops_per_cycle(), cores * CPU_HZ * CPU_CACHE_BYTES)
    measured = facts["ceilings"]
    # Wider types can be made of several narrow products, so that the fastest type counts for all.
    fastest = max(measured["tflops"].values(), default=math.inf) * 1e12
    if any(name.startswith("float8") for name in dtypes):
        fastest *= 2.0
    return Ceiling(
        MATRIX_MARGIN * fastest,
        BANDWIDTH_MARGIN * measured["copy_gbps"] * 1e9,
        2.0 * facts.get("l2_bytes", 0),
    )


def below_floor(latency_ms: float, cost: tuple[float, float], device: Ceiling) -> str:
    """'' or why nothing on this device takes so little time for the job."""
    floor = device.floor_ms(cost)
    if latency_ms >= floor:
        return ""
    return (
        f"{latency_ms:.4g} ms is less than this device can take for {cost[0]:.4g} operations and "
        f"{cost[1]:.4g} bytes: {floor:.4g} ms"
    )


def hidden(paired: Paired, device: str, cores: int) -> str:
    """'' or how the candidate's claims contradict what the judge saw.

    A round takes longer than its calls claim: messages, copies, waiting for the device. On the CPU
    its process spends processor time on messages too, beyond what `cores` could spend in the
    claimed time. How much of either is normal, the anchor's rounds say.
    """
    ours, theirs = paired.candidate, paired.anchor
    if float(_beside(ours).min()) < 0:
        return "the claimed latency exceeds the time that the judge waited for it"
    claim = ours.median_ms
    allowed = max(HIDDEN_SHARE * claim, HIDDEN_MS[device])
    common = QUEUED * float(theirs.queued_ms.mean())
    excess = _typical(_unexplained(ours, common), ours)
    excess -= _typical(_unexplained(theirs, common), theirs)
    if excess > allowed:
        return (
            f"a call claims {claim:.4g} ms but takes {excess:.4g} ms more than that by the judge's "
            f"clock (at most {allowed:.4g} ms are normal): it works outside the measured time"
        )
    allowed = max(cores * HIDDEN_SHARE * claim, HIDDEN_MS[device])
    normal = max(0.0, _unclaimed(theirs, cores))  # unused cores leave less than 0
    excess = _unclaimed(ours, cores) - normal
    if device == "cpu" and excess > allowed:
        return (
            f"a call claims {claim:.4g} ms but its process spends {excess:.4g} ms of processor "
            f"time beyond that (at most {allowed:.4g} are normal): it works outside the measured "
            "time"
        )
    return ""


def _typical(values: Any, side: Side) -> float:
    """The lower quartile of what rounds in the faster half have come to.

    Who hides time has to do so in half of the calls at least to move the median, and those are the
    fast ones. A busy machine delays some rounds by chance, but hardly three quarters of them.
    """
    claims = side.samples.sum(axis=1)[: len(values)]
    faster = np.argsort(claims)[: (len(claims) + 1) // 2]
    return float(np.quantile(values[faster], 0.25))


def _beside(side: Side) -> Any:
    """Milliseconds per call that each round took beside what it claims, shape [rounds]."""
    return (side.walls_ms - side.samples.sum(axis=1)) / side.samples.shape[1]


def _unexplained(side: Side, common: float) -> Any:
    """`_beside` without waiting for a processor, shape [rounds].

    Waiting is the judge's, and up to `common` ms a round of its own, since a candidate can make its
    first thread wait for others. Where the processor time of a round is known, nothing beyond what
    the claims leave of it was work, however long it took.
    """
    calls = side.samples.shape[1]
    waited = (side.late_ms + np.minimum(side.queued_ms, common)) / calls
    worked = np.fmax(0.0, side.spent_ms - side.samples.sum(axis=1)) / calls
    beside = _beside(side)
    left = np.fmin(beside - waited, np.where(np.isnan(side.spent_ms), np.inf, worked))
    return np.where(beside > 0, np.maximum(0.0, left), beside)


def _unclaimed(side: Side, cores: int) -> float:
    """Milliseconds of processor time per call that the claimed time does not explain.

    The mean over all rounds: a thread left behind works whenever it gets a processor, in whichever
    round that is, and waiting for one, which spoils single rounds, costs none of this time.
    """
    worked = side.spent_ms.sum() + side.idle_ms.sum()
    return float((worked - cores * side.samples.sum()) / side.samples.size)


def _flops_per_cycle() -> float:
    """Float32 operations of a core in one cycle: two fused multiply-adds of its widest vectors."""
    vectors = processor.vectors()
    if "amx_tile" in vectors:
        return 2048.0  # bfloat16 tiles, which a float32 product can be split into
    return 64.0 if "avx512f" in vectors else 32.0
