"""What a candidate's process is given: environment, folder, limits, no network."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
import sys
import tempfile
from pathlib import Path

from evaluators import processes

FILE_BYTES = 64 << 20
"""Largest file a candidate may write, its printed output among them."""

TRUSTED_FILE_BYTES = 4 << 30
"""The same for a trusted solution: libraries' compilers write large intermediate files."""

OUTPUT = "output.log"
"""Name of the file in the candidate's folder that takes what it prints."""

KEPT = (
    "PATH", "LANG", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "PYTHONPATH", "VIRTUAL_ENV",
    "CC", "CXX",
)  # fmt: skip
"""Environment variables that reach a candidate; no other does, so that no API key can."""

CACHES = (
    "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CUDA_CACHE_PATH",
    "TRITON_CACHE_DIR", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TVM_FFI_CACHE_DIR", "TILELANG_CACHE_DIR", "TILELANG_TMP_DIR", "FLASHINFER_WORKSPACE_BASE",
    "CUTE_DSL_CACHE_DIR", "DG_JIT_CACHE_DIR",
)  # fmt: skip
"""Variables that say where programs and libraries write; a candidate's own folder."""

KEPT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "MACA_", "NCCL_")

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


BOUND = {"OMP_PROC_BIND": "TRUE", "OMP_PLACES": "threads"}
"""For the CPU: each OpenMP thread keeps to a core of its own."""


def scrubbed(environment: dict[str, str], device: str) -> dict[str, str]:
    """The part of `environment` that a candidate may see, and settings that make timing steady.

    OpenMP threads sleep while they wait: the anchor and the candidate share cores, and a thread
    that spins in one would slow the other. On the CPU they keep to a core each: where the system
    places them, two may share one for a whole evaluation, which then is half as fast. Elsewhere
    they must not: a process's first thread is bound too, and all that build would share one core.
    OMP_NUM_THREADS does not pass: Ray sets it to 1 in actors that reserve no CPU, and kernels are
    to use all cores.
    """
    kept = {k: v for k, v in environment.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    return {
        **kept,
        "OMP_WAIT_POLICY": "PASSIVE",
        **(BOUND if device == "cpu" else {}),
        "KMP_BLOCKTIME": "0",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def enter(folder: Path, file_bytes: int, address_bytes: int | None) -> None:
    """Move the calling process into its folder and under its limits.

    `address_bytes`: address space beyond what is mapped now; None where the device maps its memory
    into the address space, as CUDA does.
    """
    os.chdir(folder)
    os.environ.update(dict.fromkeys(CACHES, str(folder)))
    tempfile.tempdir = None
    # CPython ignores SIGXFSZ, which would turn a full output file into an endless stream of errors.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if address_bytes is not None:
        limit = processes.virtual_bytes() + address_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _redirect(folder / OUTPUT)


def leave_network() -> str:
    """Move the caller into a network namespace of its own; returns '' or why that is impossible."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return ""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError as error:
        return f"user namespace: {error}"
    return ""


def printed(folder: Path, most: int = 3000) -> str:
    """The end of what the candidate printed, at most `most` bytes of it.

    '' where it put a link or a pipe in the file's place: the judge may read what it may not.
    """
    try:
        with open(folder / OUTPUT, "rb", opener=_regular) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            text = file.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return f"... {size} bytes printed, the end:\n{text}" if size > most else text


def cleaned(text: str, folder: Path) -> str:
    """`text` without the candidate's folder and without control characters."""
    for path in {str(folder), str(folder.resolve())}:
        text = text.replace(path + "/", "").replace(path, ".")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def _regular(path: str, flags: int) -> int:
    opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(opened).st_mode) or os.fstat(opened).st_nlink != 1:
        os.close(opened)
        raise OSError(errno.EINVAL, "not an ordinary file")
    return opened


def _redirect(path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
