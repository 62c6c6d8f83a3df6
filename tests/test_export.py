"""The exported folder: valid for FlashInfer-Bench, loads again, and can be checked on its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.schema import Definition, RandomInput, ScalarInput, Solution, Workload
from evolve.export import ExportError, export_champion, load_solution

OPERATOR = '''"""Scale and gather."""

from __future__ import annotations

import torch

ALLOWANCE = {"float32": (4.0, 4.0)}


def run(x, rows, factor):
    return _gather(x, rows) * factor


def exact(x, rows, factor):
    return run(x.double(), rows, factor)


honest = run


def _gather(x, rows):
    return x[rows.long()]


def make_inputs(definition, axes, make, scalars, generator, device):
    x = torch.randn(axes["n"], 4, generator=generator, device=device)
    rows = torch.randint(axes["n"], (axes["m"],), generator=generator, device=device)
    return {"x": x, "rows": rows.int(), "factor": scalars.get("factor", 2.0)}
'''

KERNEL = """import torch


def run(x, rows, factor, output):
    torch.index_select(x, 0, rows, out=output)
    output.mul_(factor)
"""

DEFINITION = Definition.model_validate(
    {
        "name": "scaled_gather_d4",
        "op_type": "gather",
        "axes": {"n": {"type": "var"}, "m": {"type": "var"}, "d": {"type": "const", "value": 4}},
        "inputs": {
            "x": {"shape": ["n", "d"], "dtype": "float32"},
            "rows": {"shape": ["m"], "dtype": "int32"},
            "factor": {"shape": None, "dtype": "float32"},
        },
        "outputs": {"output": {"shape": ["m", "d"], "dtype": "float32"}},
    }
)


def solution(source: str = KERNEL, **changes: object) -> Solution:
    record = {
        "name": "champion",
        "definition": DEFINITION.name,
        "author": "tilevolve",
        "spec": {"language": "python", "target_hardware": ["cpu"], "entry_point": "kernel.py::run"},
        "sources": [{"path": "kernel.py", "content": source}],
        **changes,
    }
    return Solution.model_validate(record)


WORKLOADS = [
    Workload(
        uuid=f"w{m}",
        axes={"n": 8, "m": m},
        inputs={
            "x": RandomInput(),
            "rows": RandomInput(),
            "factor": ScalarInput(value=3.0),
        },
        make={"label": f"m={m}"},
        seed=m,
    )
    for m in (1, 5)
]


def export(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "operator.py").write_text(OPERATOR)
    arguments = {
        "solution": solution(),
        "definition": DEFINITION,
        "operator_file": tmp_path / "operator.py",
        "workloads": WORKLOADS,
        "facts": {"operator": "scaled_gather", "device": {"name": "A CPU"}, "evaluations": 60},
        "report": {"champion": {"program_id": "ab", "solution": {}}, "entries": [{"name": "x"}]},
        "table": "| workload | champion |\n| --- | ---: |\n| m=1 | 1.23 |",
        **changes,
    }
    out = tmp_path / "out"
    export_champion(out, **arguments)  # type: ignore[arg-type]
    return out


def test_round_trip(tmp_path):
    out = export(tmp_path)
    found = load_solution(out)
    assert found.solution == solution()
    assert found.definition is not None
    assert found.definition.model_copy(update={"reference": None}) == DEFINITION
    assert [w.uuid for w in found.workloads] == ["w1", "w5"]
    assert [w.make for w in found.workloads] == [w.make for w in WORKLOADS]
    assert load_solution(out / "solution.json") == found
    assert (out / "kernel.py").read_text() == KERNEL


def test_reference_in_definition_computes_what_the_operator_computes(tmp_path):
    import torch

    reference = json.loads((export(tmp_path) / "definition.json").read_text())["reference"]
    names: dict[str, object] = {}
    exec(compile(reference, "reference", "exec"), names)
    x = torch.arange(8.0).reshape(2, 4)
    result = names["run"](x, torch.tensor([1, 0]), 2.0)
    assert torch.equal(result, x[[1, 0]] * 2)
    assert "make_inputs" not in names
    assert "ALLOWANCE" not in names


def test_index_tensors_are_not_called_random(tmp_path):
    rows = (export(tmp_path) / "workloads.jsonl").read_text().splitlines()
    inputs = json.loads(rows[0])["workload"]["inputs"]
    assert inputs == {"x": {"type": "random"}, "factor": {"type": "scalar", "value": 3.0}}


def test_scalar_keeps_its_null_shape(tmp_path):
    definition = json.loads((export(tmp_path) / "definition.json").read_text())
    assert definition["inputs"]["factor"]["shape"] is None
    assert "value" not in definition["axes"]["n"]


def test_readme_says_what_and_how(tmp_path):
    readme = (export(tmp_path) / "README.md").read_text()
    assert readme.startswith("# scaled_gather_d4: champion on A CPU")
    for part in ("| m=1 | 1.23 |", "[m, d=4]", "evolve verify", "check.py", "from kernel import"):
        assert part in readme


def test_results_hold_measurements_but_not_the_source_again(tmp_path):
    results = json.loads((export(tmp_path) / "results.json").read_text())
    assert results["entries"] == [{"name": "x"}]
    assert results["champion"] == {"program_id": "ab"}
    assert results["device"]["name"] == "A CPU"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": solution(definition="another")}, "solution is for 'another'"),
        (
            {"solution": solution(sources=[{"path": p, "content": "x"} for p in
                                           ("kernel.py", "check.py")])},
            "'check.py' has the name of an exported file",
        ),
        ({"operator_file": Path("absent.py")}, "absent.py"),
    ],
)  # fmt: skip
def test_refuses(tmp_path, changes, message):
    with pytest.raises(ExportError, match=message):
        export(tmp_path, **changes)


def test_operator_without_run(tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text("import torch\n")
    with pytest.raises(ExportError, match="no top-level function 'run'"):
        export(tmp_path, operator_file=empty)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no solution at"),
        ("{", "not JSON"),
        ("[]", "valid dictionary"),
        ('{"name": "x"}', "field 'definition'"),
    ],
)
def test_load_says_what_is_wrong_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "solution.json").write_text(content)
    with pytest.raises(ExportError, match=message) as caught:
        load_solution(tmp_path)
    assert "\n" not in str(caught.value)


def test_load_refuses_a_folder_of_two_definitions(tmp_path):
    out = export(tmp_path)
    file = out / "solution.json"
    file.write_text(file.read_text().replace(DEFINITION.name, "another"))
    with pytest.raises(ExportError, match="another"):
        load_solution(out)


def test_load_names_the_malformed_workload(tmp_path):
    out = export(tmp_path)
    with (out / "workloads.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ExportError, match="line 3"):
        load_solution(out)


# -- the real FlashInfer-Bench package ------------------------------------------------------------


def test_real_package_accepts_every_record(tmp_path):
    data = pytest.importorskip("flashinfer_bench.data")
    out = export(tmp_path)
    theirs = data.Solution.model_validate_json((out / "solution.json").read_text())
    assert theirs.get_entry_symbol() == "run"
    definition = data.Definition.model_validate_json((out / "definition.json").read_text())
    assert definition.const_axes == {"d": 4}
    for line in (out / "workloads.jsonl").read_text().splitlines():
        assert data.Trace.model_validate_json(line).is_workload_trace()


def test_real_package_builds_the_reference_of_two_outputs(tmp_path, monkeypatch):
    import torch

    build = pytest.importorskip("flashinfer_bench.compile")
    data = pytest.importorskip("flashinfer_bench.data")
    monkeypatch.setenv("FIB_CACHE_PATH", str(tmp_path / "cache"))
    operator = tmp_path / "two.py"
    operator.write_text(
        "from __future__ import annotations\nimport torch\nfrom torch import Tensor\n\n"
        "def run(x: Tensor, rows: Tensor, factor: float) -> tuple[Tensor, Tensor]:\n"
        "    return x[rows.long()], x.new_full((len(rows),), factor)\n"
    )
    record = DEFINITION.model_dump(exclude_none=True)
    record["inputs"]["factor"]["shape"] = None
    record["outputs"]["factors"] = {"shape": ["m"], "dtype": "float32"}
    two = Definition.model_validate(record)
    out = export(tmp_path, operator_file=operator, definition=two)
    theirs = data.Definition.model_validate_json((out / "definition.json").read_text())
    reference = build.BuilderRegistry.get_instance().build_reference(theirs)
    gathered, factors = reference(torch.eye(4), torch.tensor([2]), 3.0)
    assert gathered[0, 2] == 1
    assert factors.tolist() == [3.0]


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "check.py"), *arguments],
        capture_output=True, text=True, timeout=120, cwd=folder,
        env={**os.environ, "FIB_CACHE_PATH": str(folder / "cache")},
    )  # fmt: skip


DIFFERENCES = """
import json
import check

operator, definition = check._operator(), json.loads((check.HERE / "definition.json").read_text())
row = json.loads((check.HERE / "workloads.jsonl").read_text().splitlines()[1])["workload"]
inputs = check.make_inputs(operator, definition, row, "cpu")
honest = (operator.honest(*inputs),)
print(check.correctness.__file__)
print("right:", check.difference(operator, definition, inputs, honest, honest))
print("wrong:", check.difference(operator, definition, inputs, honest, (honest[0] * 1.0001,)))
"""


def test_check_compares_without_this_project(tmp_path):
    out = export(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DIFFERENCES], cwd=out, capture_output=True, text=True, timeout=120,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, right, wrong = done.stdout.splitlines()
    assert file == str(out / "evaluators" / "correctness.py")
    assert right == "right: "
    assert "4 times that of an honest implementation" in wrong


def test_check_passes_a_right_kernel_and_fails_a_wrong_one(tmp_path):
    pytest.importorskip("flashinfer_bench.compile")
    right = check(export(tmp_path), "--device", "cpu")
    assert right.returncode == 0, right.stderr
    assert "2 of 2 workloads right" in right.stdout
    wrong_kernel = solution(KERNEL.replace("mul_(factor)", "mul_(factor + 0.01)"))
    wrong = check(export(tmp_path, solution=wrong_kernel), "--device", "cpu")
    assert wrong.returncode == 1
    assert "exceeds the budget" in wrong.stdout


def test_trace_set_loads_in_the_real_package(tmp_path):
    data = pytest.importorskip("flashinfer_bench.data")
    utils = pytest.importorskip("flashinfer_bench.bench.utils")
    made = check(export(tmp_path), "--trace-set", str(tmp_path / "set"))
    assert made.returncode == 0, made.stderr
    found = data.TraceSet.from_path(str(tmp_path / "set"))
    definition = found.definitions[DEFINITION.name]
    assert [s.name for s in found.solutions[DEFINITION.name]] == ["champion"]
    for trace in found.workloads[DEFINITION.name]:
        tensors = utils.load_safetensors(definition, trace.workload, tmp_path / "set")
        inputs = utils.gen_inputs(definition, trace.workload, "cpu", tensors)
        assert inputs[1].max() < 8
        assert inputs[2] == 3.0
