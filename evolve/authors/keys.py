"""Keys live in this process alone: taken out of the environment before others start."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from evolve.config import RunConfig
from evolve.llm.settings import key_of
from evolve.store import FILE, Store

REPLAY = "replay"
"""Key of a replay's facts in its store."""
PARENTS = 3
"""Folders above a champion's or a solution's file that may be its run."""


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


def drop(names: Iterable[str], environ: MutableMapping[str, str]) -> None:
    """Takes variables that nobody here needs out of `environ`, so that no process inherits them."""
    for name in names:
        if name in environ:
            _erase(name, environ[name])
            del environ[name]


def named(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Variables that a run's `[llm]`, or that of the run that it repeats, takes keys from."""
    models = (meta["config"].get("llm") or {}).get("models") or ()
    repeated = (meta.get(REPLAY) or {}).get("keys") or ()
    own = {model["key_env"] for model in models if model.get("key_env")}
    return tuple(sorted(own | set(repeated)))


def named_near(path: Path) -> tuple[str, ...]:
    """The same of the run at `path`, or of the one that it lies in; empty without any."""
    for folder in (path, *path.resolve().parents[:PARENTS]):
        if (folder / FILE).is_file():
            store = Store.open(folder, readonly=True)
            try:
                return named(store.meta)
            finally:
                store.close()
    return ()


def _erase(name: str, value: str) -> None:
    """Overwrites the variable where the system shows a process's first environment to others."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    address = library.getenv(name.encode())
    size = len(value.encode(errors="surrogateescape"))
    if address and ctypes.string_at(address, size + 1) == value.encode() + b"\0":
        ctypes.memset(address, 0, size)
