"""What a run leaves to be repeated: its evaluated programs in order, its answers, its claim.

A program that came from an exchange is made again from the stored answer by the code that judged it
the first time; others are taken as they are stored. The recording is kept in the store of the run
that repeats it, which therefore needs nothing else: it can be moved and resumed like any run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from evaluators.schema import Definition, Evaluation, Record, Solution
from evolve.authors.keys import REPLAY, named
from evolve.errors import UserError
from evolve.exchanges import Exchange, Exchanges, Reply, Verdict
from evolve.llm.answering import Judged, judge
from evolve.rows import pack, together, unpack
from evolve.store import Row, Store
from islands.program import Program, program_id

META = REPLAY
"""The key of a replay's facts in its store."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS recording (position INTEGER PRIMARY KEY, program BLOB NOT NULL)
"""


class Difference(Record):
    """An answer that is now worth something else than when it was given."""

    exchange: str
    attempt: int
    then: str
    now: str
    reason: str = ""


class Exchanged(Record):
    """The exchanges of a run, judged again. `verdicts` counts the stored ones."""

    exchanges: int = 0
    unanswered: int = 0
    replies: int = 0
    alike: int = 0
    verdicts: dict[str, int] = Field(default_factory=dict)
    differences: tuple[Difference, ...] = ()


class Measured(Record):
    """A champion on one workload: speedup over the anchor with its 95% interval, and weight."""

    speedup: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    weight: float = Field(default=1.0, gt=0)

    @property
    def half_width(self) -> float:
        """Half of the interval's width, in logarithms."""
        return math.log(self.high / self.low) / 2


class Claim(Record):
    """What a run says of its champion.

    `unseen`: its score on the workloads of verification. `grid`: by workload of the report grid.
    """

    program: str
    emitter: str
    device: str
    unseen: float
    grid: dict[str, Measured]


class Recording(Record):
    """`seeds` in order, the anchor first; `programs` in the order of their first evaluation.

    `statuses` are those of that evaluation. `passed` counts by emitter the programs that passed
    then, and includes those whose answers give no program now. `left_out`: programs that were
    proposed and never evaluated, or that are not repeated by wish. `keys`: variables that held keys
    of the run's models; a replay needs none of them.
    """

    run: str
    seeds: tuple[Solution, ...]
    programs: tuple[Program, ...]
    statuses: tuple[str, ...]
    passed: dict[str, int]
    left_out: int
    exchanged: Exchanged
    claim: Claim | None
    keys: tuple[str, ...] = ()


def take(source: Store, exchanges_only: bool = False) -> Recording:
    """The recording of a run; `exchanges_only` leaves out what tuner and crossover proposed.

    UserError: the run holds nothing to repeat.
    """
    definition = Definition.model_validate(source.meta["definition_record"])
    programs = {program.id: program for program in source.programs()}
    rows = _first_rows(source.evaluations())
    made, exchanged = _judged_again(source, definition)
    chosen: list[Program] = []
    statuses: list[str] = []
    passed: Counter[str] = Counter()
    for row in rows:
        stored = programs[row.program_id]
        if stored.id not in made and exchanges_only:
            continue
        passed[stored.emitter] += row.evaluation.passed
        program = made.get(stored.id, stored)
        if program is not None:
            chosen.append(program)
            statuses.append(row.evaluation.status.value)
    seeds = sorted((p for p in programs.values() if p.emitter == "seed"), key=lambda p: p.ordinal)
    if not seeds or not chosen:
        raise UserError(f"{source.run_dir} has no evaluated program that could be repeated")
    return Recording(
        run=source.run_dir.resolve().name,
        seeds=tuple(p.solution for p in seeds),
        programs=_with_known_parents(chosen, {program_id(p.solution) for p in seeds}),
        statuses=tuple(statuses),
        passed=dict(passed),
        left_out=len(programs) - len(seeds) - len(chosen),
        exchanged=exchanged,
        claim=claim(source),
        keys=named(source.meta),
    )


def _first_rows(rows: Iterable[Row]) -> list[Row]:
    """The first evaluation of every searched program, in the order recorded."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.kind != "seed" and row.emitter != "seed":
            found.setdefault(row.program_id, row)
    return list(found.values())


def _with_known_parents(programs: list[Program], known: set[str]) -> tuple[Program, ...]:
    """Without parents that the new run will not have, because they are not repeated."""
    known = known | {program.id for program in programs}
    return tuple(
        p.model_copy(update={"parents": tuple(x for x in p.parents if x in known)})
        for p in programs
    )


# -- answers ----------------------------------------------------------------------------------


def _judged_again(
    source: Store, definition: Definition
) -> tuple[dict[str, Program | None], Exchanged]:
    """By id of the program that an answer gave then: what it gives now; and the count."""
    exchanges = Exchanges(source)
    made: dict[str, Program | None] = {}
    verdicts: Counter[str] = Counter()
    differences: list[Difference] = []
    asked = exchanges.all()
    unanswered = 0
    for exchange in asked:
        replies = exchanges.replies(exchange.id)
        unanswered += not replies
        for reply in replies:
            verdicts[reply.verdict.value] += 1
            now = judge(reply.answer, exchange, _Then(source, reply), definition)
            if found := _difference(exchange, reply, now, source):
                differences.append(found)
            if reply.verdict is Verdict.QUEUED and reply.program is not None:
                made[reply.program] = _remade(source.program(reply.program), now)
    replies_made = sum(verdicts.values())
    return made, Exchanged(
        exchanges=len(asked),
        unanswered=unanswered,
        replies=replies_made,
        alike=replies_made - len(differences),
        verdicts=dict(verdicts),
        differences=tuple(differences),
    )


class _Then(Store):
    """The store as it was when a reply was judged: without the program that this reply gave."""

    def __init__(self, source: Store, reply: Reply) -> None:
        super().__init__(source.connection, source.run_dir, readonly=True)
        self._own = reply.program if reply.verdict is Verdict.QUEUED else None

    def has(self, program_id: str) -> bool:
        return program_id != self._own and super().has(program_id)


def _difference(exchange: Exchange, reply: Reply, now: Judged, source: Store) -> Difference | None:
    """None when the answer is worth the same: same verdict, same program."""
    program = now.program.id if now.program else None
    if now.verdict is reply.verdict and program == reply.program:
        return None
    reason = now.reason.splitlines()[0] if now.reason else ""
    if now.verdict is reply.verdict:
        reason = f"program {program} instead of {reply.program}"
    return Difference(
        exchange=exchange.id,
        attempt=reply.attempt,
        then=reply.verdict.value,
        now=now.verdict.value,
        reason=reason,
    )


def _remade(stored: Program, now: Judged) -> Program | None:
    """The program that the answer gives now, in the place of the stored one; None: none."""
    if now.program is None or now.verdict is not Verdict.QUEUED:
        return None
    place = {"island": stored.island, "ordinal": stored.ordinal, "emitter": stored.emitter}
    return now.program.model_copy(update=place)


# -- the claim --------------------------------------------------------------------------------


def claim(store: Store) -> Claim | None:
    """What the closing report of a run says of its champion; None while it has none."""
    report: dict[str, Any] = store.report() or {}
    champion = report.get("champion")
    if not champion:
        return None
    entry = next(e for e in report["entries"] if e["role"] == "champion")
    return Claim(
        program=champion["program_id"],
        emitter=store.program(champion["program_id"]).emitter,
        device=str(store.meta["device"].get("name", "")),
        unseen=Evaluation.model_validate(champion["verification"]).score,
        grid={
            str(row["label"]): Measured(
                speedup=row["speedup"],
                low=row["speedup_low"],
                high=row["speedup_high"],
                weight=row.get("weight", 1.0),
            )
            for row in entry["results"]
        },
    )


# -- in the store of the repeating run ----------------------------------------------------------


def keep(store: Store, recording: Recording) -> None:
    """Put a recording into a new run's store; its facts, which make it a replay, last."""
    facts = recording.model_dump(mode="json", exclude={"programs"})
    rows = [(at, pack(program)) for at, program in enumerate(recording.programs)]
    store.connection.execute(_SCHEMA)
    with together(store.connection):
        store.connection.executemany("INSERT INTO recording VALUES (?, ?)", rows)
    store.set_meta({META: facts})


def kept(store: Store) -> Recording | None:
    """The recording that a run repeats; None for a run that proposes itself."""
    facts = store.meta.get(META)
    if facts is None:
        return None
    rows = store.connection.execute("SELECT program FROM recording ORDER BY position")
    programs = [unpack(blob, Program) for (blob,) in rows]
    return Recording.model_validate({**facts, "programs": programs})
