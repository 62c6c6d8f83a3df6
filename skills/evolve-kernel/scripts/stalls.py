"""Profiles one kernel on one workload with NVIDIA's `ncu`, and says what it found in a few lines.

python stalls.py workloads PATH                        # the report grid, numbered
python stalls.py command PATH --workload 3             # prints the ncu command; run it on the GPU
python stalls.py read profile.csv                      # stalls, dram, tensor cores, registers

PATH is a run, a champion's folder or a solution.json; `--program ID` takes any program of a run.
`launch`, which the command calls, runs the kernel in this process, unguarded, with your rights.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTIONS = (
    "SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "LaunchStats",
    "Occupancy", "WarpStateStats",
)  # fmt: skip
EXTRA = (
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
)
"""Metrics asked for by name, since sections of `ncu` versions differ in them."""

TIME = "gpu__time_duration.sum"
PERCENT = {
    "dram": (
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
        "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    ),
    "L2": ("lts__throughput.avg.pct_of_peak_sustained_elapsed",),
    "SM": ("sm__throughput.avg.pct_of_peak_sustained_elapsed",),
    "tensor": (
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
        "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    ),
    "warps": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
}
"""Shares of the peak by short name: the first metric that is there counts."""
LAUNCH = {
    "registers a thread": "launch__registers_per_thread",
    "threads a block": "launch__block_size",
    "blocks": "launch__grid_size",
    "waves": "launch__waves_per_multiprocessor",
}
STALL, STALL_END = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
"""Warps that wait for one reason, on average over the cycles in which one issues."""
SECONDS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "s": 1.0}
"""By the first letter of a unit: ns, nsecond, us, ms, s, second."""
ADVICE = {
    "long_scoreboard": "waits for global memory: more loads under way, earlier, or fewer",
    "short_scoreboard": "waits for shared memory: bank conflicts, or use registers",
    "barrier": "waits at barriers: fewer, or more independent blocks on an SM",
    "mio_throttle": "shared-memory queue full: wider accesses",
    "lg_throttle": "load queue full: wider loads, or TMA",
    "math_pipe_throttle": "arithmetic pipe full: less arithmetic, or tensor cores",
    "wait": "fixed latencies: more independent instructions",
    "gmma": "waits for wgmma: more stages, or it is the limit",
    "no_instruction": "instruction cache: shorter unrolled code",
    "membar": "memory fences: fewer",
    "sleeping": "nanosleep or a polled barrier",
}


@dataclass
class Kernel:
    """All launches of one kernel. `percent` and `stalls` are means weighted by time."""

    name: str
    launches: int = 0
    seconds: float = 0.0
    percent: dict[str, float] = field(default_factory=dict)
    launch: dict[str, float] = field(default_factory=dict)
    stalls: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: float, row: dict[str, float]) -> None:
        """Count one launch; `row` is metric -> value."""
        for name, metrics in PERCENT.items():
            value = next((row[m] for m in metrics if m in row), None)
            if value is not None:
                self.percent[name] = self._mean(self.percent.get(name, value), seconds, value)
        for metric, value in row.items():
            if metric.startswith(STALL) and metric.endswith(STALL_END):
                reason = metric.removeprefix(STALL).removesuffix(STALL_END)
                self.stalls[reason] = self._mean(self.stalls.get(reason, value), seconds, value)
        self.launch |= {name: row[m] for name, m in LAUNCH.items() if m in row}
        self.seconds += seconds
        self.launches += 1

    def _mean(self, mean: float, seconds: float, value: float) -> float:
        total = self.seconds + seconds
        return (mean * self.seconds + value * seconds) / total if total else value

    def top_stalls(self, count: int = 3) -> list[tuple[str, float]]:
        """(reason, share of all waiting) of the reasons that cost most."""
        waits = {r: v for r, v in self.stalls.items() if r not in {"selected", "not_selected"}}
        total = sum(waits.values())
        ranked = sorted(waits.items(), key=lambda item: -item[1])[:count]
        return [(reason, value / total) for reason, value in ranked if total and value > 0]


def read(text: str) -> list[Kernel]:
    """Kernels of an `ncu --csv --page raw` output, the one that takes longest first.

    Lines before the header are the program's own; the row after it holds units. ValueError: there
    is no such table.
    """
    rows = csv.reader(_table(text.splitlines()))
    header = next(rows)
    units = dict(zip(header, next(rows, []), strict=False))
    found: dict[str, Kernel] = {}
    for values in rows:
        row = dict(zip(header, values, strict=False))
        if not row.get("ID"):
            continue
        numbers = {k: n for k, v in row.items() if (n := _number(v)) is not None}
        scale = SECONDS.get(units.get(TIME, "n")[:1], 1e-9)
        kernel = found.setdefault(row["Kernel Name"], Kernel(row["Kernel Name"]))
        kernel.add(numbers.get(TIME, 0.0) * scale, numbers)
    return sorted(found.values(), key=lambda kernel: -kernel.seconds)


def _table(lines: list[str]) -> Iterable[str]:
    for at, line in enumerate(lines):
        if line.startswith('"ID",') and '"Kernel Name"' in line:
            return [x for x in lines[at:] if x.startswith('"')]
    raise ValueError("no table of `ncu --csv --page raw` in it")


def _number(text: str) -> float | None:
    """`1,234.5` -> 1234.5; None for `n/a` and names."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def lines(kernels: list[Kernel]) -> list[str]:
    """The summary for people."""
    total = sum(kernel.seconds for kernel in kernels)
    found = []
    for kernel in kernels:
        share = f", {kernel.seconds / total:.0%} of the time" if total else ""
        found.append(f"{kernel.name}: {kernel.launches}x, {kernel.seconds * 1e6:.1f} us{share}")
        peaks = [f"{name} {value:.0f}%" for name, value in kernel.percent.items()]
        found.append("  of peak: " + (", ".join(peaks) or "not measured"))
        found.append("  " + ", ".join(f"{n} {v:g}" for n, v in kernel.launch.items()))
        for reason, part in kernel.top_stalls():
            advice = f": {ADVICE[reason]}" if reason in ADVICE else ""
            found.append(f"  {part:.0%} of stalls {reason}{advice}")
    return found


# -- running one kernel -----------------------------------------------------------------------


def _given(path: Path, program: str | None) -> tuple[Any, Any, Any]:
    """(solution, operator, definition) of what is to be profiled; UserError when it is absent."""
    from evolve.errors import UserError
    from evolve.store import Store
    from evolve.verification import subject

    if program is None:
        given = subject.read(path)
        return given.solution, given.operator, given.definition
    store = Store.open(path, readonly=True)
    try:
        if not store.has(program):
            raise UserError(f"{path} has no program {program}")
        solution = store.program(program).solution
    finally:
        store.close()
    return solution, *subject.known(solution.definition)


def grid(operator: Any, definition: Any, device: str) -> list[Any]:
    """The workloads of the report grid."""
    from evaluators.workloads import report_grid

    return report_grid(operator, definition, device)


def launch(solution: Any, operator: Any, workload: Any, definition: Any, device: str) -> None:
    """Build the solution, call it once to warm up, and once between the profiler's marks."""
    import torch

    from evaluators.builders import builder_for
    from evaluators.catalog import load_module
    from evaluators.draws import named_scalars

    module, document = load_module(operator), definition.model_dump(mode="json")
    made = module.make_inputs(
        document, workload.axes, workload.make, named_scalars(workload),
        torch.Generator(device).manual_seed(workload.seed), device,
    )  # fmt: skip
    inputs = [made[name] for name in definition.inputs]
    outputs = [
        torch.empty(
            definition.shape_of(spec, workload.axes),
            dtype=getattr(torch, spec.dtype),
            device=device,
        )
        for spec in definition.outputs.values()
    ]
    with tempfile.TemporaryDirectory(prefix="tilevolve-profile-") as folder:
        built = builder_for(solution.spec.language).build(solution, Path(folder), device)
        built.call(*inputs, *outputs)
        if device != "cuda":
            built.call(*inputs, *outputs)
            return
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        built.call(*inputs, *outputs)
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def command(path: Path, program: str | None, workload: int, out: Path) -> str:
    """The ncu command line for one kernel on one workload."""
    sections = [word for name in SECTIONS for word in ("--section", name)]
    own = [sys.executable, str(Path(__file__).resolve()), "launch", str(path)]
    chosen = ["--program", program] if program else []
    words = [
        "ncu", "--csv", "--page", "raw", "--print-units", "base", "--profile-from-start", "off",
        *sections, "--metrics", ",".join(EXTRA), "--log-file", str(out), *own, *chosen,
        "--workload", str(workload),
    ]  # fmt: skip
    return shlex.join(words)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("read").add_argument("file", type=Path)
    for name in ("workloads", "command", "launch"):
        action = actions.add_parser(name)
        action.add_argument("path", type=Path)
        action.add_argument("--program")
        action.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
        action.add_argument("--workload", type=int, default=0)
        action.add_argument("--out", type=Path, default=Path("profile.csv"))
    options = parser.parse_args(arguments)
    from evaluators.catalog import CatalogError
    from evolve.errors import UserError
    from evolve.export import ExportError

    try:
        return _act(options)
    except (UserError, ExportError, CatalogError, ValueError, OSError) as error:
        print(f"stalls: {error}", file=sys.stderr)
        return 2


def _act(options: argparse.Namespace) -> int:
    if options.action == "read":
        print("\n".join(lines(read(options.file.read_text()))))
        return 0
    solution, operator, definition = _given(options.path, options.program)
    points = grid(operator, definition, options.device)
    if not 0 <= options.workload < len(points):
        raise ValueError(f"--workload takes 0 to {len(points) - 1}")
    if options.action == "workloads":
        print("\n".join(f"{at}  {point.label}" for at, point in enumerate(points)))
    elif options.action == "command":
        print(command(options.path, options.program, options.workload, options.out))
    else:
        launch(solution, operator, points[options.workload], definition, options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
