"""Describing a program: which niche its tile strategy falls into.

Read from the source (without comments) and the build facts. Whatever can't be read is `other`.
Reading is by name: kernels call a tile's extents BLOCK_M, TILE_N or BN, the depth NUM_STAGES, and
so on, so the rules below are lists of names, and the first number given to a name counts.
"""

from __future__ import annotations

import math
import re

from evaluators.schema import BuildFacts, Evaluation, Language
from islands.niche import AXES, OTHER, Niche
from islands.program import Program
from islands.source import normalise

_CPU = {Language.CPP}

_NUMBER = re.compile(
    r"""\b([A-Za-z_]\w*)["']?\s*
        (?: :\s*[A-Za-z_][\w.]*\s*=\s*   # BLOCK_M: tl.constexpr = 64
          | [:=]\s*                      # BLOCK_M = 64, "BLOCK_M": 64
          | [ ] )                        # #define BLOCK_M 64
        ([0-9]{1,9}|True\b|False\b|true\b|false\b)(?![\w.])""",
    re.VERBOSE,
)
_TILE = re.compile(r"(?:BLOCK|TILE|CHUNK)_?(?!THREADS)[A-Z0-9_]*?|B[MNKHQ]|[MNK]_TILE", re.IGNORECASE)
_REDUCED = re.compile(r"(?:.*_)?(?:B?K|D|DIM|HEAD_DIM|K_TILE)", re.IGNORECASE)
_COUNT = re.compile(r"NUM|COUNT|PER|SIZE_BYTES|TABLE|IDX|THREADS", re.IGNORECASE)
_STAGES = re.compile(r"(?:NUM_?|N_?|K)?(?:PIPELINE_?)?STAGES?|PIPELINE_DEPTH|DEPTH", re.IGNORECASE)
_WARPS = re.compile(r"(?:NUM_?|N_?|K)?WARPS?", re.IGNORECASE)
_THREADS = re.compile(r"(?:NUM_?|N_?|K|BLOCK_?)?THREADS?", re.IGNORECASE)
_SPLITS = re.compile(r"\w*SPLIT_?(?:K|KV|S|N)\w*|\w*(?:NUM|KV|K)_?SPLITS?\w*|SPLITS?", re.IGNORECASE)
_SPLIT_WORD = re.compile(
    r"\b\w*(?:split_?k(?:v)?|splits|split_(?:id|idx|size|len)|num_split|atomic_?add)\w*", re.IGNORECASE
)
_PERSISTENT = re.compile(r"\w*PERSISTENT\w*", re.IGNORECASE)
_PERSISTENT_WORD = re.compile(
    r"""\b\w*persistent\w*\b
    | range\([^\n]*,\s*(?:NUM_SMS?|num_programs|tl\.num_programs\([^)]*\))\s*[,)]
    | \+=\s*gridDim\.""",
    re.VERBOSE | re.IGNORECASE,
)
_TMA = re.compile(
    r"make_tensor_descriptor|TensorDescriptor|tensormap|cp[._]async[._]bulk|CUtensorMap"
    r"|tma_(?:load|copy)|_experimental_descriptor_load"
)
_CP_ASYNC = re.compile(r"cp[._]async|memcpy_async|async_copy")
_POINTER = re.compile(r"\btl\.load\b|\bT\.(?:copy|Parallel|serial|vectorized)\b")


def describe(program: Program, evaluation: Evaluation) -> Niche:
    """The niche of an evaluated program; never an error, whatever the source says."""
    solution = program.solution
    spec = solution.spec
    code = "\n".join(normalise(spec.language, s.content, s.path) for s in solution.sources)
    numbers = _numbers(code)
    facts = evaluation.build or BuildFacts()
    cpu = spec.language in _CPU or facts.target.split(" ")[0] in {"c", "llvm", "cpu"}
    return Niche(
        language=spec.language.value if spec.language.value in AXES["language"] else OTHER,
        strategy=_strategy(code, numbers),
        tile=_tile(numbers),
        stages=OTHER if cpu else _stages(numbers, facts),
        warps=OTHER if cpu else _warps(numbers, facts),
        memory="pointer" if cpu else _memory(spec.language, code, facts),
    )


def _numbers(code: str) -> dict[str, int]:
    """First number given to each name, by assignment, default, keyword or `#define`."""
    numbers: dict[str, int] = {}
    for name, value in _NUMBER.findall(code):
        if name not in numbers:
            numbers[name] = int(value) if value[0].isdigit() else int(value.lower() == "true")
    return numbers


def _of_name(numbers: dict[str, int], pattern: re.Pattern[str]) -> list[int]:
    return [value for name, value in numbers.items() if pattern.fullmatch(name)]


def _strategy(code: str, numbers: dict[str, int]) -> str:
    """A switch or count set in the source decides; without one, the words that the code uses."""
    persistent, splits = _of_name(numbers, _PERSISTENT), _of_name(numbers, _SPLITS)
    if any(persistent) or (not persistent and _PERSISTENT_WORD.search(code)):
        return "persistent"
    if any(s > 1 for s in splits) or (not splits and _SPLIT_WORD.search(code)):
        return "split"
    if any(_TILE.fullmatch(name) for name in numbers):
        return "tiled"
    return OTHER


def _tile(numbers: dict[str, int]) -> str:
    """Class of the geometric mean of the output extents (of all extents when none is an output's)."""
    tiles = {
        name: value
        for name, value in numbers.items()
        if value > 0 and _TILE.fullmatch(name) and not _COUNT.search(name)
    }
    extents = [v for name, v in tiles.items() if not _REDUCED.fullmatch(name)] or list(tiles.values())
    if not extents:
        return OTHER
    return _power("t", math.exp(sum(map(math.log, extents)) / len(extents)), 8, 256)


def _stages(numbers: dict[str, int], facts: BuildFacts) -> str:
    for stages in (*_of_name(numbers, _STAGES), facts.num_stages):
        if stages > 0:
            return f"s{min(stages, 4)}"
    return OTHER


def _warps(numbers: dict[str, int], facts: BuildFacts) -> str:
    threads = [t / 32 for t in _of_name(numbers, _THREADS) if t >= 32]
    for warps in (*_of_name(numbers, _WARPS), *threads, facts.num_warps):
        if warps > 0:
            return _power("w", warps, 1, 16)
    return OTHER


def _power(letter: str, value: float, low: int, high: int) -> str:
    """Class of the power of two nearest to `value`, held between `low` and `high`."""
    nearest = 2 ** round(math.log2(min(max(value, low), high)))
    return f"{letter}{nearest}"


def _memory(language: Language, code: str, facts: BuildFacts) -> str:
    """How tiles reach the chip: as the source says, else as the language does it by default."""
    if _TMA.search(code) and not re.search(r"\bUSE_TMA\s*=\s*(?:0|False|false)\b", code):
        return "tma"
    if _CP_ASYNC.search(code):
        return "cp_async"
    if language is Language.TILELANG and "T.Pipelined" in code:
        return _tilelang_pipeline(code, facts)
    if language in {Language.CUDA, Language.CPP} or _POINTER.search(code):
        return "pointer"
    return OTHER


def _tilelang_pipeline(code: str, facts: BuildFacts) -> str:
    """TileLang turns the copies of a pipelined loop into TMA from sm_90 on, else into cp.async."""
    arch = re.search(r"sm_?(\d{2,3})", facts.target)
    hopper = arch is not None and int(arch[1]) >= 90
    lowered = not re.search(r"disable_tma_lower\W+(?:True|1)\b|DISABLE_TMA_LOWER\W+(?:True|1)\b", code)
    return "tma" if hopper and lowered else "cp_async"
