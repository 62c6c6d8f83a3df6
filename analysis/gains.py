"""Who made a search better: what each emitter's programs added to the best score so far.

Scores compare within an epoch only. So a program's gain is the logarithm of how much it raised the
best score so far of its epoch, and gains are summed over programs and epochs. What an epoch begins
with (seeds, elites measured again) is nobody's gain. The best of many noisy scores is partly luck,
and so are these sums: they say who moved the search, not how fast the champion is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

from analysis.trajectory import best_so_far

COLUMNS = ("evaluated", "passed", "new", "improved", "best", "gain", "last_improvement")
COUNTED = ("search", "remeasure")
"""Kinds of evaluations that a budget counts."""


def course(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` (`frames.evaluations`) with the columns `number`, `best` and `gain`.

    `number`: evaluations that the budget counts, up to and with the row (seeds are at 0). `best`:
    best score so far of the epoch, NaN before the first. `gain`: logarithm of how much the row
    raised it; 0 for rows other than searched programs.
    """
    best = best_so_far(frame).reindex(frame.index)
    before = best.groupby(frame["epoch"]).shift()
    raised = (best / before).map(math.log).where(frame["kind"] == "search", 0.0)
    return frame.assign(
        number=frame["kind"].isin(COUNTED).cumsum(), best=best, gain=raised.fillna(0.0)
    )


def by(course_: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """One row per group of searched programs, with `COLUMNS`; `groups` has `course_`'s index.

    `new`, `improved`: programs that filled a niche or replaced its elite. `best`: best score among
    the group's (of whichever epoch). `gain`: sum, in logarithms. `last_improvement`: `number` of
    the last program that raised the best so far. NaN where there is none.
    """
    searched = course_[course_["kind"] == "search"]
    found = {
        name: _row(group) for name, group in searched.groupby(groups[searched.index], sort=True)
    }
    return pd.DataFrame.from_dict(found, orient="index", columns=list(COLUMNS))


def _row(group: pd.DataFrame) -> dict[Hashable, Any]:
    raised = group[group["gain"] > 0]
    return {
        "evaluated": len(group),
        "passed": int((group["status"] == "PASSED").sum()),
        "new": int((group["archive"] == "NEW").sum()),
        "improved": int((group["archive"] == "IMPROVED").sum()),
        "best": float(group["score"].max()),
        "gain": float(group["gain"].sum()),
        "last_improvement": float(raised["number"].max()) if len(raised) else math.nan,
    }
