"""OpenEvolve's checkpoints (version 0.4): `programs/*.json` beside a `metadata.json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.schema import Language
from evolve.errors import UserError

_SAID = {
    "triton": Language.TRITON,
    "tilelang": Language.TILELANG,
    "cuda": Language.CUDA,
    "cu": Language.CUDA,
    "cpp": Language.CPP,
    "c++": Language.CPP,
}
_TELLING = (
    (Language.TILELANG, re.compile(r"^\s*(?:import|from)\s+tilelang\b", re.MULTILINE)),
    (Language.TRITON, re.compile(r"^\s*(?:import|from)\s+triton\b", re.MULTILINE)),
    (Language.CUDA, re.compile(r"\b__global__\b|<<<")),
)
"""What a source of a language has; OpenEvolve itself says `python` or `cpp` at most."""
_NUMBERED = re.compile(r"checkpoint_(\d+)")


@dataclass(frozen=True)
class Foreign:
    """One of OpenEvolve's programs. `fitness` is what it ranks them by."""

    id: str
    code: str
    language: str
    fitness: float
    iteration: int
    changes: str

    def language_here(self) -> Language | None:
        """The language of ours that it is written in; None when neither says it."""
        for language, pattern in _TELLING:
            if pattern.search(self.code):
                return language
        return _SAID.get(self.language.strip().lower())


@dataclass(frozen=True)
class Checkpoint:
    """Programs best first, and the names of the files that are no program."""

    folder: Path
    programs: tuple[Foreign, ...]
    damaged: tuple[str, ...]


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, or the latest below an output folder. UserError: none there."""
    found = _locate(folder)
    features = tuple(_metadata(found).get("feature_stats") or ())
    programs: list[Foreign] = []
    damaged: list[str] = []
    for file in sorted((found / "programs").glob("*.json")):
        try:
            programs.append(_program(json.loads(file.read_text(encoding="utf-8")), features))
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(file.name)
    programs.sort(key=lambda p: (-p.fitness, p.iteration, p.id))
    return Checkpoint(found, tuple(programs), tuple(damaged))


def _locate(folder: Path) -> Path:
    if (folder / "programs").is_dir():
        return folder
    numbered = {
        int(match[1]): path
        for path in [*folder.glob("checkpoints/checkpoint_*"), *folder.glob("checkpoint_*")]
        if (match := _NUMBERED.fullmatch(path.name)) and (path / "programs").is_dir()
    }
    if not numbered:
        raise UserError(
            f"no OpenEvolve checkpoint at {folder}: it has a folder programs, as "
            "openevolve_output/checkpoints/checkpoint_50 has"
        )
    return numbered[max(numbered)]


def _metadata(folder: Path) -> dict[str, Any]:
    """What `metadata.json` says; nothing when it is absent or damaged, as OpenEvolve reads it."""
    try:
        found = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _program(data: Mapping[str, Any], features: tuple[str, ...]) -> Foreign:
    """ValueError, KeyError or TypeError for what is no program."""
    code = data["code"]
    if not isinstance(code, str) or not code.strip():
        raise ValueError("a program without code")
    changes = data.get("changes_description") or (data.get("metadata") or {}).get("changes") or ""
    return Foreign(
        id=str(data["id"]),
        code=code,
        language=str(data.get("language") or ""),
        fitness=fitness(data.get("metrics") or {}, features),
        iteration=int(data.get("iteration_found") or 0),
        changes=" ".join(str(changes).split()),
    )


def fitness(metrics: Mapping[str, Any], features: tuple[str, ...] = ()) -> float:
    """What OpenEvolve ranks by: `combined_score`, else the mean of the numbers.

    The mean leaves flags out, and `features` (the dimensions of its map) unless nothing else is
    there. 0.0 where no number is; what is not finite is no number.
    """
    numbers = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    if "combined_score" in numbers:
        return numbers["combined_score"]
    rest = [v for name, v in numbers.items() if name not in features] or list(numbers.values())
    return sum(rest) / len(rest) if rest else 0.0
