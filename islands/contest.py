"""The contest: whether a program that few workloads have screened is worth the full measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.schema import BuildFacts, Evaluation, Solution, Status, WorkloadResult
from islands.archive import Archive
from islands.descriptor import niche_of
from islands.niche import Niche


@dataclass(frozen=True)
class Contest:
    """A program against the elites of its island, as they stood when it was sent out.

    Which niche the program falls into is known once it is built, so the results of every niche's
    elite travel along. Picklable, holds nothing but records: it is called in the evaluator.
    """

    solution: Solution
    elites: Mapping[Niche, tuple[WorkloadResult, ...]]

    @classmethod
    def of(cls, solution: Solution, archive: Archive) -> Contest:
        """The contest of `solution` with the elites that `archive` holds now."""
        return cls(solution, {niche: e.evaluation.results for niche, e in archive.items()})

    def __call__(
        self, facts: BuildFacts | None, score_high: float, workloads: tuple[str, ...] = ()
    ) -> bool:
        """Whether the program may still become an elite: it is not clearly worse than the present.

        `score_high` is the upper end of its score's 95% interval on the screened `workloads` (their
        uuids; all when empty). It is compared with the lower end of the elite's on the same
        workloads, because the speedup over the anchor differs from workload to workload. True in an
        empty niche, or where the elite was not measured on one of the workloads.
        """
        results = self.elites.get(niche_of(self.solution, facts or BuildFacts()))
        if results is None:
            return True
        wanted = set(workloads) or {r.workload for r in results}
        shared = tuple(r for r in results if r.workload in wanted)
        if len(shared) < len(wanted):
            return True
        elite = Evaluation(status=Status.PASSED, epoch=0, results=shared)
        return score_high >= elite.score_low
