"""How far outputs are from exact ones: the measures that an error budget limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SMALL_ROW = 2.0**-12
"""Rows below this share of the output's RMS count as if they had it."""

_CHUNK = 1 << 25


@dataclass(frozen=True)
class Deviation:
    """Errors of one output. `excess`: the largest error less its element's own ulps."""

    size: float  # RMS of the finite exact elements
    rms: float
    rows: float  # in units of each row's size
    largest: float
    excess: float
    bad: int  # elements not finite where the exact one is, or the reverse
    nans: int


def measure(got: Any, want: Any, dtype: str, nan_equal: bool = False) -> Deviation:
    """Errors of `got`, an output of this dtype, against the exact `want` of the same shape.

    Rows are along the last axis; a vector is one row. In chunks of rows, with one synchronisation.
    `nan_equal`: NaN in both is no error.
    """
    import torch

    count = want.numel()
    if count == 0:
        return Deviation(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    width = want.shape[-1] if want.dim() > 1 else count
    got, want = got.reshape(-1, width), want.reshape(-1, width)
    step = max(1, _CHUNK // width)
    parts = [
        _measure_rows(got[at : at + step], want[at : at + step], dtype, nan_equal)
        for at in range(0, len(want), step)
    ]
    error, square, finite = (torch.cat([p[i] for p in parts]) for i in range(3))
    largest, excess = (torch.stack([p[i] for p in parts]).max() for i in (3, 4))
    bad, nans = (torch.stack([p[i] for p in parts]).sum() for i in (5, 6))
    total = finite.sum().clamp(min=1)
    size = (square.sum() / total).sqrt()
    judged = finite.clamp(min=1)
    row = (square / judged).clamp(min=(SMALL_ROW * size).square())
    relative = torch.where(row > 0, error / judged / row, 0.0)
    rows = (relative.sum() / (finite > 0).sum().clamp(min=1)).sqrt()
    rms = (error.sum() / total).sqrt()
    found = torch.stack([size, rms, rows, largest.double(), excess.double(), bad, nans]).tolist()
    return Deviation(found[0], found[1], found[2], found[3], found[4], int(found[5]), int(found[6]))


def _measure_rows(got: Any, want: Any, dtype: str, nan_equal: bool) -> tuple[Any, ...]:
    """Per row: sums of squared errors and squared finite exact elements, and how many these are;
    then largest error, largest error beyond its element's ulps, elements not finite, NaNs."""
    import torch

    want = _wide(want, dtype)
    got = got.to(want.dtype)
    same = got == want
    if nan_equal:
        same |= got.isnan() & want.isnan()
    error = torch.where(same, 0.0, (got - want).abs())
    bad = ~torch.isfinite(error)
    error = torch.where(bad, 0.0, error)
    finite = torch.isfinite(want)
    want = torch.where(finite, want, 0.0).abs()
    excess = error - ulps(dtype) * eps(dtype) * want.clamp(min=_least(dtype))
    return (
        error.square().sum(-1, dtype=torch.float64),
        want.square().sum(-1, dtype=torch.float64),
        finite.sum(-1).double(),
        error.max(),
        torch.where(error > 0, excess, 0.0).max(),
        bad.sum().double(),
        got.isnan().sum().double(),
    )


def _wide(want: Any, dtype: str) -> Any:
    """`want` in float32 or wider; infinite where the output's dtype cannot hold it."""
    import torch

    narrow = want.dtype in (torch.float32, torch.bfloat16, torch.float16)
    wide = torch.float32 if narrow and dtype != "float32" else torch.float64
    want = want.to(wide)
    if not floats(dtype) or dtype.startswith("float8"):  # these have no use for infinity
        return want
    held = want.to(getattr(torch, dtype)).to(wide)
    return torch.where(held.isinf(), held, want)


def floats(dtype: str) -> bool:
    """Whether a definition's dtype is one of floating point."""
    return dtype.startswith(("float", "bfloat"))


def ulps(dtype: str) -> float:
    """Ulps that any element may be off by: narrow outputs are one rounding away from wide sums,
    wide ones end within several ulps of their terms."""
    return 16.0 if dtype in ("float32", "float64") else 1.0


def free(dtype: str) -> float:
    """Ulps of the output's RMS allowed on top: honest errors are zero where nothing is rounded."""
    return 16.0 if dtype in ("float32", "float64") else 1 / 16


def eps(dtype: str) -> float:
    """One ulp of 1.0; 0 for integers."""
    import torch

    return float(torch.finfo(getattr(torch, dtype)).eps) if floats(dtype) else 0.0


def _least(dtype: str) -> float:
    import torch

    return float(torch.finfo(getattr(torch, dtype)).tiny) if floats(dtype) else 0.0


def worst(got: Any, want: Any, dtype: str, limit: float) -> tuple[str, int]:
    """The element with the largest error as text, and how many are off by more than `limit`."""
    import torch

    want = _wide(want, dtype)
    got = got.to(want.dtype)
    error = torch.where(got == want, 0.0, (got - want).abs())
    at = int(error.argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(at), want.shape)]
    own = ulps(dtype) * eps(dtype) * want.abs()
    off = int((error - own > limit).sum())
    return f"worst {got.reshape(-1)[at]:.6g} instead of {want.reshape(-1)[at]:.6g} at {place}", off


def same_bytes(one: Any, other: Any) -> bool:
    """Whether two tensors of one dtype and shape are equal bit for bit, NaN included."""
    import torch

    if one.numel() == 0:
        return True
    return bool(torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (one, other))))


def unequal(one: Any, other: Any) -> int:
    """How many elements differ; NaN equals NaN."""
    import torch

    one, other = (t.to(torch.float64) for t in (one, other))
    return int(((one != other) & ~(one.isnan() & other.isnan())).sum())
