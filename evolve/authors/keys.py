"""Keys live in this process alone: taken out of the environment, cut out of what is kept."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, MutableMapping

from evolve.config import RunConfig
from evolve.llm.settings import key_of

SECRET_LENGTH = 8
"""Shorter values are placeholders, and occur in ordinary text."""
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)


def withdraw(config: RunConfig, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Takes the variables that hold models' keys out of `environ`; returns them.

    Done before any other process starts, so that none inherits them. UserError when a key is
    missing or cannot be sent.
    """
    models = config.llm.models if config.llm else ()
    for model in models:
        key_of(model, environ)
    names = sorted({model.key_env for model in models if model.key_env})
    for name in names:
        _erase(name, environ[name])
    return {name: environ.pop(name) for name in names}


def _erase(name: str, value: str) -> None:
    """Overwrites the variable where the system shows a process's first environment to others."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    address = library.getenv(name.encode())
    size = len(value.encode(errors="surrogateescape"))
    if address and ctypes.string_at(address, size + 1) == value.encode() + b"\0":
        ctypes.memset(address, 0, size)


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of variables that look like secrets, the longest first."""
    found = {v for k, v in environ.items() if _SECRET.search(k) and len(v) >= SECRET_LENGTH}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact(text: str, values: tuple[str, ...]) -> str:
    """`text` without secrets."""
    for value in values:
        text = text.replace(value, "[key]")
    return text
