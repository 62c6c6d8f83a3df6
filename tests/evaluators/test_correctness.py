"""The comparison of outputs with references."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.correctness import compare, poison
from evaluators.schema import Definition

TOLERANCES = {"float32": (1e-3, 0.0)}


def definition(dtype: str = "float32") -> Definition:
    spec = {"shape": ["n"], "dtype": dtype}
    return Definition.model_validate(
        {
            "name": "any",
            "op_type": "any",
            "axes": {"n": {"type": "var"}},
            "inputs": {"x": spec},
            "outputs": {"y": spec},
        }
    )


def judged(got, want, tolerances=TOLERANCES):
    dtype = str(want.dtype).removeprefix("torch.")
    return compare((got,), (want,), definition(dtype), tolerances)


def test_errors_are_measured_against_the_rms():
    want = torch.full((100,), 10.0)
    got = want.clone()
    got[3] += 0.009
    found = judged(got, want)
    assert found.fault == ""
    assert found.max_absolute_error == pytest.approx(0.009, rel=1e-3)
    assert found.max_relative_error == pytest.approx(0.0009, rel=1e-3)
    got[3] += 0.002
    assert "1 of 100" in judged(got, want).fault


def test_a_share_of_elements_may_lie_beyond():
    want = torch.ones(100)
    got = want.clone()
    got[:2] = 2.0
    assert judged(got, want, {"float32": (1e-3, 0.02)}).fault == ""
    got[2] = 2.0
    assert judged(got, want, {"float32": (1e-3, 0.02)}).fault


@pytest.mark.parametrize("reference", [float("nan"), 1.0, float("inf")])
def test_nan_never_matches(reference):
    want = torch.ones(4)
    want[0] = reference
    got = want.clone()
    got[0] = float("nan")
    assert "NaN" in judged(got, want, {"float32": (1e9, 1.0)}).fault


def test_equal_infinities_match_and_others_do_not():
    want = torch.tensor([1.0, -math.inf, 2.0])
    assert judged(want.clone(), want).fault == ""
    assert judged(torch.tensor([1.0, math.inf, 2.0]), want).fault
    assert judged(torch.tensor([1.0, -1e30, 2.0]), want).fault
    assert judged(torch.tensor([1.0, -math.inf, math.inf]), want).fault


def test_zero_output_fails_and_a_zero_reference_needs_zeros():
    want = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert judged(torch.zeros(1000), want).fault
    assert judged(torch.zeros(5), torch.zeros(5)).fault == ""
    assert judged(torch.full((5,), 1e-9), torch.zeros(5)).fault


def test_integers_have_to_be_equal():
    want = torch.arange(10, dtype=torch.int32)
    assert judged(want.clone(), want, {}).fault == ""
    got = want.clone()
    got[9] = 8
    assert judged(got, want, {}).fault


def test_an_output_may_have_its_own_tolerance():
    want, got = torch.ones(4), torch.full((4,), 1.05)
    assert judged(got, want).fault
    assert judged(got, want, {"y": (0.1, 0.0), **TOLERANCES}).fault == ""


def test_empty_outputs_match():
    assert judged(torch.empty(0), torch.empty(0)).fault == ""


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int32", "int8"],
)
def test_poison_never_passes_for_a_result(dtype):
    kind = getattr(torch, dtype)
    want = torch.arange(-4, 4).to(torch.float32).to(kind)
    got = want.clone()
    poison((got,))
    if kind.is_floating_point:
        assert torch.isnan(got.to(torch.float32)).all()
    assert judged(got, want, {}).fault


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    place=st.integers(0, 39),
    factor=st.floats(0, 4),
)
def test_the_bound_is_sharp(values, place, factor):
    want = torch.tensor(values, dtype=torch.float64)
    rms = float(want.square().mean().sqrt())
    got = want.clone()
    got[place % len(values)] += factor * 1e-3 * rms
    fault = judged(got, want, {"float64": (1e-3, 0.0)}).fault
    if factor > 1.001 and rms > 1e-6:
        assert fault
    if factor < 0.999:
        assert not fault
