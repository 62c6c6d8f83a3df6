"""Builder of CUDA C++ solutions: nvcc (NVIDIA's toolkit), exported through apache-tvm-ffi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from evaluators.builders import native
from evaluators.builders.base import Builder, BuildError, Built, write_sources
from evaluators.schema import BuildFacts, Language, Solution

SUFFIXES = (".cu", ".cpp", ".cc", ".cxx")
FLAGS = (
    "-std=c++17", "-O3", "-shared", "--expt-relaxed-constexpr",
    "-Xcompiler", "-fPIC,-O3", "-Xptxas", "-v", "--no-compress",
)  # fmt: skip
"""`--no-compress`: device code stands in the library as it is, for `binary.digest`."""

_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


class CudaBuilder(Builder):
    """Compiles all CUDA and C++ sources to one shared library for the device's architecture."""

    language: ClassVar[Language] = Language.CUDA

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        if device != "cuda":
            raise BuildError(f"a CUDA solution does not run on {device}")
        import torch

        target = architecture(torch.cuda.get_device_capability())
        compiled = self._compile(solution, folder, target)
        facts = _facts(compiled, target)
        return Built(call=native.load(compiled, solution), facts=lambda: facts)

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        compiled = self._compile(solution, folder, target)
        return _facts(compiled, target)

    @staticmethod
    def _compile(solution: Solution, folder: Path, target: str) -> native.Compiled:
        write_sources(solution, folder)
        nvcc = find_nvcc()
        number = target.removeprefix("sm_")
        command = [nvcc, *FLAGS, f"-gencode=arch=compute_{number},code=sm_{number}"]
        command += native.include_flags(folder)
        command += native.sources(solution, folder, SUFFIXES)
        return native.compile_library([*command, *native.link_flags(), *_driver(nvcc)], folder)


def _facts(compiled: native.Compiled, target: str) -> BuildFacts:
    facts = parse_log(compiled.log, compiled.seconds, target)
    return facts.model_copy(update={"binary": compiled.binary})


def architecture(capability: tuple[int, int]) -> str:
    """nvcc's name for a compute capability, with the architecture's own features where it has any.

    From 9.0 on, wgmma, TMA and the tensor cores' newest forms exist only under the `a` name.
    """
    major, minor = capability
    return f"sm_{major}{minor}" + ("a" if major >= 9 else "")


def parse_log(log: str, seconds: float, target: str) -> BuildFacts:
    """Facts from `ptxas -v`: maxima over the kernels; spills in 32-bit registers a thread.

    Shared memory is the static part: what a launch adds is known only to the host code.
    """

    def most(pattern: re.Pattern[str]) -> int:
        return max((int(n) for n in pattern.findall(log)), default=0)

    return BuildFacts(
        seconds=seconds,
        kernels=_demangled(list(dict.fromkeys(_ENTRY.findall(log)))),
        shared_bytes=most(_SHARED),
        registers=most(_REGISTERS),
        spills=(most(_SPILLS) + 3) // 4,
        target=target,
    )


def find_nvcc() -> str:
    """Path of nvcc: in `$CUDA_HOME`, on PATH or in the usual folder. BuildError when absent."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    folders = [f"{home}/bin"] if home else []
    folders += [os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    found = shutil.which("nvcc", path=os.pathsep.join(folders))
    if found is None:
        raise BuildError("nvcc is not there: CUDA C++ needs NVIDIA's CUDA toolkit")
    return found


def _driver(nvcc: str) -> list[str]:
    """Link flags for the driver API where the toolkit has its stub (tensor maps need it)."""
    home = Path(nvcc).resolve().parent.parent
    for stubs in (home / "lib64" / "stubs", *sorted(home.glob("targets/*/lib/stubs"))):
        if (stubs / "libcuda.so").exists():
            return [f"-L{stubs}", "-lcuda"]
    return []


def _demangled(names: list[str]) -> tuple[str, ...]:
    """C++ names without parameters, where c++filt is installed; else as they are."""
    tool = shutil.which("c++filt")
    if tool is None or not names:
        return tuple(names)
    done = subprocess.run([tool, "-p", *names], capture_output=True, text=True, check=False)
    return tuple(done.stdout.split("\n")[: len(names)]) if done.returncode == 0 else tuple(names)
