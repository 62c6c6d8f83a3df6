"""Finds operators in `kernels/`, their seeds in `seeds/` and their peers.

Everything here is data found by path (the layout stands in `docs/architecture.md`). Whatever is
wrong with it is a `CatalogError`: one clear line for the person who wrote it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import sys
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from evaluators import guard
from evaluators.schema import BuildSpec, Definition, Language, Record, Solution, SourceFile

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds `kernels/` and `seeds/`."""

_R = TypeVar("_R", bound=Record)

AUTHOR = "tilevolve"

OPERATOR_NAMES = ("exact", "honest", "run", "axes_of", "make_inputs", "cost")
"""Functions that every `operator.py` defines; `vary`, `cases` and `ALLOWANCE` are optional."""

SUFFIXES = {
    Language.TRITON: ".py",
    Language.TILELANG: ".py",
    Language.PYTHON: ".py",
    Language.CUDA: ".cu",
    Language.CPP: ".cpp",
}


class CatalogError(Exception):
    """Something in `kernels/` or `seeds/` is unknown, missing or malformed; one line says what."""


@dataclass(frozen=True)
class Operator:
    """A family of definitions. `defaults` names the definition for each device (`cuda`, `cpu`)."""

    name: str
    folder: Path
    definitions: dict[str, Definition]
    defaults: dict[str, str] = field(default_factory=dict)

    def definition(self, name: str | None, device: str) -> Definition:
        """The named definition, or the default for `device`. CatalogError when there is none."""
        if name is None:
            name = self.defaults.get(device)
        if name is None:
            raise CatalogError(
                f"{self.name} names no default definition for {device}; "
                f"choose one of: {', '.join(self.definitions)}"
            )
        if name not in self.definitions:
            raise CatalogError(_unknown(f"definition of {self.name}", name, self.definitions))
        return self.definitions[name]


@dataclass(frozen=True)
class Peer:
    """Somebody else's kernel.

    `bound` marks one that is not the same job, only a limit; `skips` names outputs that it does not
    write and that are not judged.
    """

    solution: Solution
    requires: tuple[str, ...] = ()
    bound: bool = False
    skips: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Required modules that are not installed here; empty when the peer can run."""
        return tuple(m for m in self.requires if importlib.util.find_spec(m) is None)


class _Seed(Record):
    """One `[[seed]]` block of `seeds.toml`."""

    file: str
    language: Language
    devices: tuple[str, ...] = ("cuda",)
    definitions: tuple[str, ...] = ("*",)
    description: str = ""


class _Peer(Record):
    """One entry of `PEERS` in `peers.py`."""

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    requires: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cuda",)
    definitions: tuple[str, ...] = ("*",)
    bound: bool = False
    skips: tuple[str, ...] = ()
    description: str = ""


def fits(name: str, globs: Iterable[str]) -> bool:
    """Whether a definition's name matches one of the globs."""
    return any(fnmatchcase(name, glob) for glob in globs)


def list_operators(root: Path | None = None) -> list[str]:
    """Names of all operators, sorted."""
    kernels = (root or ROOT) / "kernels"
    return sorted(p.parent.name for p in kernels.glob("*/definitions"))


def load_operator(name: str, root: Path | None = None) -> Operator:
    """The operator and its definitions, validated. Raises CatalogError."""
    known = list_operators(root)
    if name not in known:
        raise CatalogError(_unknown("operator", name, known))
    folder = (root or ROOT) / "kernels" / name
    definitions = {}
    for path in sorted((folder / "definitions").glob("*.json")):
        definition = _load_definition(path)
        definitions[definition.name] = definition
    if not definitions:
        raise CatalogError(f"operator {name} has no definitions in {folder / 'definitions'}")
    defaults = read_toml(folder / "workloads.toml").get("default", {})
    for device, default in defaults.items():
        if default not in definitions:
            where = f"{name}/workloads.toml: default for {device}"
            raise CatalogError(f"{where}: {_unknown('definition', default, definitions)}")
    return Operator(name, folder, definitions, defaults)


def load_module(operator: Operator) -> ModuleType:
    """The operator's `operator.py`, imported once per process (it imports torch). CatalogError."""
    module, where = _import(operator.folder / "operator.py"), f"{operator.name}/operator.py"
    missing = [n for n in OPERATOR_NAMES if not callable(getattr(module, n, None))]
    if missing:
        raise CatalogError(f"{where} does not define {', '.join(missing)}")
    for name in ("vary", "cases"):
        if not callable(getattr(module, name, len)):
            raise CatalogError(f"{where}: {name} is not a function")
    try:
        _ALLOWANCE.validate_python(getattr(module, "ALLOWANCE", {}))
    except ValidationError as error:
        raise CatalogError(f"{where}: ALLOWANCE: {explain(error)}") from error
    return module


_FACTOR = Annotated[float, Field(ge=1.0)]
_ALLOWANCE = TypeAdapter(dict[str, tuple[_FACTOR, _FACTOR]])
"""Output name or dtype -> factors on the RMS and on the largest honest error."""


def seeds(
    operator: Operator, definition: Definition, device: str, root: Path | None = None
) -> list[Solution]:
    """Starting kernels of `definition` on `device` in declared order; the first is the anchor.

    Raises CatalogError when there is none, a file is missing or an entry point does not fit.
    """
    folder = (root or ROOT) / "seeds" / operator.name
    path = folder / "seeds.toml"
    if not path.is_file():
        raise CatalogError(f"operator {operator.name} has no seeds: {path} is missing")
    blocks = _records(_Seed, read_toml(path).get("seed", []), f"{operator.name}/seeds.toml: seed")
    found = [
        _seed(folder, block, definition)
        for block in blocks
        if device in block.devices and fits(definition.name, block.definitions)
    ]
    if not found:
        raise CatalogError(f"no seed of {operator.name} fits {definition.name} on {device}")
    return found


def peers(operator: Operator, definition: Definition, device: str) -> list[Peer]:
    """Peers of `definition` on `device`, installed here or not. Raises CatalogError."""
    path = operator.folder / "peers.py"
    if not path.is_file():
        return []
    where = f"{operator.name}/peers.py"
    listed = getattr(_import(path), "PEERS", None)
    if not isinstance(listed, list):
        raise CatalogError(f"{where} does not define PEERS, a list")
    return [
        Peer(_peer_solution(block, definition), block.requires, block.bound, block.skips)
        for block in _records(_Peer, listed, f"{where}: peer")
        if device in block.devices and fits(definition.name, block.definitions)
    ]


def read_toml(path: Path) -> dict[str, Any]:
    """Content of a TOML file; empty when it does not exist. CatalogError when it is malformed."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path.parent.name}/{path.name} is not valid TOML: {error}") from error


def explain(error: ValidationError) -> str:
    """The first thing that is wrong with a record, on one line: which field, and why."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"field {where!r}: {message}" if where else message


def _seed(folder: Path, block: _Seed, definition: Definition) -> Solution:
    path = folder / block.file
    where = f"seed {folder.name}/{block.file}"
    try:
        content = path.read_text()
    except OSError as error:
        raise CatalogError(f"{where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{where} is not text: {error}") from error
    if not content.strip():
        raise CatalogError(f"{where} is empty")
    file = "kernel" + SUFFIXES[block.language]
    solution = Solution(
        name=f"seed_{path.stem}",
        definition=definition.name,
        author=AUTHOR,
        description=block.description or None,
        sources=(SourceFile(path=file, content=content),),
        spec=BuildSpec(
            language=block.language,
            target_hardware=block.devices,
            entry_point=f"{file}::run",
            binding="tvm-ffi" if block.language in (Language.CUDA, Language.CPP) else None,
        ),
    )
    reasons = guard.entry_reasons(solution, definition)
    if reasons:
        raise CatalogError(f"{where}: {reasons[0]}")
    return solution


def _peer_solution(block: _Peer, definition: Definition) -> Solution:
    entry = "prepare" if "def prepare(" in block.source else "run"
    return Solution(
        name=block.name,
        definition=definition.name,
        author="peer",
        description=block.description or None,
        sources=(SourceFile(path="kernel.py", content=block.source),),
        spec=BuildSpec(
            language=Language.PYTHON,
            target_hardware=block.devices,
            entry_point=f"kernel.py::{entry}",
            dependencies=block.requires,
        ),
    )


def _load_definition(path: Path) -> Definition:
    where = f"definition {path.parent.parent.name}/{path.name}"
    try:
        definition = Definition.model_validate(json.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CatalogError(f"{where} is not valid JSON: {error}") from error
    except ValidationError as error:
        raise CatalogError(f"{where}: {explain(error)}") from error
    if definition.name != path.stem:
        raise CatalogError(f"{where}: field 'name' is {definition.name!r}, not the file's name")
    return definition


def _records(kind: type[_R], rows: Any, where: str) -> list[_R]:
    records = []
    for number, row in enumerate(rows, 1):
        try:
            records.append(kind.model_validate(row))
        except ValidationError as error:
            raise CatalogError(f"{where} {number}: {explain(error)}") from error
    return records


def _import(path: Path) -> ModuleType:
    """Import a file once per process under a name made from its full path."""
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"catalog_{path.stem}_{key}"
    with _IMPORTING:  # a module is in sys.modules before it is complete
        return sys.modules.get(name) or _execute(path, name)


_IMPORTING = threading.Lock()


def _execute(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise CatalogError(f"{path.parent.name}/{path.name} is missing")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = f"{path.parent.name}/{path.name}"
        raise CatalogError(f"{where} cannot be imported: {error}") from error
    return module


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return f"unknown {kind} {name!r}; did you mean: {', '.join(near)}?"
    return f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}"
