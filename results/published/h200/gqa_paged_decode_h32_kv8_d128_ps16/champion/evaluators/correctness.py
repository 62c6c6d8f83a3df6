"""Compares a candidate's outputs with exact ones, within an error budget.

The budget comes from an honest implementation: one that computes as a good kernel does, with the
definition's dtypes as operands and wide sums. Its error against the exact result, times an
allowance, is what a candidate may be off by, in three measures:

    rms        root mean square of the error over that of the exact output
    rows       the same, each row (last axis) taken relative to its own size: a row of small
               numbers counts as much as one of large ones
    largest    largest error of one element, in the same unit as `rms`

Some units in the last place (ulps) are allowed on top, because honest errors may be zero by luck.
NaN never matches; equal infinities do. Integer and bool outputs have to be equal, unless the
operator allows them an error by name. Needs torch and its neighbour `deviation` alone: exported
champions take both along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evaluators.deviation import Deviation, eps, floats, free, measure, same_bytes, unequal, worst

if TYPE_CHECKING:
    from evaluators.schema import Definition

Allowance = Mapping[str, tuple[float, float]]
"""Output name or dtype -> (factor on the honest RMS and row error, factor on the largest one)."""

DEFAULTS: dict[str, tuple[float, float]] = {
    "float64": (32.0, 32.0),
    "float32": (32.0, 32.0),
    "float16": (2.5, 4.0),
    "bfloat16": (2.5, 4.0),
    "float8_e4m3fn": (2.5, 4.0),
    "float8_e5m2": (2.5, 4.0),
}
"""Chosen with `benchmarks/error_budget.py`, which shows what honest styles and cheats come to.

A narrow output's honest error is mostly its last rounding, which all honest kernels share. That of
a float32 output is the order of its sums, which differs: blocks err less than one long sum.
"""

MOST = 0.5
"""No budget exceeds this share of the exact output's RMS: an output of zeros always fails."""


@dataclass(frozen=True)
class Share:
    """One output's part of a budget: honest errors in the module's three measures, and the allowed
    factors on them. `equal`: no error at all."""

    rms: float
    rows: float
    largest: float
    factors: tuple[float, float]
    equal: bool = False


@dataclass(frozen=True)
class Budget:
    """What the outputs of one workload may be off by, for all its draws."""

    outputs: dict[str, Share] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Outcome for one workload; `fault` is '' when the outputs are right.

    `max_relative_error` is the largest error divided by the RMS of the exact output; `budget_used`
    is the largest of the errors over their limits, at most 1 when right.
    """

    max_absolute_error: float
    max_relative_error: float
    fault: str = ""
    budget_used: float = 0.0


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


def budget_of(
    exact: tuple[Any, ...], honest: tuple[Any, ...], definition: Definition, allowance: Allowance
) -> Budget:
    """The budget from exact outputs (wide) and an honest implementation's on the same inputs.

    Both in the definition's order. ValueError when the honest outputs are not finite where the
    exact ones are, or unequal where they have to be equal: the operator contradicts itself.
    """
    shares = {}
    for (name, spec), want, got in zip(definition.outputs.items(), exact, honest, strict=True):
        given = allowance.get(name) or (allowance.get(spec.dtype) if floats(spec.dtype) else None)
        factors = given or DEFAULTS.get(spec.dtype, (0.0, 0.0))
        equal = not floats(spec.dtype) and given is None
        found = measure(got, want, spec.dtype)
        if found.bad or (equal and found.largest):
            raise ValueError(f"the honest output {name!r} does not match the exact one")
        size = found.size or 1.0
        shares[name] = Share(found.rms / size, found.rows, found.largest / size, factors, equal)
    return Budget(shares)


def compare(
    outputs: tuple[Any, ...],
    exact: tuple[Any, ...],
    budget: Budget,
    definition: Definition,
    skips: tuple[str, ...] = (),
) -> Comparison:
    """Compare tensors output by output, in the definition's order; stops at the first fault.

    `exact` are the wide outputs of the same draw; `budget` may be of another draw of the workload.
    `skips` names outputs that are not judged (of peers that do not write them).
    """
    absolute = relative = used = 0.0
    for (name, spec), got, want in zip(definition.outputs.items(), outputs, exact, strict=True):
        if name in skips:
            continue
        share = budget.outputs[name]
        found = measure(got, want, spec.dtype)
        limits = _limits(share, spec.dtype, found.size)
        absolute = max(absolute, found.largest)
        relative = max(relative, found.largest / (found.size or 1.0))
        used = max(used, limits.used(found))
        fault = _fault(name, got, want, spec.dtype, found, limits, share)
        if fault:
            return Comparison(absolute, relative, fault, used)
    return Comparison(absolute, relative, "", used)


def agree(
    first: tuple[Any, ...],
    second: tuple[Any, ...],
    budget: Budget,
    definition: Definition,
    skips: tuple[str, ...] = (),
) -> str:
    """'' when two calls on equal inputs agree, else how they differ.

    They may differ by an honest implementation's own RMS error (sums in another order), without its
    allowance, and in one element by what a right output may be off by.
    """
    for (name, spec), one, other in zip(definition.outputs.items(), first, second, strict=True):
        if name in skips or same_bytes(one, other):
            continue
        share = budget.outputs[name]
        found = measure(one, other, spec.dtype, nan_equal=True)
        repeatable = replace(share, factors=(1.0, share.factors[1]))
        limits = _limits(repeatable, spec.dtype, found.size)
        if not found.bad and limits.used(found) <= 1.0:
            continue
        return (
            f"output {name!r} differs between two calls on equal inputs: "
            f"{unequal(one, other)} of {one.numel()} elements, by {found.rms:.3g} RMS "
            f"(repeatable within {limits.rms:.3g}) and {found.largest:.3g} at most"
            + (f", {found.bad} not finite" if found.bad else "")
        )
    return ""


def apart(budget: Budget, definition: Definition) -> dict[str, tuple[float, float]]:
    """Output name -> how far two right outputs may be apart: RMS, and RMS relative to each row.

    Each may be off by its limit, so both by twice that (triangle inequality), in units of the exact
    output's size. One of the two measured instead of the exact one is smaller by the limit at most.
    """
    found = {}
    for name, spec in definition.outputs.items():
        limits = _limits(budget.outputs[name], spec.dtype, 1.0)
        rms, rows = (2 * limit / (1 - limit) for limit in (limits.rms, limits.rows))
        found[name] = (rms, rows)
    return found


# -- limits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limits:
    """Largest values that a `Deviation` may have."""

    rms: float
    rows: float
    excess: float

    def used(self, found: Deviation) -> float:
        return max(
            _ratio(found.rms, self.rms),
            _ratio(found.rows, self.rows),
            _ratio(found.excess, self.excess),
        )


def _limits(share: Share, dtype: str, size: float) -> _Limits:
    """Limits for a draw whose exact output has RMS `size`."""
    if share.equal:
        return _Limits(0.0, 0.0, 0.0)
    on_top = free(dtype) * eps(dtype)
    rms, rows = (min(MOST, share.factors[0] * e + on_top) for e in (share.rms, share.rows))
    return _Limits(rms * size, rows, (share.factors[1] * share.largest + on_top) * size)


def _ratio(value: float, limit: float) -> float:
    if value <= 0.0:
        return 0.0
    return value / limit if limit > 0.0 else float("inf")


# -- saying what is wrong -------------------------------------------------------------------------


def _fault(
    name: str, got: Any, want: Any, dtype: str, found: Deviation, limits: _Limits, share: Share
) -> str:
    """'' when within the limits, else which of them is exceeded by how much, and where."""
    count = want.numel()
    if found.bad:
        return (
            f"output {name!r}: {found.bad} of {count} elements not finite where they should be, "
            f"or the reverse ({found.nans} NaN)"
        )
    if limits.used(found) <= 1.0:
        return ""
    where, off = worst(got, want, dtype, limits.excess)
    if share.equal:
        return f"output {name!r}: {off} of {count} elements differ from the reference; {where}"
    measures = (
        ("RMS error", found.rms, limits.rms, share.factors[0]),
        ("RMS error relative to each row's size", found.rows, limits.rows, share.factors[0]),
        ("largest error", found.excess, limits.excess, share.factors[1]),
    )
    what, value, limit, factor = max(measures, key=lambda m: _ratio(m[1], m[2]))
    return (
        f"output {name!r}: {what} {value:.3g} exceeds the budget of {limit:.3g} "
        f"({factor:g} times that of an honest implementation in this dtype); "
        f"{off} of {count} elements are off by more than {limits.excess:.3g}; {where}"
    )
