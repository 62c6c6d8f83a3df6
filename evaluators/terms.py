"""On what terms a candidate is evaluated: options of one evaluation, limits, deadlines, effort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluators import devices
from evaluators.child import Limits
from evaluators.confinement import FILE_BYTES, TRUSTED_FILE_BYTES
from evaluators.epoch import Epoch
from evaluators.rungs import Contends
from evaluators.settings import EvaluatorSettings
from evaluators.trial import Effort

LATENCY_S = {"cuda": 0.4, "cpu": 1.2}
"""Wall time of one evaluation's latency stage where the settings do not say."""

TRUSTED_PATIENCE = 4
"""Trusted solutions get this many times the deadlines: libraries build kernels at first use."""


@dataclass(frozen=True)
class How:
    """Options of one evaluation, see `Evaluator.evaluate`."""

    trusted: bool = False
    samples_factor: float = 1.0
    skips: tuple[str, ...] = ()
    contends: Contends | None = None
    twins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What `settings` come to on `device` ("cpu" or "cuda"), `slots` evaluations at a time."""

    settings: EvaluatorSettings
    device: str
    slots: int

    def limits(self, epoch: Epoch, trusted: bool) -> Limits:
        """Limits of one candidate's process."""
        memory = self.settings.memory_bytes or devices.default_memory_bytes(self.slots)
        # Address space is no measure of memory: compilers and thread stacks reserve much.
        address = 2 * memory + (8 << 30) + epoch.host_bytes
        return Limits(
            memory_bytes=memory + epoch.host_bytes,
            file_bytes=TRUSTED_FILE_BYTES if trusted else FILE_BYTES,
            address_bytes=address if self.device == "cpu" and not trusted else None,
        )

    def effort(self, trusted: bool = False) -> Effort:
        """Deadlines of one candidate."""
        patience = TRUSTED_PATIENCE if trusted else 1
        return Effort(
            patience * self.settings.build_deadline_s,
            patience * self.settings.run_deadline_s,
        )

    def budget_ms(self, workloads: int) -> float:
        """Wall time that the timing of one of so many workloads aims at."""
        return 1e3 * (self.settings.latency_s or LATENCY_S[self.device]) / workloads
