"""Checks on a compiled C++ library, before it is loaded.

What macros, templates and headers hide in a source stands plainly in what the linker made of it:
the functions of other libraries that it calls, and instructions that enter the system or read a
counter. Code that jumps into the middle of another instruction is not seen.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from evaluators.builders import binary
from evaluators.guard.cpp_names import FUNCTIONS, PREFIXES

_ALSO = {
    "a kernel opens no files, sockets or shared memory": """
        fopencookie mkostemp mkostemps mkstemps posix_openpt getpt grantpt renameat renameat2
        canonicalize_file_name splice sendfile dup dup2 dup3 close close_range""",
    "a kernel reads nothing of the system": "getloadavg readdir stat fstat lstat access",
    "a kernel starts no threads; OpenMP's parallel regions are all that it needs": """
        timer_create setitimer alarm GOMP_parallel_start GOMP_task_detach""",
    "a kernel does not look at the clock or sleep": "clock_getres pause select poll ppoll pselect",
}
_NAMES = FUNCTIONS | {name: why for why, names in _ALSO.items() for name in names.split()}
_HARMLESS = frozenset({"abort"})
"""What the standard library's headers may call by themselves."""

_CPP = re.compile(
    r"_ZN?K?St(?:6(?:chrono|thread)|7(?:jthread)|10filesystem)"
    r"|St1\d(?:basic_(?:filebuf|ifstream|ofstream|fstream)|__basic_file)|_ZSt\d(?:w?cin)\b"
)
_INSTRUCTION = re.compile(
    rb"\t(syscall|sysenter|sysexit|rdtscp?|rdpmc|rdpid|svc|int +\$0x(?!3\b)\w+|vmcall)\b"
)
_DEADLINE_S = 20.0


def reasons(library: Path) -> Iterator[str]:
    """What no kernel needs in the library at this path."""
    for name in sorted(binary.imports(library)):
        why = _why(name)
        if why:
            yield f"the compiled kernel calls {name!r}: {why}"
    for what in sorted(_instructions(library)):
        yield f"the compiled kernel holds the instruction {what!r}: not allowed"


def _why(name: str) -> str:
    """'' or why a kernel does not call this function of another library."""
    plain = name.strip("_").removeprefix("isoc99_").removesuffix("_chk").removesuffix("64")
    if name in _HARMLESS:
        return ""
    for known in (name, plain):
        if known in _NAMES:
            return _NAMES[known]
    if _CPP.search(name):
        return "a kernel uses no clocks, threads or files"
    return next((why for prefix, why in PREFIXES if name.startswith(prefix)), "")


def _instructions(library: Path) -> set[str]:
    """Instructions that no kernel needs; none where there is no disassembler."""
    tool = shutil.which("objdump")
    if tool is None:
        return set()
    command = [tool, "-d", "--no-show-raw-insn", library.name]
    try:
        done = subprocess.run(
            command, cwd=library.parent, capture_output=True, timeout=_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return set()  # far larger than any kernel: the source was looked at
    return {match.decode() for match in _INSTRUCTION.findall(done.stdout)}
