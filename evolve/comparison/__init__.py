"""`evolve compare`: two runs side by side, and their champions measured in pairs.

`runs` reads and refuses, `duel` measures, `tables` says who gained what, `page` writes for people.
"""

from __future__ import annotations

from evolve.comparison.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
