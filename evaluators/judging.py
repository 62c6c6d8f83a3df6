"""Correctness: judged calls of one candidate, on values that nobody has seen before.

Every item gets two draws. On the second draw a workload is called twice: the outputs have to agree.
Cases, which exist for their edges and are many, are called once a draw.
"""

from __future__ import annotations

from typing import Any

from evaluators.child import CandidateFailed
from evaluators.correctness import Comparison
from evaluators.schema import Status
from evaluators.trial import Trial

DRAWS = (0, 1)
"""Draws of each item that are judged before anything is timed."""

WRONG = (Status.INCORRECT_NUMERICAL, Status.NONDETERMINISTIC)
"""Statuses that modified inputs would explain."""


def judge(trial: Trial) -> list[Comparison]:
    """Judge every item of the trial, cheapest first; stops at the first that is wrong.

    Returns the worst comparison of each workload, in the order of the workloads. Raises
    CandidateFailed. Needs the device.
    """
    epoch = trial.epoch
    found = {item: _item(trial, item) for item in trial.items}
    return [found[i] for i in range(len(epoch.workloads))]


def judged(trial: Trial, item: int, draw: int, *, again: bool = False) -> Comparison:
    """One judged call on one draw; with `again` two, which have to agree.

    A call that is wrong is made once more: if the second says something else, the candidate is not
    wrong but nondeterministic. Inputs that were modified count when it happens twice in a row,
    because work that an earlier candidate left on the device may do it too.
    """
    for _ in range(2):
        trial.epoch.draw(item, draw)
        trial.epoch.know(item, draw)
        failure: CandidateFailed | None = None
        try:
            comparison = _called(trial, item, draw, again)
        except CandidateFailed as error:
            failure = error
        if trial.epoch.unchanged(item):
            if failure is not None:
                raise failure
            return comparison
        if failure is not None and failure.status not in WRONG:
            raise failure
    raise trial.failed(item, Status.RUNTIME_ERROR, "the inputs were modified")


def _item(trial: Trial, item: int) -> Comparison:
    draws = DRAWS[:1] if trial.planned else DRAWS
    found = [
        judged(trial, item, draw, again=draw == draws[-1] and not trial.epoch.is_case(item))
        for draw in draws
    ]
    return max(found, key=lambda c: c.max_relative_error)


def _called(trial: Trial, item: int, draw: int, again: bool) -> Comparison:
    comparison, first = _compared(trial, item, draw)
    if not comparison.fault and not again:
        return comparison
    kept = tuple(output.clone() for output in first)
    second, outputs = _compared(trial, item, draw)
    differs = trial.epoch.right.agree(item, kept, outputs, trial.skips)
    if differs:
        wrong = comparison.fault or second.fault
        text = differs + (f"; one of them is wrong: {wrong}" if wrong else "")
        raise trial.failed(item, Status.NONDETERMINISTIC, text)
    if comparison.fault:
        raise trial.failed(item, Status.INCORRECT_NUMERICAL, comparison.fault)
    return comparison


def _compared(trial: Trial, item: int, draw: int) -> tuple[Comparison, tuple[Any, ...]]:
    outputs = trial.call(item)
    return trial.epoch.right.compare(item, draw, outputs, trial.skips), outputs
