"""The judge's part in timing: new values before every round, and a look at what the calls wrote.

Secretly chosen calls get a draw whose exact outputs are known; the outputs of all calls are
compared with what the anchor wrote from the same values. Both are right only when they are no
further apart than their two budgets together. That matters most for calls that are not judged
exactly: draws of judged calls come round again, so that a process can learn to tell them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from evaluators.deviation import SMALL_ROW
from evaluators.judging import DRAWS
from evaluators.latency import ROUNDS
from evaluators.schema import Status
from evaluators.trial import Trial

JUDGED = 3
"""Calls among the first rounds that are judged exactly."""

LATER = 1 / 8
"""Chance of a later call to be judged exactly."""

POOL = range(DRAWS[-1] + 1, DRAWS[-1] + 1 + 4)
"""Draws of judged calls: the same for all candidates of an epoch, so that references are kept."""

ALIKE = 0.05
"""Difference from the anchor's outputs, over their RMS, that no call which did the work reaches.
Where two error budgets together allow less, less is allowed."""

TOGETHER = 1 << 25
"""Elements of one output that are compared at once: a round has many calls with small outputs."""


@dataclass(frozen=True)
class _Laid:
    """One call of a round: its place in the ring (0: in place), and its draw where it is judged."""

    ring: int
    draw: int | None


class TimedCalls:
    """One workload's timed calls, see `evaluators.latency.Desk`. `chance` draws from a secret."""

    def __init__(
        self, trial: Trial, anchor_slot: int, workload: int, chance: random.Random
    ) -> None:
        self._trial = trial
        self._epoch = trial.epoch
        self._anchor_slot = anchor_slot
        self._item = workload
        self._chance = chance
        self.slots = self._epoch.calls[workload].slots
        self._early: set[int] = set()
        self._count = 0
        self._judged = 0
        self._laid: list[_Laid] = []
        self._ours: list[tuple[Any, ...]] = []
        self._planned_rings: set[int] = set()

    def open(self) -> None:
        """Write values for the first look."""
        epoch, item = self._epoch, self._item
        epoch.draw(item, 0 if self._trial.planned else epoch.fresh(), watched=self._trial.planned)
        for slot in (self._trial.slot, self._anchor_slot):
            epoch.poison(item, slot)
        if self._trial.planned:
            epoch.know(item, 0)
            self._planned_rings.add(0)
        epoch.wait()

    def lay(self, calls: int) -> None:
        """Write a draw for each call of the next round, and poison both sides' outputs."""
        if not self._count:
            first = range(ROUNDS[0] * calls)
            self._early = set(self._chance.sample(first, min(JUDGED, len(first))))
        self._laid = [self._lay(place if calls > 1 else 0) for place in range(1, calls + 1)]
        for slot in (self._trial.slot, self._anchor_slot):
            self._epoch.poison(self._item, slot)
        self._epoch.wait()

    def take(self) -> None:
        """Copy what the candidate wrote, at once: a thread of its own may still be at work."""
        epoch, slot = self._epoch, self._trial.slot
        self._ours = [
            tuple(output.clone() for output in epoch.outputs(self._item, slot, laid.ring))
            for laid in self._laid
        ]
        epoch.wait()  # the copies are not to run beside what is timed next

    def look(self) -> None:
        """Judge the round that was timed. Raises CandidateFailed."""
        trial, epoch, item = self._trial, self._epoch, self._item
        outside = epoch.trespass(item, trial.slot)
        if outside:
            raise trial.failed(item, Status.RUNTIME_ERROR, f"a timed call wrote {outside}")
        ours, self._ours = self._ours, []
        theirs = [epoch.outputs(item, self._anchor_slot, laid.ring) for laid in self._laid]
        for laid, outputs in zip(self._laid, ours, strict=True):
            if laid.draw is not None:
                self._judge(laid, laid.draw, outputs)
        names = [e.name for e in epoch.calls[item].outputs]
        unlike = _unlike(names, ours, theirs, epoch.right.apart(item), trial.skips)
        if unlike:
            text = f"{unlike} holds something else than the answer in a timed call"
            raise trial.failed(item, Status.INCORRECT_NUMERICAL, text)

    def _lay(self, ring: int) -> _Laid:
        number, self._count = self._count, self._count + 1
        judged = number in self._early or self._chance.random() < LATER
        if self._trial.planned:
            if ring not in self._planned_rings:
                self._epoch.draw(self._item, 0, ring)
                self._planned_rings.add(ring)
            return _Laid(ring, 0 if judged else None)
        draw = POOL[self._judged % len(POOL)] if judged else self._epoch.fresh()
        self._judged += judged
        self._epoch.draw(self._item, draw, ring, watched=judged)
        if judged:
            self._epoch.know(self._item, draw, ring)
        return _Laid(ring, draw if judged else None)

    def _judge(self, laid: _Laid, draw: int, outputs: tuple[Any, ...]) -> None:
        trial, epoch, item = self._trial, self._epoch, self._item
        last = self._laid[-1].ring
        if not epoch.unchanged(item, laid.ring) or (last and not epoch.follows(item, last)):
            text = "the inputs were modified while timed"
            raise trial.failed(item, Status.RUNTIME_ERROR, text)
        fault = epoch.right.compare(item, draw, outputs, trial.skips).fault
        if fault:
            text = f"{fault}, in a timed call"
            raise trial.failed(item, Status.INCORRECT_NUMERICAL, text)


def _unlike(
    names: list[str],
    ours: list[tuple[Any, ...]],
    theirs: list[tuple[Any, ...]],
    limits: dict[str, tuple[float, float]],
    skips: tuple[str, ...],
) -> str:
    """'' when all outputs resemble the anchor's, else the first that does not.

    `limits`: name -> how far two right outputs may be apart, see `correctness.apart`.
    """
    import torch

    for place, name in enumerate(names):
        first = theirs[0][place]
        if name in skips or not first.numel():
            continue
        wide = torch.float32 if first.is_floating_point() else torch.float64
        shape = (-1, first.shape[-1] if first.dim() > 1 else first.numel())
        faults = []
        together = max(1, TOGETHER // first.numel())
        for at in range(0, len(ours), together):
            one, other = (
                torch.stack([outputs[place].reshape(shape) for outputs in side[at : at + together]])
                for side in (ours, theirs)
            )
            faults.append(_apart(one.to(wide), other.to(wide), limits[name]))
        if bool(torch.cat(faults).any()):
            return f"output {name!r}"
    return ""


def _apart(one: Any, other: Any, limits: tuple[float, float]) -> Any:
    """Which calls differ by more than the limits; outputs of shape [calls, rows, width]."""
    import torch

    error = torch.where(one == other, 0.0, one - other).square().mean(2)
    rows = torch.where(torch.isfinite(other), other, 0.0).square().mean(2)
    size = rows.mean(1)
    rms, by_row = min(ALIKE, limits[0]), limits[1]
    rows = rows.clamp(min=(SMALL_ROW**2 * size)[:, None])
    relative = torch.where(rows > 0, error / rows, 0.0).mean(1)
    # NaN is not below anything; and where all is zero nothing may differ.
    return ~((error.mean(1) <= rms**2 * size) & (relative <= by_row**2))
