"""`evolve verify`: the whole battery on one solution, and a report that is always written.

`subject` reads what is given, `battery` runs the steps (`environment`, `steps`, `regression`) in
contest order, `record` says what a step and a report are, `page` writes them for people.
"""

from __future__ import annotations

from evolve.verification.battery import verify
from evolve.verification.record import Outcome, Report, Step, Table

__all__ = ["Outcome", "Report", "Step", "Table", "verify"]
