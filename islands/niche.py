"""The niches: a fixed grid over tile strategies. Cells never move, so an elite is never lost."""

from __future__ import annotations

from typing import NamedTuple

OTHER = "other"
"""The value of an axis that could not be read."""

AXES: dict[str, tuple[str, ...]] = {
    "language": ("triton", "tilelang", "cuda", "cpp", OTHER),
    "strategy": ("tiled", "split", "persistent", OTHER),
    "tile": ("t8", "t16", "t32", "t64", "t128", "t256", OTHER),
    "stages": ("s1", "s2", "s3", "s4", OTHER),
    "warps": ("w1", "w2", "w4", "w8", "w16", OTHER),
    "memory": ("pointer", "cp_async", "tma", OTHER),
}
"""The axes of the grid and the values of each, in plotting order.

`tile` is the geometric mean of a tile's output extents and `warps` the warps of a block, both to
the nearest power of two; `stages` is the pipeline depth (`s4` is four or more); the ends take what
lies beyond them.
"""


class Niche(NamedTuple):
    """One cell of the grid: a value of each of `AXES`, in their order."""

    language: str = OTHER
    strategy: str = OTHER
    tile: str = OTHER
    stages: str = OTHER
    warps: str = OTHER
    memory: str = OTHER

    @property
    def key(self) -> str:
        """Stable text form, such as `triton/split/t64/s3/w4/pointer`."""
        return "/".join(self)
