"""What a Triton or TileLang source reaches beyond its language: libraries, flags, C functions."""

from __future__ import annotations

import re

from evaluators.guard import python_names as names
from evaluators.guard.cpp_names import FUNCTIONS, PREFIXES
from evaluators.guard.scope import is_below

_OPERATOR = re.compile(r"\b(?:tir|tl)\.\w*call_\w*(?:packed|extern)|\bpragma_import_")
_FLAG = re.compile(
    r"-(?:fplugin|include|imacros|specs|wrapper|B|x$|[lL](?!m$|gomp$)\S+$|W[alp],)|@\S"
    r"|-X(?:linker|preprocessor|assembler)|\S+\.(?:so(?:\.\d+)*|a|o|c|cc|cpp|s|S)$"
)
_LIBRARY = re.compile(r"\w*(?:gemm|gemv|syrk|trsm)\w*_?|(?:mkl|dnnl|openblas|scipy)_\w+", re.I)


def is_open(dotted: str) -> bool:
    """Whether a compiler's name may be used: its own, and not what its modules import."""
    prefix = next((p for p in names.OPEN_PREFIXES if is_below(dotted, (p,))), None)
    if prefix is None or (is_below(dotted, (names.CLOSED,)) and dotted not in names.BELOW_CLOSED):
        return False
    below = dotted.removeprefix(prefix).strip(".").split(".")
    return not any(part in names.PASSED_ON or part.startswith("_") for part in below)


def text_reason(text: str) -> str:
    """'' or why a source may not hold this text."""
    renamed = text.startswith("-D") and set(re.findall(r"\w+", text)) & FUNCTIONS.keys()
    if _FLAG.match(text) or renamed:
        return f"compiler flag {text!r} is not allowed"
    if _OPERATOR.search(text):
        return f"operator {text!r} is not allowed: it calls code from outside"
    return ""


def call_reason(name: str) -> str:
    """'' or why the C function of this name may not be called."""
    why = FUNCTIONS.get(name) or next((w for start, w in PREFIXES if name.startswith(start)), "")
    if not why and _LIBRARY.fullmatch(name):
        why = "the kernel computes, no library"
    return f"{name!r} is not allowed: {why}" if why else ""
