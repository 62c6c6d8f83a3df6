"""Memory and race checkers over one kernel: what they need, where they are, what they say.

The kernel is built and called once more in a process of its own (`evaluators.sanitized`), on small
inputs: the operator's cases and the smallest workloads. On CUDA NVIDIA's compute-sanitizer runs
that process, with memcheck and then racecheck; a C++ kernel for the CPU is built with g++'s address
and undefined-behaviour sanitizers instead. What is not installed is said to be not available.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from evaluators import confinement
from evaluators.schema import Definition, Language, Record, Solution, Workload
from evaluators.workloads import tensor_bytes

ROOT = Path(__file__).resolve().parent.parent
FOUND = 86
"""Exit code of a process in which a checker found something."""
UNBUILT = 87
"""Exit code when the kernel does not build this way."""
DEADLINE_S = {"cuda": 240.0, "cpu": 120.0}
SETS = 8
"""Most sets of inputs; small ones first."""
BYTES = 128 << 20
"""Most bytes of all sets together: under a checker a kernel takes up to a hundred times as long."""
TEXT = 2000
SUMMARY = " SUMMARY: "
"""In the last line of compute-sanitizer's log; it is missing where it watched no process."""
LINES = 8
"""Of a report: its head, with the place; the rest is the stack of the process around the kernel."""

Tool = Literal["memcheck", "racecheck", "address and undefined"]
TOOLS: dict[str, tuple[Tool, ...]] = {
    "cuda": ("memcheck", "racecheck"),
    "cpu": ("address and undefined",),
}
Inputs = tuple[dict[str, int], dict[str, Any], dict[str, Any]]
"""Axes, make and named scalars of one set of inputs."""


class Sanitized(Record):
    """What one checker said of one kernel. `text`: its words, or why it is not available."""

    tool: Tool
    outcome: Literal["clean", "errors", "not available"]
    text: str = ""
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Command:
    """How a checker is started on a prepared folder."""

    tool: Tool
    words: list[str]
    environment: dict[str, str]


def check(
    solution: Solution,
    definition: Definition,
    operator: ModuleType,
    device: str,
    workloads: list[Workload],
) -> list[Sanitized]:
    """One record per checker that is meant for the solution's language and `device`.

    Imports torch. Raises nothing for what the candidate does.
    """
    if device == "cpu" and solution.spec.language is not Language.CPP:
        why = f"no checker for {solution.spec.language.value} on the CPU"
        return [Sanitized(tool="address and undefined", outcome="not available", text=why)]
    folder = Path(tempfile.mkdtemp(prefix="tilevolve-"))
    try:
        found = []
        for tool in TOOLS[device]:
            command = _command(tool, folder)
            if isinstance(command, str):
                found.append(Sanitized(tool=tool, outcome="not available", text=command))
                continue
            if not (folder / "request.json").exists():
                _prepare(folder, solution, definition, operator, device, workloads)
            found.append(_run(command, folder, DEADLINE_S[device]))
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(tool: Tool, folder: Path) -> _Command | str:
    """The command line of a checker, or why there is none."""
    words = [sys.executable, "-m", "evaluators.sanitized", str(folder)]
    if tool == "address and undefined":
        libraries = _runtime_libraries()
        if isinstance(libraries, str):
            return libraries
        options = f"exitcode={FOUND}:detect_leaks=0"
        return _Command(
            tool,
            words,
            # Python itself is not built with the sanitizer, so its runtime has to come first.
            {
                "LD_PRELOAD": " ".join(libraries),
                "ASAN_OPTIONS": options,
                "UBSAN_OPTIONS": f"exitcode={FOUND}:print_stacktrace=1",
            },
        )
    program = _compute_sanitizer()
    if program is None:
        return "compute-sanitizer is not installed (it comes with the CUDA toolkit)"
    log = folder / f"{tool}.log"
    front = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--log-file", str(log)]
    # Libraries ask the driver for functions that it may lack: such answers are no fault of the
    # kernel's. Nor are its compilers to be watched: they run where the front end is out of reach.
    front += ["--report-api-errors", "no", "--target-processes", "application-only"]
    front += ["--launch-timeout", "0"]  # importing torch takes longer than it would wait
    # Every tensor an allocation of its own: inside torch's large blocks nothing would be out of
    # bounds.
    return _Command(tool, [*front, *words], {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def _compute_sanitizer() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    folders = [os.environ.get("PATH", os.defpath), f"{home}/bin", f"{home}/compute-sanitizer"]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def _runtime_libraries() -> list[str] | str:
    """Paths of g++'s sanitizer runtimes, or why there are none."""
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        return "no C++ compiler found"
    found = []
    for name in ("libasan.so", "libubsan.so"):
        asked = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        path = asked.stdout.strip()
        if not os.path.isabs(path):  # a compiler that does not have it repeats the bare name
            return f"{Path(compiler).name} has no {name}"
        found.append(path)
    return found


def _prepare(
    folder: Path,
    solution: Solution,
    definition: Definition,
    operator: ModuleType,
    device: str,
    workloads: list[Workload],
) -> None:
    """Write what the checked process reads: the solution, and small inputs with fresh values."""
    import torch

    record = definition.model_dump(mode="json")
    calls = []
    for number, (axes, make, named) in enumerate(_small(definition, operator, workloads)):
        seed = int.from_bytes(os.urandom(7), "little")
        generator = torch.Generator().manual_seed(seed)
        made = operator.make_inputs(record, axes, make, named, generator, "cpu")
        file = f"inputs-{number}.pt"
        torch.save([made[name] for name in definition.inputs], folder / file)
        outputs = [
            {"shape": definition.shape_of(spec, axes), "dtype": spec.dtype}
            for spec in definition.outputs.values()
        ]
        calls.append({"inputs": file, "outputs": outputs})
    request = {"solution": solution.model_dump(mode="json"), "device": device, "calls": calls}
    (folder / "request.json").write_text(json.dumps(request))


def _small(definition: Definition, operator: ModuleType, workloads: list[Workload]) -> list[Inputs]:
    """Those of the operator's cases and the workloads, small ones first."""
    cases = getattr(operator, "cases", None)
    declared = cases(definition.model_dump(mode="json")) if cases else []
    found: list[Inputs] = [(dict(axes), dict(make), {}) for axes, make in declared]
    for workload in workloads:
        scalars = {k: v.value for k, v in workload.inputs.items() if v.type == "scalar"}
        found.append((workload.axes, workload.make, scalars))
    found.sort(key=lambda item: tensor_bytes(definition, item[0]))
    kept: list[Inputs] = []
    left = BYTES
    for item in found[:SETS]:
        left -= tensor_bytes(definition, item[0])
        if kept and left < 0:
            break
        kept.append(item)
    return kept


def _run(command: _Command, folder: Path, deadline_s: float) -> Sanitized:
    started = time.perf_counter()
    environment = confinement.scrubbed(dict(os.environ), "")
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
    for name in ("calls", confinement.OUTPUT):
        (folder / name).unlink(missing_ok=True)
    with open(folder / confinement.OUTPUT, "ab") as output:
        process = subprocess.Popen(
            command.words,
            env={**environment, **command.environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        code: int | None = process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _end(process)
    seconds = round(time.perf_counter() - started, 2)
    return _judged(command.tool, code, folder, seconds, deadline_s)


def _judged(
    tool: Tool, code: int | None, folder: Path, seconds: float, deadline_s: float
) -> Sanitized:
    """The record of a process that ended with `code`; None: it did not end in time."""
    calls = _calls(folder)
    log = folder / f"{tool}.log"
    said = log.read_text(errors="replace") if log.is_file() else ""
    said += confinement.printed(folder, most=8 * TEXT)
    said = confinement.cleaned(said, folder).strip()
    attached = tool in TOOLS["cpu"] or SUMMARY in said
    if code == 0 and attached:
        return Sanitized(tool=tool, outcome="clean", calls=calls, seconds=seconds)
    if code == 0:
        text = f"it has watched nothing: {said[-TEXT:]}"
    elif code is None:
        text = f"not finished after {deadline_s:g} s"
    elif code == UNBUILT:
        text = f"the kernel does not build for it: {said[-TEXT:]}"
    elif code == FOUND or calls or (folder / "calls").exists():
        # A kernel that passed its judge and crashes here has been found out all the same.
        return Sanitized(
            tool=tool, outcome="errors", text=_telling(said), calls=calls, seconds=seconds
        )
    else:
        text = f"it does not start (exit code {code}): {said[-TEXT:]}"
    return Sanitized(tool=tool, outcome="not available", text=text, calls=calls, seconds=seconds)


def _calls(folder: Path) -> int:
    """Calls that came back, as the checked process counted them."""
    try:
        return len((folder / "calls").read_text())
    except OSError:
        return 0


def _telling(said: str) -> str:
    """The part of a checker's report that names the fault: from its first error line on."""
    lines = said.splitlines()
    marks = ("ERROR:", "runtime error:", "========= Invalid", "========= Error", "hazard", "Race")
    first = next((i for i, line in enumerate(lines) if any(m in line for m in marks)), 0)
    return "\n".join(lines[first : first + LINES])[:TEXT]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group, which may outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
