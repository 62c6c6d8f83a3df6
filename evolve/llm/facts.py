"""Facts that a prompt states: the interface, the device, and what limits a measured program.

Plain functions from records to lines of Markdown; nothing is read from disk here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluators.schema import (
    BuildFacts,
    Definition,
    Evaluation,
    Language,
    TensorSpec,
    Workload,
    WorkloadResult,
)

NEAR = 0.85
"""Share of a roof from which on a program counts as limited by it."""
BEYOND = 1.1
"""Share of a roof that only data from caches reaches."""
FAR = 0.5
"""Share of a roof below which neither bytes nor arithmetic can be what limits."""
HOST = 1.25
"""Eager latency over graph latency from which on the host side is worth a remark."""

Cost = tuple[float, float]
"""(flops, least bytes) of a workload."""


@dataclass(frozen=True)
class _Architecture:
    """Limits of one SM by compute capability (CUDA C++ Programming Guide, compute capabilities)."""

    shared_sm: int  # bytes
    shared_block: int
    warps: int
    features: str


_ARCHITECTURES = {
    "8.0": _Architecture(164, 163, 64, "mma.sync, cp.async; no TMA, no clusters"),
    "8.6": _Architecture(100, 99, 48, "mma.sync, cp.async; no TMA, no clusters"),
    "8.9": _Architecture(100, 99, 48, "mma.sync with FP8, cp.async; no TMA, no clusters"),
    "9.0": _Architecture(
        228, 227, 64,
        "wgmma (64 x N x 16 from shared memory), TMA, mbarriers, thread-block clusters with"
        " distributed shared memory, setmaxnreg, mma.sync, cp.async",
    ),
    "10.0": _Architecture(228, 227, 64, "tcgen05 with tensor memory, TMA, clusters, mma.sync"),
    "12.0": _Architecture(100, 99, 48, "mma.sync with FP8 and FP4, TMA, clusters; no wgmma"),
}  # fmt: skip
"""Shared memory in KiB; what other capabilities have is not stated."""

REGISTERS = 65536
"""32-bit registers of one SM, on all architectures above."""


def device_lines(device: Mapping[str, Any]) -> list[str]:
    """What the run's device is and what was measured on it."""
    lines = [f"- {device.get('name', 'unknown device')}: {_sizes(device)}"]
    ceilings = device.get("ceilings") or {}
    rates = [f"copy {ceilings['copy_gbps']:.0f} GB/s (read + written)"] if ceilings else []
    for dtype, tflops in (ceilings.get("tflops") or {}).items():
        rates.append(f"{dtype} matrix product {tflops:.3g} TFLOP/s")
    if rates:
        lines.append(f"- Measured on it, the roofs below: {', '.join(rates)}")
    known = _ARCHITECTURES.get(str(device.get("capability")))
    if known:
        lines.append(
            f"- One SM: {known.shared_sm} KiB shared memory ({known.shared_block} KiB a block), "
            f"{REGISTERS} registers (255 a thread), {known.warps} warps"
        )
        lines.append(f"- Instructions: {known.features}")
    if device.get("instructions"):
        lines.append(f"- Vector instructions (names of /proc/cpuinfo): {device['instructions']}")
    versions = device.get("versions") or {}
    tools = ("g++", "tilelang") if device.get("type") == "cpu" else ("triton", "tilelang", "nvcc")
    if builders := [f"{tool} {versions[tool]}" for tool in tools if tool in versions]:
        lines.append(f"- Kernels are built by {', '.join(builders)}")
    if device.get("caches"):
        lines.append(f"- Data caches: {device['caches']} (the last is shared by the cores)")
    return lines


def _sizes(device: Mapping[str, Any]) -> str:
    parts = []
    if device.get("multiprocessors"):
        parts.append(f"{device['multiprocessors']} SMs")
    if device.get("capability"):
        parts.append(f"compute capability {device['capability']}")
    if device.get("cores"):
        parts.append(f"{device['cores']} cores")
    if device.get("memory_bytes"):
        parts.append(f"{device['memory_bytes'] / 2**30:.0f} GiB memory")
    if device.get("l2_bytes"):
        parts.append(f"{device['l2_bytes'] / 2**20:.0f} MiB L2")
    return ", ".join(parts) or "no sizes known"


def interface_lines(definition: Definition, language: Language) -> list[str]:
    """A definition's arguments in order, as a kernel gets them."""
    fixed = ", ".join(f"{k} = {v}" for k, v in definition.const_axes.items())
    free = ", ".join(k for k, axis in definition.axes.items() if axis.type == "var")
    lines = [f"Fixed: {fixed or 'nothing'}. Set by each workload: {free or 'nothing'}."]
    lines += [f"- in {_argument(name, spec)}" for name, spec in definition.inputs.items()]
    lines += [f"- out {_argument(name, spec)}" for name, spec in definition.outputs.items()]
    lines += [f"- holds: {constraint}" for constraint in definition.constraints]
    names = [*definition.inputs, *definition.outputs]
    if language in (Language.CUDA, Language.CPP):
        scalars = [n for n, s in definition.inputs.items() if s.shape is None]
        kinds = "`tvm::ffi::TensorView`" + (
            f"; the scalars {', '.join(scalars)} are `double`, `int64_t` or `bool`"
            if scalars
            else ""
        )
        lines.append(
            f"Entry point: a function with {len(names)} parameters in this order (tensors are "
            f"{kinds}), exported by `TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Function);`."
        )
    else:
        lines.append(f"Entry point: `run({', '.join(names)})`.")
    lines.append(
        "Outputs are passed in, allocated and contiguous: write every element on every call. "
        "Inputs are contiguous and must not be changed."
    )
    return lines


def _argument(name: str, spec: TensorSpec) -> str:
    shape = "scalar" if spec.shape is None else "[" + ", ".join(spec.shape) + "]"
    text = f"`{name}`: {spec.dtype} {shape}"
    return f"{text}, {spec.description}" if spec.description else text


# -- measurements -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roof:
    """How near one result is to what the device can do, in bytes moved and in arithmetic."""

    bytes: float
    arithmetic: float

    @property
    def share(self) -> float:
        return max(self.bytes, self.arithmetic)

    @property
    def bound(self) -> str:
        return "bytes" if self.bytes >= self.arithmetic else "arithmetic"


def roof(result: WorkloadResult, cost: Cost | None, device: Mapping[str, Any]) -> Roof | None:
    """Least possible time over latency (roofline: Williams et al., CACM 52(4), 2009).

    The least time is the larger of bytes / copy bandwidth and flops / best measured matrix rate.
    """
    ceilings = device.get("ceilings") or {}
    rates = list((ceilings.get("tflops") or {}).values())
    if cost is None or not ceilings.get("copy_gbps") or not rates:
        return None
    flops, least_bytes = cost
    seconds = result.latency_ms * 1e-3
    return Roof(
        least_bytes / (ceilings["copy_gbps"] * 1e9) / seconds,
        flops / (max(rates) * 1e12) / seconds,
    )


def result_rows(
    evaluation: Evaluation,
    workloads: Mapping[str, Workload],
    costs: Mapping[str, Cost],
    device: Mapping[str, Any],
) -> list[str]:
    """A Markdown table of an evaluation's results, the one furthest from its roof first."""
    rows = []
    for result in evaluation.results:
        workload = workloads.get(result.workload)
        cost = costs.get(result.workload)
        near = roof(result, cost, device)
        size = f"{cost[1] / 1e6:.3g}" if cost else "unknown"
        share = f"{near.bytes:.0%} / {near.arithmetic:.0%}" if near else "unknown"
        text = (
            f"| {workload.label if workload else result.workload} | {size} "
            f"| {result.latency_ms * 1e3:.4g} "
            f"| {result.speedup:.3f} [{result.speedup_low:.3f}, {result.speedup_high:.3f}] "
            f"| {share} |"
        )
        rows.append((near.share if near else result.speedup, text))
    head = (
        "| workload | least MB moved | latency, us | speedup over the anchor, 95% "
        "| share of the roof: bytes / arithmetic |"
    )
    return [head, "|---|---|---|---|---|", *(text for _, text in sorted(rows, key=lambda r: r[0]))]


def build_line(build: BuildFacts | None) -> str:
    """What the compiler said of a program; empty where it said nothing."""
    if build is None:
        return ""
    parts = []
    if build.registers:
        spills = f"{build.spills} spilled" if build.spills else "none spilled"
        parts.append(f"{build.registers} registers a thread, {spills}")
    if build.shared_bytes:
        parts.append(f"{build.shared_bytes / 1024:.1f} KiB shared memory a block")
    if build.num_warps:
        parts.append(f"{build.num_warps} warps a block")
    if build.num_stages:
        parts.append(f"{build.num_stages} stages")
    if build.kernels:
        shown = ", ".join(build.kernels[:4])
        parts.append(f"{len(build.kernels)} kernel{'s' * (len(build.kernels) > 1)} ({shown})")
    return "; ".join(parts)


def limiter_lines(
    evaluation: Evaluation,
    workloads: Mapping[str, Workload],
    costs: Mapping[str, Cost],
    device: Mapping[str, Any],
) -> list[str]:
    """What holds a program back, as far as its measurements tell."""
    found = []
    for result in evaluation.results:
        near = roof(result, costs.get(result.workload), device)
        workload = workloads.get(result.workload)
        if near is not None and workload is not None:
            found.append((near.share, near.bound, workload.label))
    lines = []
    if found:
        lines.append(_limit(sorted(found)))
    if device.get("type") == "cuda":
        lines += _host_side(evaluation, workloads) + _occupancy(evaluation.build, device)
    return lines


def _limit(found: list[tuple[float, str, str]]) -> str:
    share, bound, label = found[0]
    if share > BEYOND:
        return (
            "Every workload is faster than the roofs below allow from memory: its data comes from "
            "the caches, and those roofs say nothing of what limits it."
        )
    if share >= NEAR:
        return f"Every workload is within {1 - share:.0%} of its roof: only less work can help."
    if share < FAR:
        why = (
            "far from the roofs of bytes and arithmetic: too little under way at once, dependent "
            "steps, idle cores, launches, or work done twice"
        )
    else:
        why = f"limited by {bound} with room left"
    rest = [f"{s:.0%} on {name}" for s, _, name in found[1:] if s >= NEAR]
    others = f" Near the roof already: {', '.join(rest)}." if rest else ""
    return f"Most is to be gained on {label}: {share:.0%} of the roof, {why}.{others}"


def _host_side(evaluation: Evaluation, workloads: Mapping[str, Workload]) -> list[str]:
    slow = [
        (r.eager_ms / r.graph_ms, r)
        for r in evaluation.results
        if r.eager_ms and r.graph_ms and r.eager_ms > HOST * r.graph_ms
    ]
    if not slow:
        return []
    _, worst = max(slow, key=lambda pair: pair[0])
    assert worst.eager_ms is not None
    assert worst.graph_ms is not None
    label = workloads[worst.workload].label if worst.workload in workloads else worst.workload
    return [
        f"An eager call takes {worst.eager_ms * 1e3:.1f} us where a graph replay takes "
        f"{worst.graph_ms * 1e3:.1f} us ({label}): the host side is slow, but the replay counts."
    ]


def _occupancy(build: BuildFacts | None, device: Mapping[str, Any]) -> list[str]:
    known = _ARCHITECTURES.get(str(device.get("capability")))
    if known is None or build is None or not build.num_warps:
        return []
    limits = {"warps": known.warps // build.num_warps}
    if build.shared_bytes:
        limits["shared memory"] = known.shared_sm * 1024 // (build.shared_bytes + 1024)
    if build.registers:
        limits["registers"] = REGISTERS // (build.registers * 32 * build.num_warps)
    by = min(limits, key=lambda name: limits[name])
    return [
        f"At most {limits[by]} blocks ({limits[by] * build.num_warps} warps) fit on an SM at once, "
        f"limited by {by}."
    ]
