"""What a builder is: it turns the source of one solution into something that can be called.

A builder runs in a disposable child process with a private folder: sources, objects and compile
caches of one candidate all live there and go away with it.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from evaluators.schema import BuildFacts, Language, Solution


class BuildError(Exception):
    """The solution does not compile, import or export its entry point; the text is for a person."""


@dataclass(frozen=True)
class Built:
    """A solution that can run.

    `call(*inputs, *outputs)` is the entry point in destination-passing form. Where `prepare` is set
    (libraries that plan outside the timed call) `prepare(*inputs, *outputs)` returns the callable
    of no arguments that does the job, and `call` prepares and runs at once. `facts()` is complete
    only after the first call, because JIT languages compile then; it never raises.
    """

    call: Callable[..., Any]
    facts: Callable[[], BuildFacts]
    prepare: Callable[..., Callable[[], Any]] | None = None


class Builder(ABC):
    """Builds the solutions of one language. One instance serves every candidate of a process."""

    language: ClassVar[Language]

    guarded = False
    """Whether what was compiled is looked at before it is loaded, see `guard.library`."""

    @abstractmethod
    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        """Compile or import `solution` inside `folder` for `device` (`cuda` or `cpu`).

        Raises BuildError. JIT languages may also raise their own errors at the first call.
        """

    @abstractmethod
    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        """Compile for `target` (such as `sm_90a`) on a machine without that device; nothing runs.

        `inputs` are the CPU tensors and scalars of `run(*inputs, *outputs)`, outputs included;
        their shapes and dtypes choose what JIT languages compile. Raises BuildError.
        """


def write_sources(solution: Solution, folder: Path) -> Path:
    """Write all sources below `folder`; returns the entry file's path."""
    for source in solution.sources:
        path = folder / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.content)
    return folder / solution.spec.entry_file


def import_entry(solution: Solution, folder: Path) -> ModuleType:
    """Write a Python solution and import its entry file under a name of its own.

    The sources stay on disk because Triton and TileLang read a kernel's text through `inspect`.
    Raises BuildError with the traceback inside the candidate when the import fails.
    """
    path = write_sources(solution, folder)
    name = f"candidate_{solution.digest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BuildError(f"{solution.spec.entry_file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if len(solution.sources) > 1 and str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BuildError(describe(error, folder)) from error
    return module


def entry_function(module: Any, solution: Solution) -> Callable[..., Any]:
    """The entry point of a loaded module. Raises BuildError when it is missing."""
    name = solution.spec.entry_function
    function = getattr(module, name, None)
    if not callable(function):
        raise BuildError(f"{solution.spec.entry_file} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def quietly(read: Callable[[], BuildFacts]) -> Callable[[], BuildFacts]:
    """`read`, or empty facts where a compiler's records do not look as this version expects.

    Facts place a program in the archive; their absence must not fail a kernel that runs.
    """

    def facts() -> BuildFacts:
        try:
            return read()
        except Exception:
            return BuildFacts()

    return facts


def describe(error: BaseException, folder: Path) -> str:
    """The error with those traceback lines that lie in the candidate's own files."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if str(folder) in f.filename]
    lines = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])
