"""Layout of shared memory: base, live and ring, outputs between their bands."""

from __future__ import annotations

import itertools

import pytest

from evaluators import arena
from evaluators.schema import Definition
from tests.evaluators.bench import DEFINITION

SIZES = [{"n": 1000}, {"n": 77}, {"n": 5000}]
SCALARS = [{"scale": 2.0}] * len(SIZES)

TWO_OUTPUTS = Definition.model_validate(
    {
        **DEFINITION.model_dump(mode="json"),
        "outputs": {
            "y": {"shape": ["n"], "dtype": "float32"},
            "z": {"shape": ["n"], "dtype": "bfloat16"},
        },
    }
)


def extent(entries: tuple[arena.Entry, ...]) -> list[tuple[int, int]]:
    return [(e.offset, e.offset + e.nbytes) for e in entries if e.shape is not None]


@pytest.mark.parametrize("ring", [0, 4])
def test_regions_do_not_overlap(ring: int) -> None:
    found = arena.plan(TWO_OUTPUTS, SIZES, SCALARS, ring)
    live = found.calls[0].live_start
    for call in found.calls:
        assert call.slots == ring
        places = extent(call.base)
        assert all(end <= live for _, end in places)
        for slot in range(ring + 1):
            places += extent(call.inputs(slot))
        for (_, end), (start, _) in itertools.pairwise(sorted(places)):
            assert end <= start
        assert max(end for _, end in places) <= found.input_bytes
        assert all(start % arena.ALIGNMENT == 0 for start, _ in places)
        assert call.reach * (1 + ring) <= found.output_bytes


def test_live_inputs_are_laid_out_as_base_inputs() -> None:
    for call in arena.plan(DEFINITION, SIZES, SCALARS, 2).calls:
        for base, live in zip(call.base, call.live, strict=True):
            if base.shape is not None:
                assert live.offset - call.live_start == base.offset - call.base_start
            else:
                assert live.value == base.value == 2.0


@pytest.mark.parametrize("slot", [0, 3])
def test_bands_and_outputs_fill_the_reach(slot: int) -> None:
    call = arena.plan(TWO_OUTPUTS, SIZES, SCALARS, 4).calls[1]
    bands, outputs = call.bands(slot), extent(call.results(slot))
    assert all(end - start >= arena.BAND for start, end in bands)
    covered = sorted([*bands, *outputs])
    assert covered[0][0] == slot * call.reach
    assert covered[-1][1] == (slot + 1) * call.reach
    for (_, end), (start, _) in itertools.pairwise(covered):
        assert end == start


def test_a_ring_holds_as_many_slots_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arena.plan(DEFINITION, SIZES, SCALARS, 8)
    largest = max(call.span for call in whole.calls)
    monkeypatch.setattr(arena, "RING_BYTES", 3 * largest)
    found = arena.plan(DEFINITION, SIZES, SCALARS, 8)
    assert [call.slots for call in found.calls] == [8, 8, 3]
    assert found.input_bytes == whole.input_bytes - 5 * largest


def test_a_ring_has_no_more_slots_than_its_outputs_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = arena.plan(TWO_OUTPUTS, SIZES, SCALARS, 8)
    monkeypatch.setattr(arena, "RESULT_BYTES", 2 * whole.calls[-1].reach)
    found = arena.plan(TWO_OUTPUTS, SIZES, SCALARS, 8)
    assert found.calls[-1].slots == 2
    assert all(call.slots * call.reach <= arena.RESULT_BYTES for call in found.calls)
    assert found.output_bytes < whole.output_bytes
