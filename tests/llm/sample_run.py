"""A small operator and a stored run of it, for tests of prompts: nothing is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

from evaluators.schema import (
    BuildFacts,
    BuildSpec,
    Definition,
    Evaluation,
    Language,
    Solution,
    SourceFile,
    Status,
    Workload,
    WorkloadResult,
)
from evolve.export import definition_json
from evolve.llm import background
from evolve.llm.background import Background
from evolve.store import Store
from islands.descriptor import describe
from islands.program import Program

DEFINITION = Definition.model_validate(
    {
        "name": "scale_rows_f32",
        "op_type": "toy",
        "description": "Each row of x times its scale.",
        "axes": {"rows": {"type": "var"}, "columns": {"type": "const", "value": 1024}},
        "inputs": {
            "x": {"shape": ["rows", "columns"], "dtype": "float32"},
            "scale": {"shape": ["rows"], "dtype": "float32", "description": "one a row"},
            "offset": {"shape": None, "dtype": "float32"},
        },
        "outputs": {"output": {"shape": ["rows", "columns"], "dtype": "float32"}},
    }
)
OPERATOR = """\
def exact(x, scale, offset):
    return x.double() * scale[:, None] + offset


def run(x, scale, offset):
    return exact(x, scale, offset).float()


def honest(x, scale, offset):
    return x * scale[:, None] + offset


def axes_of(definition, sample):
    return sample, {"label": f"rows={sample['rows']}"}


def make_inputs(definition, axes, make, scalars, generator, device):
    raise NotImplementedError


def cost(definition, axes, make):
    cells = axes["rows"] * definition["axes"]["columns"]["value"]
    return 2.0 * cells, 8.0 * cells
"""
NOTES = """\
# scale_rows

    output[i, j] = x[i, j] * scale[i] + offset

## Where the time goes

Reading x and writing the output once.

## Pitfalls

- The last tile may be short.
"""
PAGES = {
    "triton": "# Triton\n\nIntro.\n\n- Extents are powers of two.\n- Masks cost,\n  and pay.\n",
    "tilelang": "# TileLang\n\n- Fragments are not zeroed.\n",
    "cuda_hopper": "# CUDA\n\n- Spills show in the build facts.\n",
    "cpp": "# C++\n\n- Vectorise.\n",
    "maca": "# MACA\n\n- A warp has 64 threads.\n",
}
TILED = """\
import triton
import triton.language as tl

BLOCK_N = 128  # tune: 64 128 256 512
NUM_WARPS = 4  # tune: 1 2 4 8


@triton.jit
def _scale(x_ptr, scale_ptr, out_ptr, offset, columns, BLOCK_N: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(x_ptr + row * columns + at, mask=at < columns)
    tl.store(out_ptr + row * columns + at, x * tl.load(scale_ptr + row) + offset, mask=at < columns)


def run(x, scale, offset, output):
    rows, columns = x.shape
    _scale[(rows, triton.cdiv(columns, BLOCK_N))](
        x, scale, output, offset, columns, BLOCK_N=BLOCK_N, num_warps=NUM_WARPS
    )
"""
PERSISTENT = """\
import triton
import triton.language as tl

BLOCK_N = 256  # tune: 256 512 1024
NUM_PROGRAMS = 132  # tune: 66 132 264


@triton.jit
def _persistent_scale(x_ptr, scale_ptr, out_ptr, offset, rows, columns, BLOCK_N: tl.constexpr):
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        factor = tl.load(scale_ptr + row)
        for first in range(0, columns, BLOCK_N):
            at = first + tl.arange(0, BLOCK_N)
            x = tl.load(x_ptr + row * columns + at, mask=at < columns)
            tl.store(out_ptr + row * columns + at, x * factor + offset, mask=at < columns)


def run(x, scale, offset, output):
    rows, columns = x.shape
    _persistent_scale[(NUM_PROGRAMS,)](x, scale, output, offset, rows, columns, BLOCK_N=BLOCK_N)
"""
BROKEN = TILED.replace("tl.store(out_ptr", "tl.stor(out_ptr")
LOG = """\
Traceback (most recent call last):
  File "kernel.py", line 20, in run
AttributeError: module 'triton.language' has no attribute 'stor'
"""
DEVICE = {
    "type": "cuda",
    "kind": "cuda",
    "name": "Example GPU",
    "capability": "9.0",
    "multiprocessors": 132,
    "memory_bytes": 139 << 30,
    "l2_bytes": 60 << 20,
    "ceilings": {"copy_gbps": 4000.0, "tflops": {"float32": 50.0}},
}
WORKLOADS = [
    Workload(uuid=f"w{rows}", axes={"rows": rows}, make={"label": f"rows={rows}"})
    for rows in (64, 4096)
]


def root(folder: Path) -> Path:
    """A root with the operator `scale_rows` and small pages of idioms."""
    operator = folder / "kernels" / "scale_rows"
    (operator / "definitions").mkdir(parents=True)
    (operator / "definitions" / "scale_rows_f32.json").write_text(
        json.dumps(definition_json(DEFINITION))
    )
    (operator / "operator.py").write_text(OPERATOR)
    (operator / "notes.md").write_text(NOTES)
    pages = folder / "docs" / "knowledge"
    pages.mkdir(parents=True)
    for name, text in PAGES.items():
        (pages / f"{name}.md").write_text(text)
    return folder


def meta(**config: object) -> dict[str, object]:
    settings = {"operator": "scale_rows", "seed": 3, "islands": {"count": 2}, **config}
    return {
        "operator": "scale_rows",
        "definition": DEFINITION.name,
        "definition_record": definition_json(DEFINITION),
        "device": DEVICE,
        "config": settings,
    }


def the_background(folder: Path) -> Background:
    return background.load(meta(), DEFINITION, root(folder))


def solution(source: str, name: str = "seed_tiled", description: str | None = None) -> Solution:
    return Solution(
        name=name,
        definition=DEFINITION.name,
        author="tests",
        description=description,
        spec=BuildSpec(
            language=Language.TRITON, target_hardware=("cuda",), entry_point="kernel.py::run"
        ),
        sources=(SourceFile(path="kernel.py", content=source),),
    )


def passed(*speedups: float, epoch: int = 0, build: BuildFacts | None = None) -> Evaluation:
    """PASSED with one speedup a workload; 3% noise; the anchor takes 2 us and 20 us."""
    results = tuple(
        WorkloadResult(
            workload=w.uuid,
            max_absolute_error=0.0,
            max_relative_error=0.0,
            latency_ms=anchor / s,
            anchor_ms=anchor,
            speedup=s,
            speedup_low=s / 1.03,
            speedup_high=s * 1.03,
            eager_ms=3 * anchor / s,
            graph_ms=anchor / s,
        )
        for w, s, anchor in zip(WORKLOADS, speedups, (0.002, 0.020), strict=True)
    )
    return Evaluation(status=Status.PASSED, epoch=epoch, results=results, build=build)


def failed(status: Status = Status.RUNTIME_ERROR, log: str = LOG, epoch: int = 0) -> Evaluation:
    return Evaluation(status=status, log=log, epoch=epoch)


def record(store: Store, program: Program, evaluation: Evaluation, kind: str = "search") -> None:
    """Store a program with its evaluation, as the engine does."""
    store.propose(program)
    seq = store.record(program.id, kind, evaluation)  # type: ignore[arg-type]
    niche = describe(program, evaluation).key if evaluation.passed else ""
    store.set_outcome(seq, niche, "NEW" if evaluation.passed else "REJECTED")


def make(run_dir: Path) -> Store:
    """Two seeds, a tuner's step and a tuner's failure, and a failed crossover."""
    store = Store.create(run_dir, meta())
    store.open_epoch(0, WORKLOADS)
    build = BuildFacts(registers=40, shared_bytes=2048, num_warps=4, kernels=("_scale",))
    tiled = Program.of(solution(TILED, description="one tile a block"))
    record(store, tiled, passed(1.0, 1.0, build=build), "seed")
    persistent = Program.of(solution(PERSISTENT, "seed_persistent", "blocks stay"), ordinal=1)
    record(store, persistent, passed(0.8, 1.6), "seed")
    tuned = Program.of(
        solution(TILED.replace("= 128", "= 256")),
        parents=(tiled.id,),
        emitter="tuner",
        note="BLOCK_N 128 -> 256",
    )
    record(store, tuned, passed(1.1, 1.4, build=build))
    greedy = Program.of(
        solution(TILED.replace("= 128", "= 512")),
        parents=(tuned.id,),
        island=1,
        emitter="tuner",
        note="BLOCK_N 256 -> 512",
    )
    record(store, greedy, failed(Status.COMPILE_ERROR, "error: out of resource: shared memory"))
    mixed = Program.of(
        solution(BROKEN),
        parents=(tuned.id, persistent.id),
        emitter="crossover",
        ordinal=1,
        note="run of the other parent",
    )
    record(store, mixed, failed())
    return store
