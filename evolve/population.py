"""The islands as Ray actors, and the fold that turns ordered evaluations into archives.

`Population.tell` is the only way an evaluation reaches an island, in a live run and in a replay
alike, and it is called in `seq` order; so a resumed run has the archives of the one that stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ray

from evaluators.schema import Definition, Evaluation, Status
from evolve.config import RunConfig
from evolve.emitters import EMITTERS
from evolve.store import Kind, Row
from islands.archive import AddStatus
from islands.contest import Contest
from islands.island import Island
from islands.migration import Ring
from islands.program import Program

_JUDGED = {
    Status.PASSED,
    Status.INCORRECT_SHAPE,
    Status.INCORRECT_DTYPE,
    Status.INCORRECT_NUMERICAL,
}


class IslandActor:
    """An island in its own process; plain arguments and results."""

    def __init__(self, index: int, seed: int, definition: Definition, shares: dict[str, float]):
        emitters = [(EMITTERS[name](), share) for name, share in shares.items()]
        self._island = Island(index, seed, definition, emitters)

    def ask(self) -> Program | None:
        return self._island.ask()

    def known(self, program_id: str) -> None:
        self._island.known(program_id)

    def resume_at(self, ordinal: int) -> None:
        self._island.resume_at(ordinal)

    def tell(self, program: Program, evaluation: Evaluation) -> tuple[AddStatus, str]:
        return self._island.tell(program, evaluation), self._island.niche_key(program, evaluation)

    def contest(self, program: Program) -> Contest:
        return self._island.contest(program)

    def emigrants(self, count: int) -> list[tuple[Program, Evaluation]]:
        return self._island.emigrants(count)

    def immigrate(self, elites: list[tuple[Program, Evaluation]]) -> None:
        self._island.immigrate(elites)

    def open_epoch(self, epoch: int) -> list[tuple[float, Program]]:
        scores = {program.id: evaluation.score for _, program, evaluation in self._island.elites()}
        return [(scores[program.id], program) for program in self._island.open_epoch(epoch)]

    def elites(self) -> list[tuple[str, Program, Evaluation]]:
        return self._island.elites()

    def elite_ids(self) -> list[str]:
        return [program.id for _, program, _ in self._island.elites()]


class Population:
    """All islands of one run. Not thread-safe: one owner."""

    def __init__(self, config: RunConfig, definition: Definition) -> None:
        actor = ray.remote(num_cpus=0)(IslandActor)
        own = {n: share for n, share in config.islands.emitters.items() if n in EMITTERS}
        self._islands = [
            actor.remote(k, config.seed, definition, own) for k in range(config.islands.count)
        ]
        self._ring = Ring(config.islands.count, config.islands.migration_interval)
        self._migrants = config.islands.migrants
        self._searched = 0
        self._holders: dict[str, list[int]] = {}
        self._twins: dict[str, str] = {}
        self.epoch = -1

    def __len__(self) -> int:
        return len(self._islands)

    def ask(self, island: int) -> Any:
        """Reference to the island's next Program, or to None when it has nothing new."""
        return self._islands[island].ask.remote()

    def known(self, island: int, program_id: str) -> None:
        """The program exists already (another island's): this island must not propose it again."""
        self._islands[island].known.remote(program_id)

    def resume_at(self, ordinals: dict[int, int]) -> None:
        """Continue each island's random stream at its next ordinal."""
        for island, ordinal in ordinals.items():
            self._islands[island].resume_at.remote(ordinal)

    def tell(self, program: Program, kind: Kind, evaluation: Evaluation) -> Any:
        """Give one recorded evaluation to the islands that want it.

        A seed goes to every island, a re-measured elite to those that held it, any other program to
        the one that proposed it. Returns a reference to (AddStatus, niche key).
        """
        self._note_binary(program, evaluation)
        if kind == "seed":
            targets = list(range(len(self)))
        elif kind == "remeasure":
            targets = self._holders.get(program.id, [program.island])
        else:
            targets = [program.island]
        outcomes = [self._islands[k].tell.remote(program, evaluation) for k in targets]
        if kind == "search":
            self._searched += 1
            if self._ring.due(self._searched):
                self._migrate()
        return outcomes[0]

    def _note_binary(self, program: Program, evaluation: Evaluation) -> None:
        """Remember the built code of a program that was judged: no twin of it needs to be.

        What else ended an evaluation (a deadline, memory, a lost process) may have been chance.
        """
        facts = evaluation.build
        if facts is not None and facts.binary and evaluation.status in _JUDGED:
            score = f", {evaluation.score:.3f}x the anchor" if evaluation.passed else ""
            told = f"{program.id} ({evaluation.status.value}{score})"
            self._twins.setdefault(facts.binary, told)

    def twins(self) -> dict[str, str]:
        """Built code -> which program of this epoch has it already, and what became of that."""
        return dict(self._twins)

    def contest(self, program: Program) -> Any:
        """Reference to the contest of a program with the elites of its island.

        An island answers in the order called, so the elites are those of all that it was told.
        """
        return self._islands[program.island].contest.remote(program)

    def open_epoch(self, epoch: int) -> list[Program]:
        """Empty every archive; return the programs that were elites, each once, best first."""
        self.epoch = epoch
        self._twins.clear()
        elites = ray.get([island.open_epoch.remote(epoch) for island in self._islands])
        self._holders = {}
        found: dict[str, tuple[float, Program]] = {}
        for index, members in enumerate(elites):
            for score, program in members:
                found[program.id] = (score, program)
                self._holders.setdefault(program.id, []).append(index)
        ordered = sorted(found.values(), key=lambda pair: (-pair[0], pair[1].id))
        return [program for _, program in ordered]

    def elites(self) -> list[tuple[str, Program, Evaluation]]:
        """(niche key, program, evaluation) over all islands, best first, each program once."""
        found = [
            e for island in ray.get([i.elites.remote() for i in self._islands]) for e in island
        ]
        unique = {program.id: (niche, program, ev) for niche, program, ev in found}
        return sorted(unique.values(), key=lambda e: (-e[2].score, e[1].id))

    def size(self) -> int:
        """How many programs are elites somewhere."""
        found = ray.get([island.elite_ids.remote() for island in self._islands])
        return len({program_id for ids in found for program_id in ids})

    def replay(
        self, rows: Iterable[Row], program: Callable[[str], Program], latest: int
    ) -> list[Program]:
        """Fold recorded evaluations up to epoch `latest`; returns elites not yet measured in it.

        `program` finds a program by its id.
        """
        owed: dict[str, Program] = {}
        for row in rows:
            while row.epoch > self.epoch:
                owed = {p.id: p for p in self.open_epoch(self.epoch + 1)}
            owed.pop(row.program_id, None)
            self.tell(program(row.program_id), row.kind, row.evaluation)
        while latest > self.epoch:
            owed = {p.id: p for p in self.open_epoch(self.epoch + 1)}
        return list(owed.values())

    def _migrate(self) -> None:
        """Copy each island's best elites to its neighbour; all leave before any arrives."""
        if not self._migrants or len(self) == 1:
            return
        leaving = ray.get([i.emigrants.remote(self._migrants) for i in self._islands])
        for source, elites in enumerate(leaving):
            self._islands[self._ring.target(source)].immigrate.remote(elites)
