"""Freed memory holds numbers that spoil a sum, and only while a call is judged."""

from __future__ import annotations

import platform

import pytest
import torch

from evaluators import freed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("size", [50, 3_000, 10_000_000])
def test_new_memory_is_neither_zero_nor_old(size: int) -> None:
    old = torch.full((size,), 5.0)
    del old
    with freed.poisoned("cpu"):
        found = torch.empty(size)
        # malloc keeps its own links in the first bytes of a block that it hands out again.
        values = {round(float(v), 2) for v in found[8:].unique()}
    assert values <= {0.75, -6.02}


def test_unused_blocks_are_taken_piece_by_piece() -> None:
    def block(size: int, state: str) -> dict[str, object]:
        return {"size": size, "state": state}

    small = {
        "segment_type": "small",
        "total_size": 2 << 20,
        "blocks": [block(512, "active_allocated"), block((1 << 20) + 512, "inactive")],
    }
    large = {
        "segment_type": "large",
        "total_size": 20 << 20,
        "segment_pool_id": (0, 0),
        "blocks": [block(20 << 20, "inactive")],
    }
    graphs = {**large, "segment_pool_id": (0, 1)}
    mine, other = {**large, "stream": 7}, {**large, "stream": 9}
    found = freed._inactive([small, mine, graphs, other], stream=7)
    assert found == [1 << 20, 512, 20 << 20]


def test_what_a_process_holds_and_its_peak() -> None:
    before = freed.held("cpu")
    kept = torch.ones(50 << 20, dtype=torch.uint8)
    after = freed.held("cpu")
    assert after["held"] - before["held"] > 40 << 20
    assert after["peak"] >= after["held"] - (1 << 20)
    del kept
