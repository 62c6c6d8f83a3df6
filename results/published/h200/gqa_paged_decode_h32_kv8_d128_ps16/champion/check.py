"""Checks the kernel in this folder against its reference; needs torch and flashinfer-bench alone.

`python check.py` builds solution.json with FlashInfer-Bench's own builders, runs it on every
workload of workloads.jsonl and compares with the exact result of reference.py, within the error
budget that its honest implementation gives (evaluators/correctness.py).
`python check.py --trace-set DIR` writes the same as a FlashInfer-Bench data set, for
`flashinfer-bench run --local DIR`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from evaluators import correctness

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--trace-set", type=Path, help="write a FlashInfer-Bench data set here")
    options = parser.parse_args()
    definition = json.loads((HERE / "definition.json").read_text())
    rows = [json.loads(line) for line in (HERE / "workloads.jsonl").read_text().splitlines()]
    operator = _operator()
    if options.trace_set:
        write_trace_set(operator, definition, rows, options.trace_set)
        return 0
    return check(operator, definition, [row["workload"] for row in rows], options.device)


def check(
    operator: Any, definition: dict[str, Any], workloads: list[dict[str, Any]], device: str
) -> int:
    """Run and compare every workload; 0 when all are right."""
    from flashinfer_bench.compile import BuilderRegistry
    from flashinfer_bench.data import Definition, Solution

    solution = Solution.model_validate_json((HERE / "solution.json").read_text())
    kernel = BuilderRegistry.get_instance().build(Definition.model_validate(definition), solution)
    wrong = 0
    for workload in workloads:
        inputs = make_inputs(operator, definition, workload, device)
        honest = _tuple(operator.honest(*inputs))
        outputs = tuple(torch.empty_like(tensor) for tensor in honest)
        correctness.poison(outputs)
        kernel.call_destination_passing(*inputs, *outputs)
        problem = difference(operator, definition, inputs, honest, outputs)
        wrong += bool(problem)
        print(f"{'WRONG' if problem else 'right'}  {_label(workload)}  {problem}")
    print(f"{len(workloads) - wrong} of {len(workloads)} workloads right")
    return 1 if wrong else 0


def make_inputs(
    operator: Any, definition: dict[str, Any], workload: dict[str, Any], device: str
) -> list[Any]:
    """Inputs of a workload in the definition's order."""
    generator = torch.Generator(device).manual_seed(workload["seed"])
    scalars = {k: v["value"] for k, v in workload["inputs"].items() if v["type"] == "scalar"}
    made = operator.make_inputs(
        definition, workload["axes"], workload["make"], scalars, generator, device
    )
    return [made[name] for name in definition["inputs"]]


def difference(
    operator: Any, definition: dict[str, Any], inputs: list[Any], honest: Any, outputs: Any
) -> str:
    """What is wrong with the outputs, or ""."""
    exact = _tuple(operator.exact(*inputs))
    specs = {name: SimpleNamespace(**spec) for name, spec in definition["outputs"].items()}
    spec: Any = SimpleNamespace(outputs=specs)
    budget = correctness.budget_of(exact, honest, spec, getattr(operator, "ALLOWANCE", {}))
    return correctness.compare(outputs, exact, budget, spec).fault


def write_trace_set(
    operator: Any, definition: dict[str, Any], rows: list[dict[str, Any]], folder: Path
) -> None:
    """A FlashInfer-Bench data set: index tensors as safetensors, other tensors random."""
    save_file = importlib.import_module("safetensors.torch").save_file
    name, kind = definition["name"], definition["op_type"]
    solution = json.loads((HERE / "solution.json").read_text())
    for row in rows:
        workload = row["workload"]
        made = make_inputs(operator, definition, workload, "cpu")
        tensors = {}
        for key, value in zip(definition["inputs"], made, strict=True):
            if not isinstance(value, torch.Tensor):
                workload["inputs"][key] = {"type": "scalar", "value": value}
            elif value.is_floating_point():
                workload["inputs"][key] = {"type": "random"}
            else:
                tensors[key] = value.contiguous()
        if tensors:
            path = Path("blob") / "workloads" / kind / name / f"{workload['uuid']}.safetensors"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / path)
            workload["inputs"] |= {
                key: {"type": "safetensors", "path": path.as_posix(), "tensor_key": key}
                for key in tensors
            }
    _write(folder / "definitions" / kind / f"{name}.json", json.dumps(definition, indent=1))
    _write(
        folder / "solutions" / kind / name / f"{solution['name']}.json",
        json.dumps(solution, indent=1),
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    _write(folder / "workloads" / kind / f"{name}.jsonl", lines)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(path)


def _operator() -> Any:
    spec = importlib.util.spec_from_file_location("reference", HERE / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _label(workload: dict[str, Any]) -> str:
    shown = workload["make"].get("label")
    return str(shown or " ".join(f"{k}={v}" for k, v in workload["axes"].items()))


if __name__ == "__main__":
    sys.exit(main())
