"""Which prompt comes next: mode, island, parents. Decided by the run's seed and a count alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluators import tunables
from evaluators.schema import Language
from evolve.exchanges import Mode
from evolve.llm.history import History
from evolve.store import Row
from islands.archive import Archive, Elite
from islands.program import Program
from islands.selection import ranked

ROUND = (
    Mode.DIFF, Mode.REWRITE, Mode.CROSSOVER, Mode.TRANSLATE, Mode.DIFF, Mode.REPAIR, Mode.SIMPLIFY,
    Mode.DIFF,
)  # fmt: skip
"""Modes of so many exchanges; every round goes through them in an order of its own."""
STREAM = 0x61736B
"""Sets these random streams apart from the islands' own."""
REPAIRS = 2
"""Failed ancestors in a row after which a program is given up."""
LEADING = 4
"""Elites that may be parents, with the best of every language and strategy.

An answer costs more than a tuner's proposal: it is not spent on what is far behind its like.
"""
PARTNERS = 3
"""Best partners of a crossover, of which one is drawn."""


@dataclass(frozen=True)
class Task:
    """What one prompt asks for. `language` is that of the answer.

    `parent` is the program to change (in a repair the one that failed, with its evaluation in
    `failure`), `partner` the other elite of a crossover.
    """

    mode: Mode
    number: int
    island: int
    parent: Program
    language: Language
    partner: Program | None = None
    failure: Row | None = None

    @property
    def parent_language(self) -> Language:
        return self.parent.solution.spec.language

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.parent.id, *([self.partner.id] if self.partner else []))


def mode_of(seed: int, number: int) -> Mode:
    """The mode that exchange `number` of a run is meant to have."""
    rounds, at = divmod(number, len(ROUND))
    order = np.random.default_rng([seed, STREAM, rounds]).permutation(len(ROUND))
    return ROUND[int(order[at])]


def choose(history: History, number: int, wanted: Mode | None = None, draw: int = 0) -> Task:
    """The task of exchange `number`; a mode that has nothing to work on gives way to a diff.

    `draw`: another one gives another parent. ValueError when no program of the run has passed.
    """
    seed, count = history.config.seed, history.config.islands.count
    mode, island = wanted or mode_of(seed, number), number % count
    rng = np.random.default_rng([seed, STREAM, number, count, *([draw] if draw else [])])
    archive = history.archive(island)
    elite = _parent(archive, rng)
    task: Task | None = None
    if mode is Mode.REPAIR:
        task = _repair(history, number, island)
    elif mode is Mode.CROSSOVER:
        task = _crossover(history, number, island, elite, rng)
    elif mode is Mode.TRANSLATE:
        task = _translate(history, number, island, archive, elite)
    elif mode is not Mode.DIFF:
        task = _plain(mode, number, island, elite)
    return task or _plain(Mode.DIFF, number, island, elite)


def _parent(archive: Archive, rng: np.random.Generator) -> Elite:
    """A leading elite, the n-th with weight 1 / n."""
    order = ranked(archive)
    kinds: dict[tuple[str, str], Elite] = {}
    for elite in order:
        kinds.setdefault((elite.niche.language, elite.niche.strategy), elite)
    chosen = [e for i, e in enumerate(order) if i < LEADING or e in kinds.values()]
    weights = np.array([1 / (place + 1) for place in range(len(chosen))])
    return chosen[int(rng.choice(len(chosen), p=weights / weights.sum()))]


def _plain(mode: Mode, number: int, island: int, elite: Elite) -> Task:
    language = elite.program.solution.spec.language
    return Task(mode, number, island, elite.program, language)


def _repair(history: History, number: int, island: int) -> Task | None:
    """The latest failure of new code that has not been repaired and is not hopeless.

    Code that passes with other numbers is left alone: the tuner finds those by itself.
    """
    taken = {e.parents[0] for e in history.exchanges.by_mode(Mode.REPAIR)}
    working = history.passed_templates()

    def worth(program: Program) -> bool:
        return (
            program.id not in taken
            and tunables.template(program.solution.entry_source) not in working
            and history.failed_ancestors(program) < REPAIRS
            and program.solution.spec.language in history.languages()
        )

    for program, row in history.failures(worth):
        language = program.solution.spec.language
        return Task(Mode.REPAIR, number, program.island, program, language, failure=row)
    return None


def _crossover(
    history: History, number: int, island: int, elite: Elite, rng: np.random.Generator
) -> Task | None:
    """With an elite of another niche whose code differs, rather of the same language."""
    mine = elite.program
    code = tunables.template(mine.solution.entry_source)
    language = mine.solution.spec.language
    others = [
        e.program
        for e in history.elites()
        if e.niche != elite.niche and tunables.template(e.program.solution.entry_source) != code
    ]
    others.sort(key=lambda p: p.solution.spec.language is not language)
    if not others:
        return None
    partner = others[int(rng.integers(min(PARTNERS, len(others))))]
    return Task(Mode.CROSSOVER, number, island, mine, language, partner=partner)


def _translate(
    history: History, number: int, island: int, archive: Archive, elite: Elite
) -> Task | None:
    """The parent in the language that has fewest elites."""
    mine = elite.program.solution.spec.language
    held = [e.niche.language for e in ranked(archive)]
    targets = [x for x in history.languages() if x is not mine]
    if not targets:
        return None
    target = min(targets, key=lambda x: held.count(x.value))
    return Task(Mode.TRANSLATE, number, island, elite.program, target)
