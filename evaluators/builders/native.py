"""What C++ and CUDA C++ share: run a compiler, load the result through apache-tvm-ffi.

The compiler is called directly, once for all sources, rather than through the package's ninja
rules: that saves a process and a second, and leaves the compiler's own words for the log.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.builders import binary
from evaluators.builders.base import BuildError, entry_function
from evaluators.schema import Solution

LIBRARY = "kernel.so"


@dataclass(frozen=True)
class Compiled:
    """A shared library, what the compiler said, how long it took, and its hash."""

    library: Path
    log: str
    seconds: float
    binary: str


def include_flags(folder: Path) -> list[str]:
    """Include paths: the candidate's folder, then the headers of tvm-ffi and DLPack."""
    from tvm_ffi.libinfo import find_dlpack_include_path, find_include_path

    paths = dict.fromkeys([str(folder), find_include_path(), find_dlpack_include_path()])
    return [f"-I{path}" for path in paths]


def link_flags() -> list[str]:
    """Link against the tvm-ffi runtime that this process has loaded."""
    from tvm_ffi.libinfo import find_libtvm_ffi

    return [f"-L{Path(find_libtvm_ffi()).parent}", "-ltvm_ffi"]


def sources(solution: Solution, folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Paths of the source files to compile. BuildError when there is none."""
    files = [str(folder / s.path) for s in solution.sources if Path(s.path).suffix in suffixes]
    if not files:
        raise BuildError(f"no source file ends in {', '.join(suffixes)}")
    return files


def compile_library(command: Sequence[str], folder: Path) -> Compiled:
    """Run a compiler that writes `folder / LIBRARY`. BuildError with its output when it fails."""
    started = time.perf_counter()
    # Relative to the folder: its name would stand in the library wherever `__FILE__` is used, and
    # no two builds would be equal.
    relative = [argument.removeprefix(f"{folder}/") for argument in command]
    done = subprocess.run(
        [*relative, "-o", LIBRARY],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    log = (done.stdout + done.stderr).replace(f"{folder}/", "")
    if done.returncode != 0:
        raise BuildError(log.strip() or f"{Path(command[0]).name} exited with {done.returncode}")
    seconds, library = time.perf_counter() - started, folder / LIBRARY
    return Compiled(library, log, seconds, binary.digest(library))


def load(compiled: Compiled, solution: Solution) -> Callable[..., Any]:
    """The entry point of a compiled library. BuildError when it does not load or export it.

    Tensors pass through DLPack. For CUDA tensors tvm-ffi sets `TVMFFIEnvGetStream` to torch's
    current stream on every call, so kernels launched on it are captured by CUDA graphs.
    """
    import tvm_ffi

    try:
        module = tvm_ffi.load_module(str(compiled.library))
    except (OSError, RuntimeError) as error:
        raise BuildError(f"the library does not load: {error}") from error
    return entry_function(module, solution)
