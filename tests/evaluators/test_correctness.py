"""Error budgets: what honest errors allow, what they do not, and how two calls agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.correctness import DEFAULTS, Budget, agree, budget_of, compare, poison
from evaluators.deviation import measure
from evaluators.schema import Definition

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def definition(dtype: str = "float32", *names: str) -> Definition:
    spec = {"shape": ["n"], "dtype": dtype}
    return Definition.model_validate(
        {
            "name": "any",
            "op_type": "any",
            "axes": {"n": {"type": "var"}},
            "inputs": {"x": spec},
            "outputs": dict.fromkeys(names or ("y",), spec),
        }
    )


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def budget(want: torch.Tensor, dtype: str, allowance=None, honest=None) -> Budget:
    """The budget of an implementation that rounds the exact result once, or of `honest`."""
    honest = want.to(getattr(torch, dtype)) if honest is None else honest
    return budget_of((want,), (honest,), definition(dtype), allowance or {})


def judged(got, want, dtype="float32", allowance=None, honest=None):
    found = budget(want, dtype, allowance, honest)
    return compare((got,), (want,), found, definition(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_once_is_right_and_errors_of_its_size_times_the_factor_are_not(dtype):
    want = values(64, 128)
    kind = getattr(torch, dtype)
    right = judged(want.to(kind), want, dtype)
    assert right.fault == ""
    assert right.budget_used <= 0.5
    rms = max(measure(want.to(kind), want, dtype).rms, 16 * torch.finfo(kind).eps / 16)
    noise = values(64, 128, seed=1) * rms * DEFAULTS[dtype][0] * 2
    wrong = judged((want + noise).to(kind), want, dtype, honest=want.to(kind))
    if dtype not in ("float64", "float32"):  # their noise drowns in the ulps allowed on top
        assert "budget" in wrong.fault
        assert wrong.budget_used > 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_fail_however_bad_the_honest_implementation_is(dtype):
    want = values(8, 100)
    honest = (want * 0.8).to(getattr(torch, dtype))
    zeros = torch.zeros(8, 100, dtype=getattr(torch, dtype))
    assert judged(zeros, want, dtype, {dtype: (1e9, 1e9)}, honest).fault


def test_errors_are_measured_against_the_exact_output_and_said():
    want = torch.full((100,), 10.0, dtype=torch.float64)
    honest = want.float()
    honest[0] += 0.01
    got = want.float()
    got[3] += 0.09
    found = judged(got, want, honest=honest)
    assert found.fault == ""
    assert found.max_absolute_error == pytest.approx(0.09, rel=1e-3)
    assert found.max_relative_error == pytest.approx(0.009, rel=1e-3)
    got[3] += 0.5
    fault = judged(got, want, honest=honest).fault
    for words in ("'y'", "32 times", "1 of 100", "10.59 instead of 10 at [3]"):
        assert words in fault


def test_a_budget_scales_with_its_draw():
    want = values(64, 64)
    found = budget(want, "bfloat16")
    for scale in (1 / 64, 1, 64):
        draw = values(64, 64, seed=1) * scale
        honest = draw.bfloat16()
        assert not compare((honest,), (draw,), found, definition("bfloat16")).fault
        rough = (draw + 0.02 * scale * values(64, 64, seed=2)).bfloat16()
        assert compare((rough,), (draw,), found, definition("bfloat16")).fault


def test_a_row_of_small_numbers_counts_as_much_as_one_of_large_ones():
    want = values(16, 64) * torch.tensor([1.0] * 15 + [1e-2]).double()[:, None]
    honest = want.bfloat16()
    got = honest.clone()
    got[15] *= 0.95  # far below the error of the whole, plain in its row
    found = judged(got, want, "bfloat16", honest=honest)
    assert "relative to each row" in found.fault
    flat = judged(got.view(-1), want.view(-1), "bfloat16", honest=honest.view(-1))
    assert flat.fault == ""


def test_one_wrong_element_among_many_is_found():
    want = values(1000, 100)
    got = want.bfloat16()
    got[500, 50] += 0.5
    fault = judged(got, want, "bfloat16").fault
    assert "largest error" in fault
    assert "1 of 100000" in fault
    assert "[500, 50]" in fault


def test_one_ulp_of_an_element_is_always_allowed():
    want = torch.linspace(1, 8, 512, dtype=torch.float64).bfloat16().double()  # no honest error
    got = want.bfloat16()
    got[500] = torch.nextafter(got[500], torch.tensor(100.0, dtype=torch.bfloat16))
    assert judged(got, want, "bfloat16").fault == ""
    got[500] += 0.2
    assert judged(got, want, "bfloat16").fault


@pytest.mark.parametrize("exact", [float("nan"), 1.0, float("inf")])
def test_nan_never_matches(exact):
    want = torch.ones(4, dtype=torch.float64)
    found = budget(want, "float32", {"float32": (1e9, 1e9)})
    want[0] = exact
    got = want.float()
    got[0] = float("nan")
    assert "1 NaN" in compare((got,), (want,), found, definition()).fault


def test_equal_infinities_match_and_others_do_not():
    want = torch.tensor([1.0, -math.inf, 2.0]).double()
    assert judged(want.float(), want).fault == ""
    for got in ([1.0, math.inf, 2.0], [1.0, -1e30, 2.0], [1.0, -math.inf, math.inf]):
        assert "not finite" in judged(torch.tensor(got), want).fault


def test_what_the_dtype_cannot_hold_is_infinite():
    want = torch.tensor([1.0, 1e6, -1e6], dtype=torch.float64)
    assert judged(want.half(), want, "float16").fault == ""
    assert judged(torch.tensor([1.0, 65504.0, -math.inf]).half(), want, "float16").fault


def test_an_exact_output_of_zeros_needs_zeros():
    want = torch.zeros(5, dtype=torch.float64)
    assert judged(torch.zeros(5), want).fault == ""
    assert judged(torch.full((5,), 1e-9), want).fault


def test_integers_have_to_be_equal_unless_allowed_by_name():
    want = torch.arange(10, dtype=torch.int32)
    assert judged(want.clone(), want, "int32").fault == ""
    got, honest = want.clone(), want.clone()
    got[9] = 8
    assert "1 of 10 elements differ" in judged(got, want, "int32").fault
    with pytest.raises(ValueError, match="'y' does not match"):
        judged(got, want, "int32", honest=got)
    honest[0] = 1
    assert judged(got, want, "int32", {"int32": (1.0, 1.0), "y": (1.0, 1.0)}, honest).fault == ""
    with pytest.raises(ValueError, match="'y'"):
        judged(got, want, "int32", {"int32": (1.0, 1.0)}, honest)


def test_an_honest_implementation_that_is_not_finite_is_the_operators_fault():
    want = values(4, 4)
    with pytest.raises(ValueError, match="'y' does not match"):
        judged(want.float(), want, honest=torch.full((4, 4), math.nan))


def test_an_output_may_have_its_own_allowance_and_be_skipped():
    pair = definition("bfloat16", "y", "z")
    want = values(64, 64)
    honest = want.bfloat16()
    rough = (want + 0.02 * values(64, 64, seed=2)).bfloat16()
    strict = budget_of((want, want), (honest, honest), pair, {})
    loose = budget_of((want, want), (honest, honest), pair, {"z": (50.0, 50.0)})
    assert "'z'" in compare((honest, rough), (want, want), strict, pair).fault
    assert "'y'" in compare((rough, honest), (want, want), loose, pair).fault
    assert compare((honest, rough), (want, want), loose, pair).fault == ""
    assert compare((honest, rough), (want, want), strict, pair, ("z",)).fault == ""


def test_empty_outputs_and_scalars_match():
    assert judged(torch.empty(0), torch.empty(0).double()).fault == ""
    assert judged(torch.empty(3, 0), torch.empty(3, 0).double()).fault == ""
    assert judged(torch.tensor(2.0), torch.tensor(2.0).double()).fault == ""
    assert judged(torch.tensor(3.0), torch.tensor(2.0).double()).fault


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int8"])
def test_poison_never_passes_for_a_result(dtype):
    kind = getattr(torch, dtype)
    want = torch.arange(-4, 4).to(kind)
    got = want.clone()
    poison((got,))
    if kind.is_floating_point:
        assert torch.isnan(got.to(torch.float32)).all()
    assert judged(got, want.double() if kind.is_floating_point else want, dtype, {}, want).fault


class TestAgree:
    """Two calls on equal inputs."""

    def found(self, one, other, dtype="bfloat16", honest=None):
        want = values(64, 64)
        return agree((one,), (other,), budget(want, dtype, None, honest), definition(dtype))

    def test_equal_outputs_agree_even_where_nobody_wrote(self):
        got = values(64, 64).bfloat16()
        assert self.found(got, got.clone()) == ""
        poison((got[:3],))
        assert self.found(got, got.clone()) == ""

    def test_sums_in_another_order_agree(self):
        want = values(64, 64)
        one = want.bfloat16()
        other = (want * (1 + 1e-6)).bfloat16()
        other[0, :5] = torch.nextafter(other[0, :5], torch.tensor(9.0, dtype=torch.bfloat16))
        assert self.found(one, other) == ""

    def test_a_race_in_one_element_is_seen(self):
        one = values(64, 64).bfloat16()
        other = one.clone()
        other[7, 7] = 0
        found = self.found(one, other)
        assert "differs between two calls" in found
        assert "1 of 4096" in found

    def test_noise_of_twice_the_honest_error_is_seen_although_both_are_right(self):
        want = values(64, 64)
        one = want.bfloat16()
        other = (want * (1 + 0.003 * values(64, 64, seed=3))).bfloat16()
        found = budget(want, "bfloat16")
        assert compare((other,), (want,), found, definition("bfloat16")).fault == ""
        assert "RMS" in self.found(one, other)

    def test_an_element_that_only_one_call_wrote_is_seen(self):
        one = values(64, 64).bfloat16()
        other = one.clone()
        other[0, 0] = math.nan
        assert "not finite" in self.found(one, other)

    def test_integers_have_to_be_equal(self):
        want = torch.arange(10, dtype=torch.int32)
        found = budget(want, "int32")
        assert agree((want,), (want.clone(),), found, definition("int32")) == ""
        assert agree((want,), (want + 1,), found, definition("int32"))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    place=st.integers(0, 39),
    factor=st.floats(0, 4),
)
def test_the_limit_on_one_element_is_sharp(values, place, factor):
    want = torch.tensor(values, dtype=torch.float64)
    rms = float(want.square().mean().sqrt())
    honest = want.clone()
    honest[0] += 1e-3 * rms
    got = want.clone()
    place %= len(values)
    got[place] += factor * 1e-3 * rms
    fault = judged(got, want, "float64", {"float64": (1e9, 1.0)}, honest).fault
    if factor > 1.001 and rms > 1e-6:
        assert fault
    if factor < 0.999:
        assert not fault


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 1000),
    power=st.integers(-20, 20),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_rounding_passes_and_zeros_fail_at_any_scale(shape, seed, power, dtype):
    want = values(*shape, seed=seed) * 2.0 ** (power / 4)
    kind = getattr(torch, dtype)
    assert judged(want.to(kind), want, dtype).fault == ""
    assert judged(torch.zeros(shape, dtype=kind), want, dtype).fault
