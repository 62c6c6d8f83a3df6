"""Builder of C++ solutions for the CPU: g++ with OpenMP, exported through apache-tvm-ffi."""

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

SUFFIXES = (".cpp", ".cc", ".cxx")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC")
HEADERS = ("tvm/ffi/container/tensor.h", "tvm/ffi/function.h")
"""What every solution includes; parsing them is half of a small module's compile time."""


class CppBuilder(Builder):
    """Compiles all C++ sources to one shared library with `FLAGS`."""

    language: ClassVar[Language] = Language.CPP

    def __init__(self) -> None:
        self._prefix: Path | None = None

    def warm_up(self, folder: Path) -> None:
        """Precompile `HEADERS` (1.5 s once, then about 0.4 s less for each module)."""
        import tvm_ffi  # noqa: F401

        prefix = folder / "prefix.h"
        prefix.write_text("".join(f"#include <{header}>\n" for header in HEADERS))
        compiler = _find_compiler()
        if compiler is None:
            return
        command = [
            compiler, *FLAGS, *native.include_flags(folder),
            "-x", "c++-header", str(prefix), "-o", f"{prefix}.gch",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        self._prefix = prefix if done.returncode == 0 else None

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        compiled = self._compile(solution, folder)
        facts = self._facts(solution, compiled)
        return Built(call=native.load(compiled, solution), facts=lambda: facts)

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        """Compiles for this machine: C++ solutions run on the CPU, whatever the target."""
        return self._facts(solution, self._compile(solution, folder))

    def _compile(self, solution: Solution, folder: Path) -> native.Compiled:
        write_sources(solution, folder)
        command = [_compiler(), *FLAGS, "-shared", "-Wl,--no-undefined"]
        if self._prefix is not None and _includes_headers(solution):
            command += ["-include", str(self._prefix)]
        command += native.include_flags(folder)
        command += native.sources(solution, folder, SUFFIXES)
        return native.compile_library([*command, *native.link_flags()], folder)

    @staticmethod
    def _facts(solution: Solution, compiled: native.Compiled) -> BuildFacts:
        return BuildFacts(
            seconds=compiled.seconds,
            kernels=(solution.spec.entry_function,),
            target="native",
            binary=compiled.binary,
        )


def _includes_headers(solution: Solution) -> bool:
    """Whether all sources include `HEADERS` themselves: a precompiled header must not add any."""
    return all(
        re.search(rf"^\s*#\s*include\s*<{re.escape(header)}>", source.content, re.MULTILINE)
        for source in solution.sources
        if Path(source.path).suffix in SUFFIXES
        for header in HEADERS
    )


def _find_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++")


def _compiler() -> str:
    """Path of the C++ compiler: `$CXX`, else g++. BuildError when there is none."""
    found = _find_compiler()
    if found is None:
        raise BuildError("no C++ compiler found: install g++ or set CXX")
    return found
