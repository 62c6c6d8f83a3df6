"""A champion as a folder that anybody can read, verify and use, with or without this project.

solution.json      valid FlashInfer-Bench solution, sources included
<sources>          the same source files, as files
definition.json    FlashInfer Trace definition with its reference
workloads.jsonl    the workloads of the measured table, as FlashInfer Trace rows
results.json       every measurement behind the table
reference.py       exact and honest results and inputs of the operator; needs torch alone
evaluators/        how outputs are compared with them, as in the search
check.py           verifies the folder with FlashInfer-Bench's builders
README.md          what it is, its shapes, the table, how to verify it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evaluators.catalog import ROOT, explain
from evaluators.schema import (
    BuildSpec,
    Definition,
    Language,
    Record,
    Solution,
    SourceFile,
    Workload,
)
from evolve.reference import NoReference, reference_source

_FILES = (
    "solution.json", "definition.json", "workloads.jsonl", "results.json", "reference.py",
    "check.py", "README.md",
)  # fmt: skip
_COMPARISON = ("evaluators/__init__.py", "evaluators/correctness.py", "evaluators/deviation.py")
"""Files of ours that an exported folder takes along."""
_R = TypeVar("_R", bound=Record)


class ExportError(Exception):
    """A folder or solution cannot be written or read. The message is one clear line."""


@dataclass(frozen=True)
class Exported:
    """What `load_solution` found; `definition` is None and `workloads` empty beside a bare file."""

    solution: Solution
    definition: Definition | None = None
    workloads: tuple[Workload, ...] = ()


def export_champion(
    out_dir: Path,
    *,
    solution: Solution,
    definition: Definition,
    operator_file: Path,
    workloads: Sequence[Workload],
    facts: Mapping[str, Any],
    report: Mapping[str, Any],
    table: str,
) -> list[Path]:
    """Write the folder; returns the files written.

    `operator_file` is the operator's `operator.py`. `facts` says where the champion is from:
    `operator`, `run`, `device` (the evaluator's facts), `evaluations`. `report` is the closing
    report; it goes into results.json. `table` is the measured table as Markdown. ExportError when
    the solution is for another definition, a source has a name of ours, or nothing can be written.
    """
    if solution.definition != definition.name:
        raise ExportError(f"solution is for {solution.definition!r}, not {definition.name!r}")
    clash = sorted({s.path for s in solution.sources} & {*_FILES, *_COMPARISON})
    if clash:
        raise ExportError(f"source {clash[0]!r} has the name of an exported file")
    try:
        operator_source = operator_file.read_text(encoding="utf-8")
        complete = definition.model_copy(update={"reference": reference_source(operator_source)})
    except (OSError, NoReference) as error:
        raise ExportError(f"{operator_file}: {error}") from None
    files = {
        "solution.json": _json(solution_json(solution)),
        "definition.json": _json(definition_json(complete)),
        "workloads.jsonl": "".join(_line(workload_json(w, definition)) for w in workloads),
        "results.json": _json(_results(definition, facts, report)),
        "reference.py": operator_source,
        "check.py": Path(__file__).with_name("champion_check.py").read_text(encoding="utf-8"),
        "README.md": _readme(solution, definition, facts, table),
        **{name: (ROOT / name).read_text(encoding="utf-8") for name in _COMPARISON},
        **{source.path: source.content for source in solution.sources},
    }
    return _write(out_dir, files)


def load_solution(path: Path) -> Exported:
    """The solution in an exported folder or a solution file, with the definition and workloads
    beside it. The file may be FlashInfer-Bench's: as there, unknown fields are ignored.
    ExportError, one line, when there is none or it is malformed."""
    file = path / "solution.json" if path.is_dir() else path
    if not file.is_file():
        raise ExportError(f"no solution at {path}: give an exported folder or a solution.json")
    solution = _parse(Solution, _known_fields(_read_json(file)), file)
    beside, rows = file.parent / "definition.json", file.parent / "workloads.jsonl"
    if not beside.is_file():
        return Exported(solution)
    definition = _parse(Definition, _read_json(beside), beside)
    if solution.definition != definition.name:
        raise ExportError(f"{file} is for {solution.definition!r}, {beside} is {definition.name!r}")
    return Exported(solution, definition, _read_workloads(rows) if rows.is_file() else ())


def solution_json(solution: Solution) -> dict[str, Any]:
    """FlashInfer-Bench form of a solution."""
    return solution.model_dump(mode="json", exclude_none=True)


def definition_json(definition: Definition) -> dict[str, Any]:
    """FlashInfer Trace form of a definition: a scalar's shape stays, as null."""
    made = definition.model_dump(mode="json", exclude_none=True)
    for side in ("inputs", "outputs"):
        for spec in made[side].values():
            spec.setdefault("shape", None)
    return made


def workload_json(workload: Workload, definition: Definition) -> dict[str, Any]:
    """FlashInfer Trace row of a workload.

    Index tensors are named in no input spec: random integers would be no valid index. `make` and
    `seed`, which FlashInfer-Bench ignores, say how `reference.py` makes all inputs.
    """
    inputs: dict[str, Any] = {}
    for name, spec in definition.inputs.items():
        given = workload.inputs.get(name)
        if given is not None and given.type != "random":
            inputs[name] = given.model_dump(mode="json")
        elif spec.shape is not None and spec.dtype.startswith(("float", "bfloat")):
            inputs[name] = {"type": "random"}
    row = {**workload.model_dump(mode="json"), "inputs": inputs}
    return {"definition": definition.name, "workload": row}


def _results(
    definition: Definition, facts: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    champion = {k: v for k, v in (report.get("champion") or {}).items() if k != "solution"}
    return {"definition": definition.name, **facts, **report, "champion": champion}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"


def _write(out_dir: Path, files: Mapping[str, str]) -> list[Path]:
    written = []
    try:
        for name, content in files.items():
            path = out_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ExportError(f"cannot write {out_dir}: {error.strerror or error}") from None
    return written


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ExportError(f"{file}: not JSON: {error.msg} (line {error.lineno})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{file}: cannot be read: {error}") from None


def _known_fields(solution: Any) -> Any:
    """`solution` with the fields that we know, at every level; null counts as absent."""
    if not isinstance(solution, dict):
        return solution
    found = _of(Solution, solution)
    if isinstance(found.get("spec"), dict):
        found["spec"] = _of(BuildSpec, found["spec"])
    if isinstance(found.get("sources"), list):
        sources = found["sources"]
        found["sources"] = [_of(SourceFile, s) if isinstance(s, dict) else s for s in sources]
    return found


def _of(kind: type[Record], value: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k in kind.model_fields and v is not None}


def _read_workloads(file: Path) -> tuple[Workload, ...]:
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)["workload"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ExportError(f"{file}: line {number} is not a workload row") from None
        found.append(_parse(Workload, row, file))
    return tuple(found)


def _parse(kind: type[_R], value: Any, file: Path) -> _R:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ExportError(f"{file}: {explain(error)}") from None


# -- README ---------------------------------------------------------------------------------------


def _readme(
    solution: Solution, definition: Definition, facts: Mapping[str, Any], table: str
) -> str:
    device = (facts.get("device") or {}).get("name", "unknown device")
    parts = [
        f"# {definition.name}: champion on {device}",
        _about(solution, definition, facts, device),
        f"## Shapes\n\n{_shapes(definition)}",
        f"## Measured\n\n{table.strip()}",
        _VERIFY.format(operator=facts.get("operator", definition.name)),
        f"## Use\n\n{_use(solution, definition)}",
        _FOLDER.format(sources=", ".join(f"`{s.path}`" for s in solution.sources)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _about(
    solution: Solution, definition: Definition, facts: Mapping[str, Any], device: str
) -> str:
    found = f" after {facts['evaluations']} evaluations" if facts.get("evaluations") else ""
    text = definition.description or f"A kernel for `{definition.name}`."
    return (
        f"{text}\n\nWritten in {solution.spec.language.value}, entry point "
        f"`{solution.spec.entry_point}`, found by Tilevolve{found} on {device}."
    )


def _shapes(definition: Definition) -> str:
    lines = ["| tensor | shape | dtype |", "| --- | --- | --- |"]
    for role, specs in (("input", definition.inputs), ("output", definition.outputs)):
        for name, spec in specs.items():
            shape = "scalar" if spec.shape is None else _shape(spec.shape, definition)
            lines.append(f"| {name} ({role}) | {shape} | {spec.dtype} |")
    return "\n".join(lines)


def _shape(axes: Iterable[str], definition: Definition) -> str:
    const = definition.const_axes
    return "[" + ", ".join(f"{a}={const[a]}" if a in const else a for a in axes) + "]"


def _use(solution: Solution, definition: Definition) -> str:
    arguments = ", ".join([*definition.inputs, *definition.outputs])
    note = "Outputs are allocated by the caller, in the definition's order."
    entry, function = solution.spec.entry_file, solution.spec.entry_function
    if solution.spec.language in _NATIVE:
        options = ",\n    ".join(_NATIVE[solution.spec.language]).format(entry=entry)
        load = f'tvm_ffi.cpp.load(\n    name="champion",\n    {options},\n)'
        code = f"import tvm_ffi.cpp\n\nkernel = {load}\nkernel.{function}({arguments})"
    else:
        module = entry.removesuffix(".py").replace("/", ".")
        code = f"from {module} import {function}\n\n{function}({arguments})"
    return f"```python\n{code}\n```\n\n{note}"


_NATIVE = {
    Language.CUDA: ('cuda_files=["{entry}"]', 'extra_cuda_cflags=["-O3"]'),
    Language.CPP: (
        'cpp_files=["{entry}"]',
        'extra_cflags=["-O3", "-march=native", "-fopenmp"]',
        'extra_ldflags=["-fopenmp"]',
    ),
}
"""Arguments of `tvm_ffi.cpp.load` that build a kernel as it was measured."""

_VERIFY = """## Verify

```
evolve verify .                  # correct on unseen workloads? latency again, beside peers
python check.py                  # with FlashInfer-Bench's builders (pip install flashinfer-bench)
python check.py --trace-set DIR  # then: flashinfer-bench run --local DIR
```

Both compare with the exact result of `{operator}`, within the error budget that its honest
implementation gives (`reference.py`, `evaluators/correctness.py`)."""

_FOLDER = """## Files

| file | what |
| --- | --- |
| {sources} | the kernel |
| solution.json | the same as a FlashInfer-Bench solution |
| definition.json | FlashInfer Trace definition with its reference |
| workloads.jsonl, results.json | workloads of the table, and every measurement behind it |
| reference.py, check.py | exact and honest results, inputs; the check |
| evaluators/ | how the check compares, as the search did |"""
