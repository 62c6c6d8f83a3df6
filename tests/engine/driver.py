"""A whole run over the deterministic evaluator, as a process that tests can kill.

python tests/engine/driver.py RUN_DIR EVALUATIONS ISLANDS IN_FLIGHT DELAY_S
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.noop_evaluator import spawn
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile
from evolve import cluster
from evolve.config import parse
from evolve.engine import Engine
from evolve.pool import EvaluatorPool
from evolve.store import FILE, Store

SOURCE = """\
import triton

BLOCK_M = 16  # tune: 16 32 64 128
BLOCK_N = 32  # tune: 32 64 128 256
BLOCK_K = 32  # tune: 32 64 128
SPLIT_K = 1  # tune: 1 2 4 8
NUM_STAGES = 2  # tune: 1 2 3 4 5
NUM_WARPS = 4  # tune: 2 4 8
GROUP_M = 1  # tune: 1 4 8


def helper(x):
    return x + 1


def run(x, output):
    output.copy_(helper(x))
"""


def definition() -> Definition:
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


def seed_solution() -> Solution:
    return Solution(
        name="seed_toy",
        definition="toy_f32",
        author="tilevolve",
        spec=BuildSpec(
            language=Language.TRITON, target_hardware=("cpu",), entry_point="kernel.py::run"
        ),
        sources=(SourceFile(path="kernel.py", content=SOURCE),),
    )


def run(run_dir: Path, evaluations: int, islands: int, in_flight: int, delay_s: float) -> Store:
    cluster.start()
    config = parse(
        {
            "operator": "toy",
            "seed": 5,
            "in_flight": in_flight,
            "budget": {"evaluations": evaluations},
            "islands": {"count": islands, "migration_interval": 10},
            "epochs": {"evaluations": 40},
        }
    )
    if (run_dir / FILE).exists():
        store = Store.open(run_dir)
    else:
        store = Store.create(run_dir, {"operator": "toy", "definition": "toy_f32"})
    pool = EvaluatorPool([lambda: spawn(in_flight, delay_s)])
    Engine(store, config, definition(), [seed_solution()], pool).run()
    return store


if __name__ == "__main__":
    directory, *numbers = sys.argv[1:]
    run(Path(directory), *(int(n) for n in numbers[:3]), float(numbers[3]))
