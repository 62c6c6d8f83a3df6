"""What a run has learned so far, in the form that prompts ask for it. A fold over the store.

Nothing here needs Ray or torch. Scores of different epochs do not compare, so gains are told only
between evaluations of one epoch.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from evaluators import tunables
from evaluators.schema import Definition, Evaluation, Language, Status, Workload
from evolve.config import current, parse
from evolve.exchanges import ATTEMPTS, Exchange, Exchanges, Mode, Reply, Verdict
from evolve.store import Row, Store
from islands.archive import Archive, Elite, exceeds_noise
from islands.descriptor import describe
from islands.niche import Niche
from islands.program import Program
from islands.selection import ranked

LINEAGE = 12
"""Most steps of a lineage that are looked up."""


@dataclass(frozen=True)
class Step:
    """One program of a lineage. `gain`, in words, is over its parent; empty where unknown."""

    program: Program
    gain: str


@dataclass(frozen=True)
class Attempt:
    """An earlier exchange, its last reply, and its program's last evaluation if there is one."""

    exchange: Exchange
    reply: Reply
    row: Row | None


class History:
    """A store as it is now; later changes to the store do not show.

    `earlier`: a history of the same store, of which all that cannot change is taken over: making
    the next one then costs what is new.
    """

    def __init__(self, store: Store, earlier: History | None = None) -> None:
        self.meta: dict[str, Any] = store.meta
        self.config = parse(current(self.meta["config"]))
        self.definition = Definition.model_validate(self.meta["definition_record"])
        self.programs: dict[str, Program] = dict(earlier.programs) if earlier else {}
        self.programs |= {p.id: p for p in store.programs(skip=len(self.programs))}
        known = list(takewhile(lambda r: r.status_in_archive, earlier.rows)) if earlier else []
        self.rows: list[Row] = [*known, *store.evaluations(known[-1].seq if known else 0)]
        self._niches: dict[int, Niche] = earlier._niches if earlier else {}
        self._asked: list[Exchange] = earlier._asked if earlier else []
        self._told: dict[str, list[Reply]] = earlier._told if earlier else {}
        self.epoch = max((r.epoch for r in self.rows if r.evaluation.passed), default=0)
        found = store.epochs().get(self.epoch, [])
        self.workloads: dict[str, Workload] = {w.uuid: w for w in found}
        self.exchanges = Exchanges(store)
        self._by_program: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            self._by_program[row.program_id].append(row)
        self._archives = self._fold()

    def _fold(self) -> list[Archive]:
        """The elites of the present epoch by island; seeds are everybody's."""
        archives = [Archive() for _ in range(self.config.islands.count)]
        for row in self.rows:
            if row.epoch != self.epoch or not row.evaluation.passed:
                continue
            program = self.programs[row.program_id]
            everybody = program.emitter == "seed"
            for at in range(len(archives)) if everybody else [program.island % len(archives)]:
                archives[at].add(program, row.evaluation, self._niche(program, row))
        return archives

    def _niche(self, program: Program, row: Row) -> Niche:
        if row.seq not in self._niches:
            self._niches[row.seq] = describe(program, row.evaluation)
        return self._niches[row.seq]

    # -- elites -------------------------------------------------------------------------------

    def archive(self, island: int) -> Archive:
        """The island's elites; those of all islands while it has none in this epoch."""
        own = self._archives[island]
        return own if len(own) else self.united()

    def united(self) -> Archive:
        """The elites of all islands as one archive."""
        archive = Archive()
        for other in self._archives:
            for niche, elite in other.items():
                archive.add(elite.program, elite.evaluation, niche)
        return archive

    def elites(self) -> list[Elite]:
        """The best program of every niche over all islands, best first."""
        return ranked(self.united())

    # -- single programs ----------------------------------------------------------------------

    def last(self, program_id: str) -> Row | None:
        """The program's evaluation in the present epoch, else its latest; None: not evaluated."""
        rows = self._by_program.get(program_id, [])
        here = [r for r in rows if r.epoch == self.epoch] or rows
        return here[-1] if here else None

    def gain(self, program_id: str, over: str) -> float | None:
        """Ratio of the scores in the latest epoch that measured both; None where there is none."""
        pair = self._together(program_id, over)
        return pair[0].score / pair[1].score if pair else None

    def gained(self, program_id: str, over: str) -> bool:
        """Whether that ratio exceeds the noise of both, either way."""
        pair = self._together(program_id, over)
        return pair is not None and (beyond_noise(*pair) or beyond_noise(*pair[::-1]))

    def telling_gain(self, program_id: str, over: str) -> str:
        """`gain` in words; empty where there is none."""
        gain = self.gain(program_id, over)
        if gain is None:
            return ""
        doubt = "" if self.gained(program_id, over) else " (within the noise)"
        return f"{gain:.3f}x its parent{doubt}"

    def _together(self, mine: str, other: str) -> tuple[Evaluation, Evaluation] | None:
        """Whole evaluations of both in the latest epoch that has both."""
        ours = {r.epoch: r for r in self._by_program.get(mine, []) if _whole(r)}
        for row in reversed(self._by_program.get(other, [])):
            if _whole(row) and row.epoch in ours:
                return ours[row.epoch].evaluation, row.evaluation
        return None

    def base(self, program: Program) -> Program | None:
        """The nearest ancestor (along first parents) that passed; None where there is none."""
        for ancestor in self._ancestors(program):
            row = self.last(ancestor.id)
            if row is not None and row.evaluation.passed:
                return ancestor
        return None

    def lineage(self, program: Program) -> list[Step]:
        """The program and its ancestors along first parents, itself first."""
        chain = [program, *self._ancestors(program)]
        return [Step(p, self.telling_gain(p.id, p.parents[0]) if p.parents else "") for p in chain]

    def failed_ancestors(self, program: Program) -> int:
        """How many ancestors in a row, from the nearest on, were evaluated and did not pass."""
        count = 0
        for ancestor in self._ancestors(program):
            row = self.last(ancestor.id)
            if row is None or row.evaluation.passed:
                break
            count += 1
        return count

    def _ancestors(self, program: Program) -> list[Program]:
        chain: list[Program] = []
        while program.parents and len(chain) < LINEAGE:
            parent = self.programs.get(program.parents[0])
            if parent is None:
                break
            chain.append(parent)
            program = parent
        return chain

    def passed_templates(self) -> set[str]:
        """Codes (sources without their tunables' values) of which some setting passed."""
        passed = {row.program_id for row in self.rows if row.evaluation.passed}
        return {tunables.template(self.programs[p].solution.entry_source) for p in passed}

    def settings_tried(self, program: Program) -> tuple[int, int]:
        """(programs that differ from this one in tunables only and were evaluated, failed ones)."""
        wanted = tunables.template(program.solution.entry_source)
        rows = [
            self.last(other.id)
            for other in self.programs.values()
            if other.solution.spec.language is program.solution.spec.language
            and tunables.template(other.solution.entry_source) == wanted
        ]
        evaluated = [row for row in rows if row is not None]
        return len(evaluated), sum(not row.evaluation.passed for row in evaluated)

    # -- failures and earlier answers ---------------------------------------------------------

    def failures(self, keep: Callable[[Program], bool]) -> list[tuple[Program, Row]]:
        """Programs that failed and for which `keep` holds, the latest first."""
        pairs = ((self.programs[row.program_id], row) for row in reversed(self.rows))
        fine = (Status.PASSED, Status.DUPLICATE)
        return [(p, row) for p, row in pairs if row.evaluation.status not in fine and keep(p)]

    def asked(self) -> list[Exchange]:
        """All exchanges of the store as it is at this moment, in the order asked."""
        latest = self._asked[-1].number if self._asked else -1
        self._asked = [*self._asked, *self.exchanges.all(after=latest)]
        return self._asked

    def asked_alike(self, parent: Program, language: Language) -> list[Exchange]:
        """Exchanges in which this code, whatever its numbers, was to be bettered in `language`."""
        code = tunables.template(parent.solution.entry_source)
        return [
            e
            for e in self.asked()
            if e.language is language
            and e.mode is not Mode.REPAIR
            and tunables.template(self.programs[e.parents[0]].solution.entry_source) == code
        ]

    def replies(self, exchange: str) -> list[Reply]:
        """Answers to one exchange; closed exchanges are read once."""
        if exchange not in self._told:
            replies = self.exchanges.replies(exchange)
            closed = len(replies) >= ATTEMPTS or any(r.verdict is Verdict.QUEUED for r in replies)
            if not closed:
                return replies
            self._told[exchange] = replies
        return self._told[exchange]

    def attempts(self) -> list[Attempt]:
        """Answered exchanges, the latest first; unusable answers included."""
        found = []
        for exchange in reversed(self.asked()):
            if replies := self.replies(exchange.id):
                reply = replies[-1]
                queued = reply.verdict is Verdict.QUEUED and reply.program is not None
                row = self.last(reply.program or "") if queued else None
                found.append(Attempt(exchange, reply, row))
        return found

    def languages(self) -> tuple[Language, ...]:
        """Languages that the run's device and configuration allow."""
        return languages(self.meta["device"], self.config.languages)


def languages(device: Mapping[str, Any], chosen: Collection[str]) -> tuple[Language, ...]:
    """Those that run on a device (as a run's meta tells it) and were chosen; none chosen: all."""
    if device.get("type") == "cpu":
        able: tuple[Language, ...] = (Language.CPP, Language.TILELANG)
    else:
        able = (Language.TRITON, Language.TILELANG, Language.CUDA)
    return tuple(language for language in able if not chosen or language in chosen)


def beyond_noise(mine: Evaluation, base: Evaluation) -> bool:
    """Whether one score is better than another by more than the noise of both."""
    half = [math.log(e.score_high / e.score) for e in (base, mine)]
    return exceeds_noise(base.score, half[0], mine.score, half[1])


def _whole(row: Row) -> bool:
    """Whether the row's score compares: one stopped at the screen is of few workloads."""
    return row.evaluation.passed and row.evaluation.rung == "full"


_ERROR = re.compile(r"error|exception|assert|not allowed|refused|exceed", re.IGNORECASE)


def telling(log: str, limit: int = 240) -> str:
    """The line of a log that says most: the first that names an error, else the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if not lines:
        return "no log"
    named = [line for line in lines if _ERROR.search(line)]
    # Python's traceback names the error last, compilers name the first one first.
    traceback = any(line.startswith("Traceback") for line in lines)
    chosen = (named or lines)[-1] if traceback or not named else named[0]
    return chosen if len(chosen) <= limit else chosen[: limit - 4] + " ..."


def tail(log: str, limit: int) -> str:
    """The end of a log at a line's start, at most `limit` characters."""
    log = log.strip()
    if len(log) <= limit:
        return log
    kept = log[-limit:]
    return "... " + kept[kept.find("\n") + 1 :]
