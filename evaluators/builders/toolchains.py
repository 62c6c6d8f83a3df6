"""Versions of the compilers that are no Python packages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from evaluators.builders.base import BuildError
from evaluators.builders.cpp import find_compiler
from evaluators.builders.cuda import find_nvcc

_FINDERS: dict[str, Callable[[], str]] = {"g++": find_compiler, "nvcc": find_nvcc}
_VERSION = re.compile(r"(?:\bV|\) )(\d+\.\d[\d.]*)")


def versions() -> dict[str, str]:
    """What the C++ and CUDA C++ compilers of this machine call themselves, where there are any."""
    found = {}
    for name, find in _FINDERS.items():
        try:
            said = subprocess.run([find(), "--version"], capture_output=True, text=True, timeout=10)
        except (BuildError, OSError, subprocess.TimeoutExpired):
            continue
        if match := _VERSION.search(said.stdout):
            found[name] = match[1]
    return found
