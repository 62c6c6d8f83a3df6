"""Many more judged calls of one solution: what fails three times in two hundred shows here."""

from __future__ import annotations

from collections import Counter

from evaluators.child import CandidateFailed
from evaluators.judging import WRONG, judged
from evaluators.schema import Judged, Replays
from evaluators.trial import Trial

TWICE = 4
"""One call in so many is made twice on its values, and the outputs have to agree."""


def replay(trial: Trial, calls: int, confirm: bool = True) -> Replays:
    """`calls` judged calls over all items in turn, each on a draw of its own.

    A wrong call is recorded and the next one made; a candidate whose process fails is at its end.
    `confirm`: on CUDA, look at whose kernels a call launches.
    """
    epoch, items, tally = trial.epoch, trial.items, Tally(trial)
    start = held = (0, 0)
    for number in range(calls):
        item = items[number % len(items)]
        draw = 0 if trial.planned else epoch.fresh()
        try:
            if number == min(len(items), calls // 2):
                start = trial.held()  # every workspace has been made by now
            again = number // len(items) % TWICE == TWICE - 1
            tally.right(item, judged(trial, item, draw, again=again).budget_used)
            held = trial.held()
        except CandidateFailed as error:
            tally.wrong(item, error)
            if error.status not in WRONG:
                break
        finally:
            if not trial.planned:
                epoch.right.drop(item, draw)
    asked = confirm and not epoch.on_cpu and not tally.failures
    return Replays(
        device="cpu" if epoch.on_cpu else "cuda",
        calls=tally.made,
        failures=tuple(tally.failures),
        judged=tally.rows(),
        launches=_launches(trial) if asked else "",
        start_bytes=start[0],
        final_bytes=held[0],
        peak_bytes=max(held),
    )


class Tally:
    """What judged calls came to, by item."""

    def __init__(self, trial: Trial) -> None:
        self._epoch = trial.epoch
        self._calls: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()
        self._used: dict[int, float] = {}
        self.failures: list[str] = []

    @property
    def made(self) -> int:
        return self._calls.total()

    def right(self, item: int, budget_used: float) -> None:
        self._calls[item] += 1
        self._used[item] = max(budget_used, self._used.get(item, 0.0))

    def wrong(self, item: int, error: CandidateFailed) -> None:
        self._calls[item] += 1
        self._failed[item] += 1
        self.failures.append(f"call {self.made}: {error.status.value}: {error.log}")

    def rows(self) -> tuple[Judged, ...]:
        """One row per item that was called, cases first."""
        return tuple(
            Judged(
                workload=self._epoch.items[item].uuid,
                label=self._epoch.label(item),
                kind="case" if self._epoch.is_case(item) else "workload",
                calls=self._calls[item],
                failures=self._failed[item],
                budget_used=self._used.get(item, 0.0),
            )
            for item in self._epoch.order
            if self._calls[item]
        )


def _launches(trial: Trial) -> str:
    """What one call on the largest item launched, where that was not its own kernels."""
    epoch, item = trial.epoch, trial.epoch.order[-1]
    try:
        epoch.draw(item, 0 if trial.planned else epoch.fresh(), watched=False)
        epoch.poison(item, trial.slot)
        epoch.wait()
        return trial.launches(item)
    except CandidateFailed as error:
        return f"under the profiler: {error}"
