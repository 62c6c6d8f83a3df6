"""Compares a candidate's outputs with the reference's.

An element is off when its error exceeds `limit` times the root mean square of the reference output;
an output is wrong when the share of elements that are off exceeds what the operator tolerates, or
when anything is not finite where the reference is. Equal infinities match; NaN never does.
Integer and bool outputs have to be equal unless the operator says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluators.schema import Definition

Tolerances = dict[str, tuple[float, float]]
"""Output name or dtype -> (largest error / RMS of the reference, largest share beyond it)."""

DEFAULTS: Tolerances = {
    "float64": (1e-9, 0.0),
    "float32": (1e-3, 0.0),
    "bfloat16": (5e-2, 0.0),
    "float16": (1e-2, 0.0),
}

_CHUNK = 1 << 25


@dataclass(frozen=True)
class Comparison:
    """Outcome for one workload; `fault` is '' when the outputs are right.

    `max_relative_error` is the largest error divided by the RMS of the reference output.
    """

    max_absolute_error: float
    max_relative_error: float
    fault: str = ""


def poison(outputs: tuple[Any, ...]) -> None:
    """Fill outputs with NaN, and with a number that no operator means in integer types.

    Not 0xFF in integers: that is -1, which operators use to pad indices.
    """
    import torch

    for output in outputs:
        if output.numel():
            # 0xFF in every byte is a NaN of every float type, float8_e5m2 and e4m3fn included.
            byte = 0xFF if output.is_floating_point() else 0xA5
            output.view(-1).view(torch.uint8).fill_(byte)


def compare(
    outputs: tuple[Any, ...],
    references: tuple[Any, ...],
    definition: Definition,
    tolerances: Tolerances,
    skips: tuple[str, ...] = (),
) -> Comparison:
    """Compare tensors output by output, in the definition's order; stops at the first fault.

    `skips` names outputs that are not judged (of peers that do not write them).
    """
    absolute = relative = 0.0
    for (name, spec), output, reference in zip(
        definition.outputs.items(), outputs, references, strict=True
    ):
        if name in skips:
            continue
        limit = tolerances.get(name) or tolerances.get(spec.dtype) or DEFAULTS.get(spec.dtype)
        found = _compare(name, output, reference, limit or (0.0, 0.0))
        absolute = max(absolute, found.max_absolute_error)
        relative = max(relative, found.max_relative_error)
        if found.fault:
            return Comparison(absolute, relative, found.fault)
    return Comparison(absolute, relative)


def _compare(name: str, output: Any, reference: Any, tolerance: tuple[float, float]) -> Comparison:
    import torch

    count = reference.numel()
    if count == 0:
        return Comparison(0.0, 0.0)
    wide = torch.float64 if reference.element_size() >= 4 else torch.float32
    flat, expected = output.reshape(-1), reference.reshape(-1)
    rms = _rms(expected, wide)
    limit, share = tolerance
    bound = limit * rms
    off, bad, most = 0, 0, 0.0
    for start in range(0, count, _CHUNK):
        got = flat[start : start + _CHUNK].to(wide)
        want = expected[start : start + _CHUNK].to(wide)
        error = torch.where(got == want, torch.zeros_like(want), (got - want).abs())
        finite = torch.isfinite(error)
        bad += int((~finite).sum())
        error = torch.where(finite, error, torch.zeros_like(error))
        off += int((error > bound).sum())
        most = max(most, float(error.max()))
    relative = most / rms if rms else most
    if bad:
        nans = int(torch.isnan(output.to(wide)).sum()) if output.is_floating_point() else 0
        fault = f"output {name!r}: {bad} of {count} elements not finite ({nans} NaN)"
        return Comparison(most, relative, fault)
    if off > share * count:
        fault = (
            f"output {name!r}: {off} of {count} elements are off by more than {limit:g} of the "
            f"reference's RMS {rms:.4g}; largest error {most:.4g} (allowed share {share:g})"
        )
        return Comparison(most, relative, fault)
    return Comparison(most, relative)


def _rms(values: Any, wide: Any) -> float:
    """Root mean square of the finite elements; 0.0 when there is none."""
    import torch

    total, count = 0.0, 0
    for start in range(0, values.numel(), _CHUNK):
        part = values[start : start + _CHUNK].to(wide)
        finite = torch.isfinite(part)
        total += float(torch.where(finite, part, torch.zeros_like(part)).square().sum())
        count += int(finite.sum())
    return (total / count) ** 0.5 if count else 0.0
