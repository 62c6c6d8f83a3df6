"""What the engine costs beside the evaluations: archive, throughput, disk and memory.

`python benchmarks/engine.py` prints a table with targets, `--json` the same for machines. The whole
run is a real one (Ray islands, emitters, store on disk) whose evaluator measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import archive
from benchmarks.noop_evaluator import spawn
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile
from evolve import cluster
from evolve.config import parse
from evolve.engine import Engine
from evolve.pool import EvaluatorPool
from evolve.progress import Progress
from evolve.store import Store

MEMORY_AT = (0.25, 1.0)
"""Shares of the run at which the driver's memory is read."""

SOURCE = '''\
"""A kernel of eight tunables: 25,920 programs, more than a run evaluates."""
import triton

BLOCK_M = 16  # tune: 16 32 64 128
BLOCK_N = 32  # tune: 32 64 128 256
BLOCK_K = 32  # tune: 32 64 128
SPLIT_K = 1  # tune: 1 2 4 8
NUM_STAGES = 2  # tune: 1 2 3 4 5
NUM_WARPS = 4  # tune: 2 4 8
GROUP_M = 1  # tune: 1 4 8
UNROLL = 1  # tune: 1 2 4


def helper(x):
    return x + 1


def run(x, output):
    output.copy_(helper(x))
'''


@dataclass(frozen=True)
class Figure:
    """One measured number. Its target is `most` or `least`; without either it is only shown."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least

    @property
    def target(self) -> str:
        if self.most is not None:
            return f"at most {self.most:g}"
        return "" if self.least is None else f"at least {self.least:g}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Engine cost: archive, throughput, disk and memory, beside their targets.",
        epilog="Example: python benchmarks/engine.py --json",
    )
    parser.add_argument("--evaluations", type=int, default=2000, help="of the whole run")
    parser.add_argument("--islands", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=8, help="evaluations at once")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(archive.SIZES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    # The run first: what the archive part leaves behind would count as the driver's memory.
    with tempfile.TemporaryDirectory(prefix="tilevolve-bench-") as folder:
        run = run_figures(
            Path(folder) / "run",
            options.evaluations,
            options.islands,
            options.in_flight,
            options.seed,
        )
    figures = archive_figures(tuple(options.sizes), options.seed) + run
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    if options.json:
        print(json.dumps(document(settings, figures), indent=2))
    else:
        show(settings, figures)


def archive_figures(sizes: tuple[int, ...], seed: int) -> list[Figure]:
    """Medians of adding to and sampling an archive, at each number of programs."""
    figures = []
    for cost in archive.measure(sizes, seed):
        at = f"{cost.programs:,} programs"
        figures.append(Figure(f"archive add at {at}", cost.add_us, "us", most=100))
        figures.append(Figure(f"elite sampling at {at}", cost.sample_us, "us", most=50))
        figures.append(Figure(f"parent selection at {at}", cost.select_us, "us", most=50))
    return figures


def run_figures(
    run_dir: Path, evaluations: int, islands: int, in_flight: int, seed: int
) -> list[Figure]:
    """A whole run with the no-op evaluator and its store in `run_dir`. Ray's start is not timed."""
    cluster.start()
    memory = _Memory(evaluations)
    with closing(Store.create(run_dir, {"operator": "toy", "definition": "toy_f32"})) as store:
        engine = _engine(store, evaluations, islands, in_flight, seed, memory)
        start = time.perf_counter()
        reason = engine.run()
        seconds = time.perf_counter() - start
        if reason != "budget":
            raise SystemExit(f"the run ended early: {reason}")
        rows = [row for row in store.evaluations() if row.kind != "seed"]
        programs = sum(1 for _ in store.programs())
        live_bytes = _disk_bytes(run_dir)
        engine.pool.close()
    early, late = memory.bytes_at
    last = rows[-max(2, len(rows) // 4) :]
    return [
        Figure("whole run", len(rows) / seconds, "evaluations/s", least=150),
        Figure("its last quarter", _rate([r.at for r in last]), "evaluations/s", least=150),
        Figure("disk, write-ahead log included", live_bytes / programs / 1e3, "kB/program", 8),
        Figure("disk once closed", _disk_bytes(run_dir) / programs / 1e3, "kB/program", 8),
        Figure("driver memory at 25%", early / 2**20, "MiB"),
        Figure("driver memory at 100%", late / 2**20, "MiB", most=round(1.1 * early / 2**20, 1)),
    ]


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / max(1e-9, times[-1] - times[0])


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Memory:
    """Reads this process's resident bytes as the run passes `MEMORY_AT`."""

    def __init__(self, evaluations: int) -> None:
        self._marks = [share * evaluations for share in MEMORY_AT]
        self._read: list[int] = []

    def __call__(self, progress: Progress) -> None:
        while len(self._read) < len(self._marks) and progress.done >= self._marks[len(self._read)]:
            self._read.append(psutil.Process().memory_info().rss)

    @property
    def bytes_at(self) -> list[int]:
        return self._read


def _engine(
    store: Store,
    evaluations: int,
    islands: int,
    in_flight: int,
    seed: int,
    watch: Callable[[Progress], None],
) -> Engine:
    config = parse(
        {
            "operator": "toy",
            "seed": seed,
            "in_flight": in_flight,
            "budget": {"evaluations": evaluations},
            "islands": {"count": islands},
        }
    )
    pool = EvaluatorPool([lambda: spawn(in_flight)])
    return Engine(store, config, _definition(), [_solution()], pool, watch)


def _definition() -> Definition:
    spec = {"shape": ["n"], "dtype": "float32"}
    return Definition.model_validate(
        {
            "name": "toy_f32",
            "op_type": "toy",
            "axes": {"n": {"type": "var"}},
            "inputs": {"x": spec},
            "outputs": {"output": spec},
        }
    )


def _solution() -> Solution:
    spec = BuildSpec(
        language=Language.TRITON, target_hardware=("cpu",), entry_point="kernel.py::run"
    )
    source = SourceFile(path="kernel.py", content=SOURCE)
    return Solution(
        name="seed_toy", definition="toy_f32", author="tilevolve", spec=spec, sources=(source,)
    )


def document(settings: dict[str, Any], figures: list[Figure]) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "settings": settings,
        "cores": len(psutil.Process().cpu_affinity()),
        "figures": [{**asdict(f), "met": f.met} for f in figures],
    }


def show(settings: dict[str, Any], figures: list[Figure]) -> None:
    """A table for people, plain where the output is not a terminal."""
    title = (
        f"{settings['evaluations']:,} evaluations, {settings['islands']} islands, "
        f"{settings['in_flight']} in flight, {len(psutil.Process().cpu_affinity())} cores"
    )
    table = Table(title=title, title_justify="left")
    for column, side in (("", "left"), ("measured", "right"), ("", "left"), ("target", "left")):
        table.add_column(column, justify=side, no_wrap=True)
    table.add_column("", no_wrap=True)
    verdicts = {True: "pass", False: "MISS", None: ""}
    for figure in figures:
        value = f"{figure.value:.4g}"
        table.add_row(figure.name, value, figure.unit, figure.target, verdicts[figure.met])
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
