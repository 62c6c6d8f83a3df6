"""Builder of C++ solutions for the CPU: g++ with OpenMP, exported through apache-tvm-ffi."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from evaluators.builders import native
from evaluators.builders.base import Builder, BuildError, Built, write_sources
from evaluators.guard import library
from evaluators.schema import BuildFacts, Language, Solution

SUFFIXES = (".cpp", ".cc", ".cxx")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC")


class CppBuilder(Builder):
    """Compiles all C++ sources to one shared library with `FLAGS`."""

    language: ClassVar[Language] = Language.CPP

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        compiled = self._compile(solution, folder)
        refused = list(library.reasons(compiled.library)) if self.guarded else []
        if refused:
            raise BuildError("\n".join(refused))
        facts = self._facts(solution, compiled)
        return Built(call=native.load(compiled, solution), facts=lambda: facts)

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        """Compiles for this machine: C++ solutions run on the CPU, whatever the target."""
        return self._facts(solution, self._compile(solution, folder))

    def _compile(self, solution: Solution, folder: Path) -> native.Compiled:
        write_sources(solution, folder)
        command = [find_compiler(), *FLAGS, "-shared", "-Wl,--no-undefined"]
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


def find_compiler() -> str:
    """Path of the C++ compiler: `$CXX`, else g++. BuildError when there is none."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if found is None:
        raise BuildError("no C++ compiler found: install g++ or set CXX")
    return found
