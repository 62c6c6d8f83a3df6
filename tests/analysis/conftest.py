"""Frames built from real records: `row` makes a stored evaluation, `entry` a report's entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from analysis import frames
from evaluators.schema import BuildFacts, Evaluation, Status, WorkloadResult


@dataclass(frozen=True)
class Row:
    seq: int
    program_id: str
    epoch: int
    evaluation: Evaluation
    at: float
    status_in_archive: str
    niche: str
    island: int
    emitter: str
    kind: str


def evaluation(score: float | None, epoch: int = 0, status: str = "COMPILE_ERROR") -> Evaluation:
    """A PASSED evaluation of this score with a 2% interval on two workloads, or a failed one."""
    if score is None:
        return Evaluation(status=Status(status), epoch=epoch, log="\n  error: no such tile\nmore\n")
    results = [
        WorkloadResult(
            workload=f"w{i}", max_absolute_error=0.0, max_relative_error=0.0,
            latency_ms=1 / s, anchor_ms=1.0, speedup=s, speedup_low=s / 1.02,
            speedup_high=s * 1.02,
        )
        for i, s in enumerate((score * 1.1, score / 1.1))
    ]  # fmt: skip
    build = BuildFacts(shared_bytes=4096, registers=64, num_warps=4, num_stages=3)
    return Evaluation(
        status=Status.PASSED, epoch=epoch, results=tuple(results), build=build,
        seconds={"build": 1.5, "latency": 0.25},
    )  # fmt: skip


def make_row(
    seq: int,
    score: float | None,
    *,
    epoch: int = 0,
    kind: str = "search",
    niche: str = "triton/split/t64/s3/w4/pointer",
    status: str = "COMPILE_ERROR",
    emitter: str = "tuner",
) -> Row:
    return Row(
        seq, f"{seq:032x}", epoch, evaluation(score, epoch, status), 1.7e9 + seq,
        "NEW" if score else "REJECTED", niche if score else "", seq % 2, emitter, kind,
    )  # fmt: skip


def make_entry(
    name: str, role: str, latencies: Sequence[float], labels: Sequence[str], half: float = 0.01
) -> dict[str, Any]:
    """An entry over an anchor that takes 1 ms everywhere; `latencies` in ms."""
    results = [
        {
            "workload": f"w{i}", "label": label, "axes": {"n": i}, "latency_ms": latency,
            "anchor_ms": 1.0, "speedup": 1 / latency, "speedup_low": math.exp(-half) / latency,
            "speedup_high": math.exp(half) / latency, "weight": 1.0, "flops": 1e9, "bytes": 1e8,
            "max_absolute_error": 0.0, "max_relative_error": 0.0,
        }
        for i, (latency, label) in enumerate(zip(latencies, labels, strict=True))
    ]  # fmt: skip
    return {"name": name, "role": role, "status": "PASSED", "log": "", "results": results}


@pytest.fixture
def row() -> Callable[..., Row]:
    return make_row


@pytest.fixture
def entry() -> Callable[..., dict[str, Any]]:
    return make_entry


TOKENS = ("tokens=1", "tokens=64", "tokens=4096")


@pytest.fixture
def run() -> frames.Run:
    """A small run: two seeds, two epochs, failures of two kinds, a closing report."""
    rows = [
        make_row(1, 1.0, kind="seed", emitter="seed"),
        make_row(2, 0.5, kind="seed", emitter="seed", niche="cuda/tiled/t128/s1/w8/tma"),
        make_row(3, None),
        make_row(4, 1.5, emitter="crossover"),
        make_row(5, None, status="TIMEOUT"),
        make_row(6, 1.2),
        make_row(7, 1.4, epoch=1, kind="remeasure"),
        make_row(8, 1.8, epoch=1, niche="triton/split/t128/s4/w8/pointer"),
    ]
    report = {
        "champion": {"program_id": "8" * 32, "verified": True},
        "entries": [
            make_entry("champion", "champion", (0.5, 0.5, 0.5), TOKENS),
            make_entry("seed_a", "seed", (1.0, 1.0, 1.0), TOKENS),
            make_entry("seed_b", "seed", (2.0, 2.0, 2.0), TOKENS),
            make_entry("library", "peer", (0.6, 0.75, 0.4), TOKENS),
            make_entry("eager", "peer", (3.0, 3.0, 3.0), TOKENS),
            make_entry("other job", "bound", (0.3, 0.3, 0.3), TOKENS),
            {"name": "absent", "role": "peer", "status": "NOT_INSTALLED", "log": "needs absent"},
        ],
    }
    meta = {
        "definition": "matmul_f32",
        "device": {"name": "A CPU", "ceilings": {"copy_gbps": 400.0, "tflops": {"float32": 4.0}}},
    }
    return frames.run_of(meta, rows, report)


@pytest.fixture
def share() -> Callable[[Path, str], float]:
    """Share of an image's pixels that have (nearly) a colour `#rrggbb`."""

    def measure(path: Path, color: str) -> float:
        pixels = matplotlib.image.imread(path)[:, :, :3]
        wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return float((np.abs(pixels - wanted).max(axis=2) < 0.02).mean())

    return measure
