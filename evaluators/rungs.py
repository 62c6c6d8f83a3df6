"""Cheap first: which workloads are timed before it is decided whether the others are worth it."""

from __future__ import annotations

from collections.abc import Callable

from evaluators.schema import BuildFacts

Contends = Callable[[BuildFacts | None, float, tuple[str, ...]], bool]
"""Build facts, the upper end of the score so far, the uuids of the workloads that it is of ->
whether the full rung is worth its time."""

SHARE = 3
"""One workload in so many is screened."""


def screened(order: list[int]) -> list[int]:
    """The workloads of the screen rung: a third of `order` (cheap to expensive), spread over it."""
    count = max(1, round(len(order) / SHARE))
    return [order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count)]
