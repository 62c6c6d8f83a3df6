"""An island: an archive with its own random stream and emitters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluators.schema import Definition, Evaluation, Solution, Status
from islands.archive import AddStatus, Archive
from islands.contest import Contest
from islands.descriptor import describe
from islands.emitter import Emitter, Proposal
from islands.program import Program, program_id
from islands.selection import ranked

RETRIES = 8
"""Proposals asked of one emitter before another gets its turn."""

Evaluated = tuple[Program, Evaluation]


class Island:
    """Asks emitters for programs, and tells them and the archive the outcome. Not thread-safe.

    Apart from the count of its proposals (`ordinal`), the state is a fold over the calls of `tell`,
    `known`, `immigrate` and `open_epoch`: the same calls in the same order give an equal island.
    Proposal number n draws from `default_rng([seed, index, n])`.
    """

    def __init__(
        self,
        index: int,
        seed: int,
        definition: Definition | str,
        emitters: Sequence[tuple[Emitter, float]],
        seeds: Sequence[Solution] = (),
    ) -> None:
        """`emitters` come with their weights; `seeds` not told as evaluated are proposed first.

        ValueError for a weight that is not positive, or a seed written for another definition.
        """
        if any(not weight > 0 for _, weight in emitters):
            raise ValueError("an emitter's weight must be positive")
        self.index = index
        self.seed = seed
        self.definition = definition if isinstance(definition, str) else definition.name
        if any(s.definition != self.definition for s in seeds):
            raise ValueError(f"a seed is not for definition {self.definition!r}")
        self.archive = Archive()
        self.epoch = 0
        self._parents = Archive()  # the last epoch's, until this one has elites
        self._emitters = [emitter for emitter, _ in emitters]
        self._weights = np.array([weight for _, weight in emitters], dtype=float)
        turn = index % len(seeds) if seeds else 0
        self._seeds = [*seeds[turn:], *seeds[:turn]]
        self._known: set[str] = set()
        self._ordinal = 0

    @property
    def ordinal(self) -> int:
        """Number of programs proposed so far, and the next proposal's number."""
        return self._ordinal

    def resume_at(self, ordinal: int) -> None:
        """Continues the random stream after `ordinal` proposals made before."""
        self._ordinal = ordinal

    def ask(self) -> Program | None:
        """A program never proposed or known here; None when no emitter has one at present.

        The seeds come first. None is final only when nothing of this island's is under way: a later
        `tell` or `immigrate` may give the emitters new parents.
        """
        program = self._next_seed() or self._emit()
        if program is not None:
            self._ordinal += 1
            self.known(program.id)
        return program

    def _next_seed(self) -> Program | None:
        while self._seeds:
            solution = self._seeds.pop(0)
            if program_id(solution) not in self._known:
                return Program.of(solution, island=self.index, ordinal=self._ordinal)
        return None

    def _emit(self) -> Program | None:
        parents = self.archive if len(self.archive) else self._parents
        if not len(parents):
            return None
        rng = np.random.default_rng([self.seed, self.index, self._ordinal])
        ways = [(e.name, e.follow_up) for e in self._emitters]
        ways += [(e.name, e.propose) for e in self._turns(rng)]
        for name, propose in ways:
            for _ in range(RETRIES):
                proposal = propose(parents, rng)
                if proposal is None:
                    break
                program = self._program(proposal, name)
                if program.id not in self._known:
                    return program
        return None

    def _turns(self, rng: np.random.Generator) -> list[Emitter]:
        """The emitters, in an order drawn by weight without replacement."""
        keys = rng.exponential(size=len(self._emitters)) / self._weights
        return [self._emitters[i] for i in np.argsort(keys)]

    def _program(self, proposal: Proposal, emitter: str) -> Program:
        return Program.of(
            proposal.solution,
            parents=proposal.parents,
            island=self.index,
            emitter=emitter,
            ordinal=self._ordinal,
            note=proposal.note,
        )

    def tell(self, program: Program, evaluation: Evaluation) -> AddStatus:
        """Takes an evaluation of a program, proposed here or not.

        An evaluation of an earlier epoch does not compare with the archive's, and is REJECTED
        there; the emitters learn from it all the same. A DUPLICATE was not measured, so there is
        nothing to learn from it: its twin told all.
        """
        self.known(program.id)
        status = AddStatus.REJECTED
        if evaluation.status is Status.DUPLICATE:
            return status
        if evaluation.passed and evaluation.epoch >= self.epoch:
            status = self.archive.add(program, evaluation, describe(program, evaluation))
        for emitter in self._emitters:
            emitter.learn(program, evaluation, status)
        return status

    def known(self, program_id: str) -> None:
        """A program is under way or was evaluated elsewhere: it is not proposed here."""
        if program_id not in self._known:
            self._known.add(program_id)
            for emitter in self._emitters:
                emitter.known(program_id)

    def contest(self, program: Program) -> Contest:
        """What decides, once few workloads are measured, whether `program` gets the full set."""
        return Contest.of(program.solution, self.archive)

    def emigrants(self, n: int) -> list[Evaluated]:
        """Copies of the `n` best elites, best first."""
        return [(e.program, e.evaluation) for e in ranked(self.archive)[:n]]

    def immigrate(self, elites: Sequence[Evaluated]) -> list[AddStatus]:
        """Takes another island's emigrants; one status each."""
        return [self.tell(program, evaluation) for program, evaluation in elites]

    def open_epoch(self, epoch: int) -> list[Program]:
        """Empties the archive for new workloads; returns its elites, to be measured again.

        Until the first of them is told, emitters go on with the old archive's parents.
        """
        elites = ranked(self.archive)
        if elites:
            self._parents, self.archive = self.archive, Archive()
        self.epoch = epoch
        return [e.program for e in elites]

    def niche_key(self, program: Program, evaluation: Evaluation) -> str:
        """The key of the niche that an evaluated program falls into."""
        return describe(program, evaluation).key

    def elites(self) -> list[tuple[str, Program, Evaluation]]:
        """Niche key, program and evaluation of every elite, best first."""
        return [(e.niche.key, e.program, e.evaluation) for e in ranked(self.archive)]
