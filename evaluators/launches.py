"""Which kernels a call launched on the device, and whether they are the solution's own.

`recorded` runs in the candidate's process, under torch's profiler (CUPTI). `fault` compares what it
recorded with the kernels that the source declares, in the judge. It tells a solution that has a
library do the work; a process that lies about its own profile is beyond it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from pydantic import Field, ValidationError

from evaluators.guard import lexer
from evaluators.guard.entry import PYTHON_LANGUAGES
from evaluators.schema import Language, Record, Solution

SHARE = 0.05
"""Part of the device's time that kernels which only fill or copy memory may take."""

UNAVAILABLE = "not available"

_FILLS = re.compile(
    r"^(Memset|Memcpy)\b|FillFunctor|direct_copy_kernel|bfloat16_copy_kernel|float16_copy_kernel"
)
_DECORATORS = ("jit", "prim_func")


class Launch(Record):
    """All launches of one kernel in one call."""

    name: str = Field(max_length=1000)
    count: int = Field(gt=0)
    device_us: float = Field(ge=0)


def recorded(call: Callable[[], Any]) -> list[dict[str, Any]]:
    """Kernels that one call launches, with counts and device time. Empty: nothing was recorded.

    The first recording of a process may miss what starts before the profiler is up, so that the
    second one counts.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    for _ in range(2):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            call()
            torch.cuda.synchronize()
    kernels = [
        e
        for e in profiler.key_averages()
        if e.device_type.name == "CUDA" and not e.is_user_annotation
    ]
    found = [
        Launch(name=k.key[:1000], count=k.count, device_us=float(k.self_device_time_total))
        for k in kernels
        if k.count > 0
    ]
    return [launch.model_dump(mode="json") for launch in found]


def fault(claimed: object, solution: Solution) -> str:
    """'' when the solution's own kernels did the work; otherwise what did, or why nobody knows.

    The text starts with `UNAVAILABLE` where the profiler recorded nothing.
    """
    try:
        launches = [Launch.model_validate(item) for item in _items(claimed)]
    except ValidationError:
        return f"{UNAVAILABLE}: the profile is malformed"
    total = sum(launch.device_us for launch in launches)
    if not total:
        return f"{UNAVAILABLE}: the profiler recorded no kernel"
    own = declared(solution)
    foreign = [x for x in launches if not any(is_named(x.name, name) for name in own)]
    if len(foreign) == len(launches):
        return f"none of its own kernels ran, but {_listing(foreign, total)}"
    # A solution that returns its outputs has them copied by the process that calls it.
    allowed = SHARE if solution.spec.destination_passing_style else 1.0
    others = [launch for launch in foreign if not _FILLS.search(launch.name)]
    fills = [launch for launch in foreign if _FILLS.search(launch.name)]
    if others:
        return f"kernels that are not its own ran: {_listing(others, total)}"
    if sum(launch.device_us for launch in fills) > allowed * total:
        return f"filling and copying memory takes more than {allowed:.0%}: {_listing(fills, total)}"
    return ""


def declared(solution: Solution) -> set[str]:
    """Names of the kernels that the sources declare."""
    found: set[str] = set()
    for source in solution.sources:
        if solution.spec.language in PYTHON_LANGUAGES:
            if source.path.endswith(".py"):
                found |= _python_kernels(source.content)
        elif solution.spec.language is Language.CUDA:
            found |= _cuda_kernels(source.content)
    return found


def is_named(launched: str, name: str) -> bool:
    """Whether the profiler's name of a kernel is that of the function `name`.

    Compilers decorate: parameters, template arguments, namespaces (C++), `_kernel` and numbers
    (TileLang), letters and numbers for specialised arguments (older Triton).
    """
    base = base_name(launched)
    if base == name:
        return True
    return base.startswith(name) and bool(
        re.fullmatch(r"(_kernel)?(_?\d+)?|_[0-9dce]+", base[len(name) :])
    )


def base_name(launched: str) -> str:
    """`void (anonymous namespace)::split<128>(float const*)` -> `split`."""
    outside, depth = [], 0
    for letter in launched.replace("(anonymous namespace)", "anonymous"):
        depth += (letter == "<") - (letter == ">")
        if not depth and letter != ">":
            outside.append(letter)
    words = re.split(r"::|[\s*&]+", "".join(outside).partition("(")[0].strip())
    return words[-1]


def _items(claimed: object) -> list[Any]:
    return list(claimed)[:1000] if isinstance(claimed, list) else []


def _listing(launches: list[Launch], total: float) -> str:
    shown = sorted(launches, key=lambda launch: -launch.device_us)[:5]
    return ", ".join(
        f"{x.name[:120]} ({x.count}x, {x.device_us / total:.0%} of the device's time)"
        for x in shown
    )


def _python_kernels(text: str) -> set[str]:
    """Functions with a decorator whose name ends in `jit` or `prim_func`, wherever they stand."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(_decorator(d).endswith(_DECORATORS) for d in node.decorator_list)
    }


def _decorator(node: ast.expr) -> str:
    """Last name of a decorator: `triton.jit(...)` -> `jit`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _cuda_kernels(text: str) -> set[str]:
    """Names between `__global__` and their parameters, launch bounds and attributes left out."""
    found = lexer.tokens(text)
    names = set()
    for start, token in enumerate(found):
        if token.text != "__global__":
            continue
        at = start + 1
        while at < len(found) and found[at].text not in ";{":
            if lexer.text_at(found, at + 1) == "(":
                if found[at].text not in _ATTRIBUTES:
                    names.add(found[at].text)
                    break
                at = lexer.matching(found, at + 1)
            at += 1
    return names


_ATTRIBUTES = {
    "__launch_bounds__", "__cluster_dims__", "__maxnreg__", "__block_size__", "__attribute__",
    "__declspec", "alignas",
}  # fmt: skip
