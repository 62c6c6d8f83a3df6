"""Builder of Triton solutions."""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from evaluators.builders import absent, cubin, jitted
from evaluators.builders.base import (
    Builder,
    BuildError,
    Built,
    describe,
    entry_function,
    import_entry,
    quietly,
)
from evaluators.schema import BuildFacts, Language, Solution


class TritonBuilder(Builder):
    """Imports the module; kernels compile at their first launch."""

    language: ClassVar[Language] = Language.TRITON

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        started = time.perf_counter()
        os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
        module = import_entry(solution, folder)
        seconds = time.perf_counter() - started
        call = entry_function(module, solution)
        return Built(
            call=call, facts=quietly(lambda: _facts(module.__name__, seconds, "", solution))
        )

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        started = time.perf_counter()
        os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
        with absent.torch_device(target), _compiling_for(target):
            module = import_entry(solution, folder)
            run = entry_function(module, solution)
            try:
                run(*inputs)
            except Exception as error:  # whatever the candidate's code or the compiler raises
                raise BuildError(describe(error, folder)) from error
            facts = _facts(module.__name__, 0.0, target, solution)
        if not facts.kernels:
            raise BuildError(f"{solution.spec.entry_function} launched no Triton kernel")
        if facts.shared_bytes > absent.shared_limit(target):
            raise BuildError(
                f"{facts.shared_bytes} bytes of shared memory, "
                f"{target} allows {absent.shared_limit(target)}"
            )
        return _with_usage(facts, folder, time.perf_counter() - started)


@contextmanager
def _compiling_for(target: str) -> Iterator[None]:
    """Launches compile for `target` and stop there; no driver is asked."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    number = absent.capability_of(target)
    stand_in = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", number, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device=None: 0,
        get_device_capability=lambda device=None: (number // 10, number % 10),
        get_active_torch_device=lambda: "cpu",
        get_benchmarker=lambda: _first_config,
    )
    launch = JITFunction.run

    @functools.wraps(launch)
    def compile_it(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return launch(self, *args, grid=grid, warmup=True, **options)

    before = driver._active
    driver.set_active(stand_in)
    try:
        with absent.replaced(JITFunction, run=compile_it):
            yield
    finally:
        driver._active = before


def _first_config(call: Any, **_: Any) -> list[float]:
    """Stands for an autotuner's benchmark: compiles every config, prefers none."""
    call()
    return [1.0, 1.0, 1.0]


def _kernels(module_name: str) -> list[Any]:
    """Compiled kernels of the module's JIT functions, wherever the module keeps them.

    The caches' layout is Triton's own and moves between versions; what does not look as expected
    is left out.
    """
    from triton.runtime.jit import JITFunction

    found = []
    for item in gc.get_objects():
        if not issubclass(type(item), JITFunction) or item.fn.__module__ != module_name:
            continue
        for cache in getattr(item, "device_caches", {}).values():
            compiled = cache[0] if isinstance(cache, tuple) else cache
            found += [k for k in compiled.values() if hasattr(k, "metadata")]
    return found


def _facts(module_name: str, seconds: float, target: str, solution: Solution) -> BuildFacts:
    kernels = _kernels(module_name)
    if not kernels:
        return BuildFacts(seconds=seconds, target=target)

    def most(name: str) -> int:
        return max(_number(k, name) for k in kernels)

    main = max(kernels, key=lambda k: _number(k.metadata, "shared"))
    number = getattr(getattr(main.metadata, "target", None), "arch", "")
    return BuildFacts(
        seconds=seconds,
        kernels=tuple(dict.fromkeys(str(getattr(k.metadata, "name", "?")) for k in kernels)),
        shared_bytes=_number(main.metadata, "shared"),
        registers=most("n_regs"),
        spills=most("n_spills"),
        num_warps=_number(main.metadata, "num_warps"),
        num_stages=_number(main.metadata, "num_stages"),
        binary=_binary(solution, kernels),
        target=target or (f"sm_{number}" if isinstance(number, int) else str(number)),
    )


def _binary(solution: Solution, kernels: list[Any]) -> str:
    """See `jitted`; nothing is said of kernels in several files, which `_kernels` may not find."""
    if len(solution.sources) > 1:
        return ""
    return jitted.digest(solution, [str(getattr(k, "asm", {}).get("ptx", "")) for k in kernels])


def _number(owner: Any, name: str) -> int:
    """A whole number not below zero; 0 where there is none (registers before a first launch)."""
    value = getattr(owner, name, 0)
    return max(0, value) if isinstance(value, int) else 0


def _with_usage(facts: BuildFacts, folder: Path, seconds: float) -> BuildFacts:
    """`facts` with registers and stack read from the compiled binaries."""
    usages = cubin.usage(sorted((folder / "triton").rglob("*.cubin")))
    return facts.model_copy(
        update={
            "seconds": seconds,
            "registers": max((u.registers for u in usages), default=0),
            "spills": max(((u.stack_bytes + 3) // 4 for u in usages), default=0),
        }
    )
