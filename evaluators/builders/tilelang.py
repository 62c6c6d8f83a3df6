"""Builder of TileLang solutions: CUDA, and the `c` target for kernels on the CPU."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from evaluators.builders import absent, cubin
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


class TileLangBuilder(Builder):
    """Imports the module; kernels compile where its `run` asks TileLang for them."""

    language: ClassVar[Language] = Language.TILELANG

    def build(self, solution: Solution, folder: Path, device: str) -> Built:
        started = time.perf_counter()
        _private_cache(folder)
        others = _kernels()
        module = import_entry(solution, folder)
        seconds = time.perf_counter() - started
        call = entry_function(module, solution)
        return Built(call=call, facts=quietly(lambda: _facts(others, folder, seconds)))

    def compile_only(
        self, solution: Solution, inputs: list[Any], folder: Path, target: str
    ) -> BuildFacts:
        """Lowers the kernels that `run` asks for and compiles them with nvcc; none is launched.

        A kernel that names its own target (`target="c"`) is compiled for that one.
        """
        from tilelang.jit.kernel import JITKernel
        from tvm.target import Target

        started = time.perf_counter()
        _private_cache(folder)
        absent.capability_of(target)
        others = _kernels()
        with (
            absent.torch_device(target),
            Target({"kind": "cuda", "arch": target}),
            absent.replaced(JITKernel, __call__=_skip),
        ):
            module = import_entry(solution, folder)
            run = entry_function(module, solution)
            try:
                run(*inputs)
            except Exception as error:  # whatever the candidate's code or the compiler raises
                raise BuildError(describe(error, folder)) from error
            facts = _facts(others, folder, 0.0)
        if not facts.kernels:
            raise BuildError(f"{solution.spec.entry_function} compiled no TileLang kernel")
        if facts.shared_bytes > absent.shared_limit(target):
            raise BuildError(
                f"{facts.shared_bytes} bytes of shared memory, "
                f"{target} allows {absent.shared_limit(target)}"
            )
        return facts.model_copy(update={"seconds": time.perf_counter() - started})


def _private_cache(folder: Path) -> None:
    os.environ["TILELANG_CACHE_DIR"] = str(folder / "tilelang")
    os.environ["TILELANG_TMP_DIR"] = str(folder / "tilelang")
    os.environ["TILELANG_PRINT_ON_COMPILATION"] = "0"


def _skip(kernel: Any, *args: Any, **options: Any) -> Any:
    """Stands for a launch: nothing, or empty tensors where the kernel returns its outputs."""
    import torch

    outputs = [
        torch.empty([int(n) for n in kernel.params[i].shape], dtype=kernel.params[i].torch_dtype())
        for i in kernel.out_idx or ()
    ]
    return outputs[0] if len(outputs) == 1 else outputs or None


def _kernels() -> list[Any]:
    """All compiled kernels of this process, wherever a candidate keeps them."""
    from tilelang.jit.kernel import JITKernel

    return [item for item in gc.get_objects() if type(item) is JITKernel]


def _facts(others: list[Any], folder: Path, seconds: float) -> BuildFacts:
    """Facts of all kernels that were compiled since there were only `others`."""
    names: dict[str, None] = {}
    shared = threads = 0
    target = ""
    earlier = {id(kernel) for kernel in others}
    for kernel in (k for k in _kernels() if id(k) not in earlier):
        device = getattr(getattr(kernel, "artifact", None), "device_mod", None)
        for symbol, function in device.functions.items() if device is not None else ():
            attributes = dict(function.attrs or {})
            names[str(attributes.get("global_symbol", symbol))] = None
            shared = max(shared, _number(attributes.get("dyn_shared_memory_buf")))
            extents = dict(attributes.get("thread_extent", {}))
            threads = max(threads, _number(extents.get("threadIdx.x")))
        target = str(kernel.target.attrs.get("arch", kernel.target.kind.name))
    usages = cubin.usage(sorted((folder / "tilelang").rglob("*.cubin")))
    return BuildFacts(
        seconds=seconds,
        kernels=tuple(names),
        shared_bytes=max([shared, *(u.shared_bytes for u in usages)]),
        registers=max((u.registers for u in usages), default=0),
        spills=max(((u.stack_bytes + 3) // 4 for u in usages), default=0),
        num_warps=threads // 32,
        target=target,
    )


def _number(value: Any) -> int:
    """A whole number not below zero; 0 where the compiler left a symbol or nothing."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError):
        return 0
