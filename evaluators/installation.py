"""Where programs and libraries lie that a candidate's process has to read: the system's, Python's.

Found once for all candidates. What of it holds the working folder, the home, the project or the
candidates' own folders is opened around those: a store may lie there, and keys do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
    "/run/opengl-driver", "/opt/nvidia", "/opt/cuda", "/opt/maca", "/opt/rocm", "/opt/intel",
    "/opt/rh", "/sys",
)  # fmt: skip
"""Readable: programs, libraries, what the kernel says about the hardware."""

ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "passwd", "group", "hosts",
    "nsswitch.conf", "host.conf", "localtime", "timezone", "locale.alias", "os-release",
    "alternatives", "nvidia", "nvidia-container-runtime", "OpenCL", "vulkan", "maca", "ssl/certs",
)  # fmt: skip
"""Readable below /etc, where keys and passwords lie too."""

TOOLS = ("g++", "gcc", "c++", "cc", "clang", "clang++", "ld", "nvcc", "ninja", "mxcc")
PATHS = ("PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "VIRTUAL_ENV")
PATH_PREFIXES = ("CUDA_", "MACA_")
"""Environment variables that name folders of programs and libraries."""

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE.parent.name in ("site-packages", "dist-packages")
PROJECT = frozenset(() if INSTALLED else (PACKAGE.parent,))
"""The project's folder, which may hold results: of it only `PACKAGE` is open."""

PARTS = (
    "bin", "include", "lib", "lib32", "lib64", "nvvm", "pyvenv.cfg", "share", "targets",
)  # fmt: skip
"""What Python's installation is made of, should its folder hold other things too."""


def readable(temporary: Path) -> tuple[Path, ...]:
    """Folders and files that a candidate may read; `temporary` is where candidates' folders lie.

    Quick as long as no module was imported since the last call: call it before forking.
    """
    return _readable(temporary, len(sys.modules))


@lru_cache(maxsize=1)
def _readable(temporary: Path, modules: int) -> tuple[Path, ...]:
    hidden = _hidden(temporary)
    wanted = [*_python(), *_named(), *_toolchains(), Path("/usr/local/cuda")]
    wanted += [Path(name) for name in SYSTEM]
    wanted += [Path("/etc", name) for name in ETC]
    found = [PACKAGE]
    for path in dict.fromkeys(p.resolve() for p in wanted):
        found += _around(path, hidden)
    for entry in _search_path():
        holds = any(entry == folder or entry in folder.parents for folder in hidden)
        found += _modules(entry) if holds else [entry]
    known = {path for path in found if os.path.exists(path)}
    return tuple(sorted(path for path in known if known.isdisjoint(path.parents)))


def _python() -> list[Path]:
    prefixes = dict.fromkeys((Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()))
    return [path for p in prefixes for path in (p, *(p / part for part in PARTS))]


def _hidden(temporary: Path) -> frozenset[Path]:
    found = [temporary, *PROJECT]
    with contextlib.suppress(RuntimeError):  # a user without an entry, as containers have them
        found.append(Path.home())
    with contextlib.suppress(OSError):  # the working folder was removed
        found.append(Path.cwd())
    needed = set(_python()) - {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    resolved = {path.resolve() for path in found}
    return frozenset(p for p in resolved if needed.isdisjoint((p, *p.parents)))


def _around(path: Path, hidden: frozenset[Path]) -> list[Path]:
    """`path`, or what lies in it beside hidden folders."""
    if path in hidden or path == Path("/"):
        return []
    if not any(path in folder.parents for folder in hidden):
        return [path]
    return [found for child in _children(path) for found in _around(child, hidden)]


def _search_path() -> set[Path]:
    """Where Python looks for modules, and where it found those that came in other ways.

    Not the working folder, which stands there because of how the process was started.
    """
    named = {Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p}
    found = {Path(p).resolve() for p in sys.path if p}
    with contextlib.suppress(OSError):
        found -= {Path.cwd()} - named
    for name, module in list(sys.modules.items()):
        folders = getattr(module, "__path__", ()) if "." not in name else ()
        found |= {Path(folder).resolve().parent for folder in folders}
    return found - PROJECT


def _modules(folder: Path) -> list[Path]:
    """Python modules and packages in a folder that holds more than those."""
    kept = (".py", ".so", ".pth", ".dist-info", ".egg-info")
    return [c for c in _children(folder) if c.suffix in kept or os.path.exists(c / "__init__.py")]


def _children(folder: Path) -> list[Path]:
    """What lies in a folder, without links: they could lead into a hidden one."""
    try:
        return sorted(child for child in folder.iterdir() if not child.is_symlink())
    except OSError:
        return []


def _named() -> list[Path]:
    """Folders that the environment names for programs and libraries."""
    values = [v for k, v in os.environ.items() if k in PATHS or k.startswith(PATH_PREFIXES)]
    names = {name for value in values for name in value.split(os.pathsep)}
    return [Path(name) for name in sorted(names) if name.startswith("/")]


def _toolchains() -> Iterator[Path]:
    """Where compilers are installed: `/apps/gcc/13` for `/apps/gcc/13/bin/g++`."""
    chosen = (os.environ.get("CXX"), os.environ.get("CC"), *TOOLS)
    for tool in filter(None, chosen):
        found = shutil.which(tool)
        if found is not None:
            bin_folder = Path(found).resolve().parent
            yield bin_folder.parent if bin_folder.name == "bin" else bin_folder
