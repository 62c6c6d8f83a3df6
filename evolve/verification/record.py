"""What a verification leaves: one record per step, and the report that holds them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from evaluators.schema import Record

NAMES = ("environment", "build", "correctness", "benchmark", "stability", "regression")
"""The steps, in their order; the report is what follows them."""


class Outcome(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"  # the kernel's fault
    NOT_AVAILABLE = "NOT AVAILABLE"  # there is nothing here to do it with, or to compare with
    BROKEN = "BROKEN"  # the step could not be carried out; no word about the kernel
    NOT_REACHED = "NOT REACHED"


class Table(Record):
    """Rows of plain values under one title. A column's unit is part of its name (`latency_us`)."""

    title: str
    rows: tuple[dict[str, Any], ...]


class Step(Record):
    """One step. `summary` is one line; `notes` are what a reader must not miss beside it."""

    name: str
    outcome: Outcome
    summary: str = ""
    notes: tuple[str, ...] = ()
    log: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it stands against no kernel: done and right, or not possible here."""
        return self.outcome in (Outcome.PASSED, Outcome.NOT_AVAILABLE)


class Report(Record):
    """Everything that one verification found. `started`: Unix time."""

    solution: str
    digest: str
    definition: str
    language: str
    entry_point: str
    device: str
    seed: int
    started: float
    steps: tuple[Step, ...]
    entries: tuple[dict[str, Any], ...] = ()
    anchor: str = ""

    @model_validator(mode="after")
    def _all_steps_in_order(self) -> Report:
        if tuple(step.name for step in self.steps) != NAMES:
            raise ValueError(f"a report has the steps {', '.join(NAMES)}")
        return self

    @property
    def passed(self) -> bool:
        return all(step.holds for step in self.steps)

    @property
    def verdict(self) -> str:
        """PASSED, FAILED, or UNDECIDED when a step could not be carried out."""
        if self.passed:
            return "PASSED"
        failed = any(step.outcome is Outcome.FAILED for step in self.steps)
        return "FAILED" if failed else "UNDECIDED"

    @property
    def reason(self) -> str:
        """Which step does not hold and why, on one line; '' when all do."""
        for step in self.steps:
            if step.outcome in (Outcome.FAILED, Outcome.BROKEN):
                return f"{step.name}: {' '.join(step.summary.split())}"
        return ""

    def document(self) -> dict[str, Any]:
        """JSON form: the fields, and what follows from them."""
        head = {"verdict": self.verdict, "passed": self.passed, "reason": self.reason}
        return {**head, **self.model_dump(mode="json")}
