"""Describing a program: which niche its tile strategy falls into.

Read from the source (without comments) and the build facts. Whatever can't be read is `other`.
Reading is by name: kernels call a tile's extents BLOCK_M, TILE_N or BN, the depth NUM_STAGES, and
so on, so the rules below are lists of names, and the first number given to a name counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from evaluators.schema import BuildFacts, Evaluation, Language, Solution
from islands.niche import AXES, OTHER, Niche
from islands.program import Program
from islands.source import MARK, marked, skeleton

_CPU = {Language.CPP}

_NUMBER = re.compile(
    r"""\b([A-Za-z_]\w*)["']?\s*
        (?: :\s*[A-Za-z_][\w.]*\s*=\s*   # BLOCK_M: tl.constexpr = 64
          | [:=]\s*                      # BLOCK_M = 64, "BLOCK_M": 64
          | [ ] )                        # #define BLOCK_M 64
        ([0-9]{1,9}|True|False|true|false|_tunable_[0-9]{1,9}_)(?![\w.])""",
    re.VERBOSE,
)
_SUFFIX = r"(?:_[A-Z0-9_]+)?"  # of a regime: NUM_WARPS_FEW
_TILE = re.compile(r"(?:BLOCK|TILE|CHUNK)_?[A-Z0-9_]*|B[MNKHQ]|[MNK]_TILE", re.IGNORECASE)
_REDUCED = re.compile(r"(?:BLOCK|TILE)_?(?:K|D|DIM|HEAD)" + _SUFFIX + "|BK|K_TILE", re.IGNORECASE)
_COUNT = re.compile(r"NUM|COUNT|PER|TABLE|IDX|THREADS|WARPS|STAGES", re.IGNORECASE)
_STAGES = re.compile(r"(?:NUM_?|N_?|K)?(?:PIPELINE_?)?STAGES?|PIPELINE_DEPTH", re.IGNORECASE)
_WARPS = re.compile(r"(?:NUM_?|N_?|K)?WARPS?", re.IGNORECASE)
_THREADS = re.compile(r"(?:NUM_?|N_?|K|BLOCK_?)?THREADS?", re.IGNORECASE)
_SPLITS = re.compile(
    r"\w*SPLIT_?(?:K|KV|S|N)\w*|\w*(?:NUM|KV|K)_?SPLITS?\w*|SPLITS?", re.IGNORECASE
)
_PERSISTENT = re.compile(r"\w*PERSISTENT\w*", re.IGNORECASE)
_USE_TMA = re.compile(r"(?:USE|WITH|ENABLE)_TMA" + _SUFFIX, re.IGNORECASE)
_WORDS = {
    "split": re.compile(
        r"\b\w*(?:split_?kv?|splits|split_(?:id|idx|size|len)|num_split|atomic_?add)\w*",
        re.IGNORECASE,
    ),
    "persistent": re.compile(
        r"""\b\w*persistent\w*\b
        | range\([^\n]*,\s*(?:NUM_SMS?|num_programs|tl\.num_programs\([^)]*\))\s*[,)]
        | \+=\s*gridDim\.""",
        re.VERBOSE | re.IGNORECASE,
    ),
    "tma": re.compile(
        r"make_tensor_descriptor|TensorDescriptor|tensormap|cp[._]async[._]bulk|CUtensorMap"
        r"|tma_(?:load|copy)|_experimental_descriptor_load"
    ),
    "no_tma": re.compile(r"disable_tma_lower\W+(?:true|1)\b", re.IGNORECASE),
    "cp_async": re.compile(r"cp[._]async|memcpy_async|async_copy"),
    "pipelined": re.compile(r"\bT\.Pipelined\b"),
    "pointer": re.compile(r"\btl\.load\b|\bT\.(?:copy|Parallel|serial|vectorized)\b"),
}
"""Words by what they say; searched in the source without comments."""


def describe(program: Program, evaluation: Evaluation) -> Niche:
    """The niche of an evaluated program; never an error, whatever the source says."""
    return niche_of(program.solution, evaluation.build or BuildFacts())


def niche_of(solution: Solution, facts: BuildFacts) -> Niche:
    """The niche of a solution that was built; never an error, whatever the source says."""
    spec = solution.spec
    words: set[str] = set()
    numbers: dict[str, int] = {}
    for source in solution.sources:
        pieces, values = skeleton(spec.language, source.content, source.path)
        reading = _read(pieces)
        words |= reading.words
        for name, text in reading.numbers.items():
            numbers.setdefault(name, _value(text, values))
    cpu = spec.language in _CPU or facts.target.split(" ")[0] in {"c", "llvm", "cpu"}
    return Niche(
        language=spec.language.value if spec.language.value in AXES["language"] else OTHER,
        strategy=_strategy(words, numbers),
        tile=_tile(numbers),
        stages=OTHER if cpu else _stages(numbers, facts),
        warps=OTHER if cpu else _warps(numbers, facts),
        memory="pointer" if cpu else _memory(spec.language, words, numbers, facts),
    )


@dataclass(frozen=True)
class _Reading:
    """What a source's text says: its telling words, and the first number given to each name."""

    words: frozenset[str]
    numbers: Mapping[str, str]  # digits, a truth value, or the mark of a tunable's value


@lru_cache(maxsize=256)
def _read(pieces: tuple[str, ...]) -> _Reading:
    """Kept by skeleton, because reading costs more than all else that is done with a program."""
    code = marked(pieces)
    numbers: dict[str, str] = {}
    for name, value in _NUMBER.findall(code):
        numbers.setdefault(name, value)
    return _Reading(frozenset(w for w, p in _WORDS.items() if p.search(code)), numbers)


def _value(text: str, values: list[str]) -> int:
    """The number that a text of `_Reading.numbers` stands for; 0 for what is none."""
    mark = MARK.fullmatch(text)
    if mark is not None and int(mark[1]) < len(values):
        text = values[int(mark[1])]
    if text in {"True", "true"}:
        return 1
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0


def _of_name(numbers: Mapping[str, int], pattern: re.Pattern[str]) -> list[int]:
    return [value for name, value in numbers.items() if pattern.fullmatch(name)]


def _strategy(words: set[str], numbers: Mapping[str, int]) -> str:
    """A switch or count set in the source decides; without one, the words that the code uses."""
    persistent, splits = _of_name(numbers, _PERSISTENT), _of_name(numbers, _SPLITS)
    if any(persistent) or (not persistent and "persistent" in words):
        return "persistent"
    if any(s > 1 for s in splits) or (not splits and "split" in words):
        return "split"
    if any(_TILE.fullmatch(name) for name in numbers):
        return "tiled"
    return OTHER


def _tile(numbers: Mapping[str, int]) -> str:
    """Class of the geometric mean of the output extents (of all, when none is an output's)."""
    tiles = {
        name: value
        for name, value in numbers.items()
        if value > 0 and _TILE.fullmatch(name) and not _COUNT.search(name)
    }
    outputs = [value for name, value in tiles.items() if not _REDUCED.fullmatch(name)]
    extents = outputs or list(tiles.values())
    if not extents:
        return OTHER
    return _power("t", math.exp(sum(map(math.log, extents)) / len(extents)), 8, 256)


def _stages(numbers: Mapping[str, int], facts: BuildFacts) -> str:
    for stages in (*_of_name(numbers, _STAGES), facts.num_stages):
        if stages > 0:
            return f"s{min(stages, 4)}"
    return OTHER


def _warps(numbers: Mapping[str, int], facts: BuildFacts) -> str:
    threads = [t / 32 for t in _of_name(numbers, _THREADS) if t >= 32]
    for warps in (*_of_name(numbers, _WARPS), *threads, facts.num_warps):
        if warps > 0:
            return _power("w", warps, 1, 16)
    return OTHER


def _power(letter: str, value: float, low: int, high: int) -> str:
    """Class of the power of two nearest to `value`, held between `low` and `high`."""
    nearest = 2 ** round(math.log2(min(max(value, low), high)))
    return f"{letter}{nearest}"


def _memory(
    language: Language, words: set[str], numbers: Mapping[str, int], facts: BuildFacts
) -> str:
    """How tiles reach the chip: as the source says, else as the language does it by default."""
    switches = _of_name(numbers, _USE_TMA)
    if "tma" in words and (any(switches) or not switches):
        return "tma"
    if "cp_async" in words:
        return "cp_async"
    if language is Language.TILELANG and "pipelined" in words:
        # Copies of a pipelined loop become TMA from sm_90 on, else cp.async.
        arch = re.search(r"sm_?(\d{2,3})", facts.target)
        hopper = arch is not None and int(arch[1]) >= 90
        return "tma" if hopper and "no_tma" not in words else "cp_async"
    return "pointer" if language is Language.CUDA or "pointer" in words else OTHER
