"""Builder of Python solutions: peers that call torch or another library."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from evaluators.builders.base import Builder, Built, entry_function, import_entry
from evaluators.schema import BuildFacts, Language, Solution


class PythonBuilder(Builder):
    """Imports the module; `prepare(*inputs, *outputs) -> callable` takes precedence over `run`."""

    language: ClassVar[Language] = Language.PYTHON

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        started = time.perf_counter()
        module = import_entry(solution, folder)
        facts = BuildFacts(seconds=time.perf_counter() - started, target=device)
        prepare = getattr(module, "prepare", None)
        if not callable(prepare):
            return Built(call=entry_function(module, solution), facts=lambda: facts)

        def call(*tensors: Any) -> Any:
            return prepare(*tensors)()

        return Built(call=call, facts=lambda: facts, prepare=prepare)

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        """Nothing compiles before the first call: imports the module and finds the entry point."""
        entry_function(import_entry(solution, folder), solution)
        return BuildFacts(target=target)
