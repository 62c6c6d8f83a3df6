"""Plan, write, summarise: when a run asks about its own search, and what it keeps of the answers.

A plan is due for every island before its first exchange and when a batch is full; a summary when
all of a batch has come to something. Whoever drives the run sends the question and brings the
answer back: nothing here calls a model, waits, or lets an exchange wait. An answer that is none is
kept as such, and the island goes on without a plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evolve.exchanges import Exchange
from evolve.llm import insights, planning
from evolve.llm.background import Background
from evolve.llm.batches import Batch, batches, result
from evolve.llm.fit import Section
from evolve.llm.history import History
from evolve.llm.planning import Known
from evolve.notebook import (
    Consultation,
    Evidence,
    Insight,
    Kind,
    Notebook,
    Plan,
    Reading,
    Response,
)
from evolve.rows import together
from evolve.store import Store

BATCH = 6
"""Exchanges that follow a plan."""
TOKENS = 6000
"""Budget of a consultation's prompt."""
TRIES = 2
"""Times that a batch's summary is asked for, where no answer comes."""


class Counsel:
    """Plans and insights of one run. Same owner and thread as its store's.

    `batch`: exchanges of an island that follow one plan. UserError from the methods that make
    prompts: `tokens` is too small for them.
    """

    def __init__(
        self,
        store: Store,
        background: Background,
        *,
        emitter: str,
        batch: int = BATCH,
        tokens: int = TOKENS,
    ) -> None:
        self.notebook = Notebook(store)
        self._db = store.connection
        self._background = background
        self._emitter = emitter
        self._batch = batch
        self._tokens = tokens

    # -- asking -------------------------------------------------------------------------------

    def due(self, history: History, closing: bool = False) -> list[Consultation]:
        """Questions whose time has come, each kept in the store; one of a kind an island at once.

        Plans' results are brought up to date on the way. `closing`: the search is over, so no
        more plans, but summaries of whatever came of the last batches.
        """
        known = self._known(history)
        before = self.notebook.consultations()
        asked: list[Consultation] = []
        for island in range(history.config.islands.count):
            found = known.batches[island]
            for at, batch in enumerate(found):
                later = sum(b.size for b in found[at + 1 :])
                if self._to_sum_up(batch, later, closing) and not _summed_up(batch, before):
                    plan = next((p for p, _ in known.plans if p.number == batch.number), None)
                    text = insights.page(history, batch, plan, known.insights, self._tokens)
                    asked.append(self._ask(Kind.SUMMARY, island, text, batch.number))
            if not closing and self._to_plan(found[-1]) and not _is_planned(island, before):
                page = planning.page(history, self._background, known, island, self._tokens)
                if page is not None:
                    asked.append(self._ask(Kind.PLAN, island, page))
        return asked

    def abandoned(self) -> list[Consultation]:
        """Questions without a response: in flight, or left so by an interruption."""
        return [asked for asked, response in self.notebook.consultations() if response is None]

    def _known(self, history: History) -> Known:
        plans = self.notebook.plans()
        found = batches(history, self.notebook.consultations())
        results = {batch.number: result(batch) for of in found.values() for batch in of}
        for plan, before in plans:
            if before != results[plan.number]:
                self.notebook.set_result(plan.number, results[plan.number])
        return Known(
            plans=[(plan, results[plan.number]) for plan, _ in plans],
            batches=found,
            insights=self.notebook.insights(),
            recalled=self.notebook.recalled(),
        )

    def _to_plan(self, latest: Batch) -> bool:
        """Whether an island's next batch begins.

        Half of the present one must have come to something, lest the plan knows nothing of it; one
        whose answers never come is given up at twice its size.
        """
        if latest.number < 0 and not latest.size:
            return True
        full = latest.size >= self._batch and 2 * latest.settled >= latest.size
        return full or latest.size >= 2 * self._batch

    def _to_sum_up(self, batch: Batch, later: int, closing: bool) -> bool:
        """Whether a batch has come to all that it will. `later`: the island's exchanges since."""
        if not batch.evaluated:
            return False
        over = batch.size >= self._batch or later > 0
        done = batch.settled == batch.size or later >= self._batch
        return closing or (over and done)

    def _ask(self, kind: Kind, island: int, text: str, batch: int = -1) -> Consultation:
        number = self.notebook.next_number()
        asked = Consultation(
            id=f"{kind.value}-{number:04d}",
            number=number,
            kind=kind,
            emitter=self._emitter,
            island=island,
            prompt=text,
            batch=batch,
        )
        self.notebook.ask(asked)
        return asked

    # -- hearing ------------------------------------------------------------------------------

    def hear(
        self,
        asked: Consultation,
        answer: str,
        *,
        history: History,
        model: str = "",
    ) -> Response:
        """Reads an answer and keeps it with the plan or the insights that it gave."""
        start = history.exchanges.next_number()
        response = Response(
            consultation=asked.number,
            reading=Reading.READ,
            start=start,
            answer=answer,
            model=model,
        )
        with together(self._db):
            if asked.kind is Kind.PLAN:
                response = self._plan(asked, response, history)
            else:
                response = self._summary(asked, response, history)
            self.notebook.respond(response)
        return response

    def refused(
        self,
        asked: Consultation,
        reason: str,
        *,
        history: History,
        model: str = "",
    ) -> Response:
        """Keeps that no answer came, and why."""
        response = Response(
            consultation=asked.number,
            reading=Reading.REFUSED,
            start=history.exchanges.next_number(),
            reason=reason,
            model=model,
        )
        self.notebook.respond(response)
        return response

    def _plan(self, asked: Consultation, response: Response, history: History) -> Response:
        found = planning.read(response.answer)
        if isinstance(found, str):
            return response.model_copy(update={"reading": Reading.MALFORMED, "reason": found})
        known = self._known(history)
        if old := planning.repeats(found, known):
            reason = f"its direction is exhausted (plan {old.number}): {old.direction}"
            return response.model_copy(update={"reading": Reading.REPEATED, "reason": reason})
        self.notebook.add_plan(
            Plan(
                number=asked.number,
                island=asked.island,
                start=response.start,
                bottleneck=found.bottleneck,
                direction=found.direction,
                avoid=found.avoid,
            )
        )
        return response

    def _summary(self, asked: Consultation, response: Response, history: History) -> Response:
        known = self._known(history)
        batch = next(b for b in known.batches[asked.island] if b.number == asked.batch)
        found = insights.read(response.answer, batch, response.model or asked.emitter)
        if isinstance(found, str):
            return response.model_copy(update={"reading": Reading.MALFORMED, "reason": found})
        for insight in found:
            self._keep(insight)
        return response

    def told(self, exchange: Exchange, answer: str, program: str | None) -> list[Insight]:
        """Keeps `INSIGHT:` lines of an ordinary answer, with the program that it gave as evidence.

        What that program gained is looked up when the insight is shown.
        """
        evidence = (Evidence(program=program),) if program else ()
        made = [
            Insight(
                text=text,
                island=exchange.island,
                author=exchange.emitter,
                evidence=evidence,
                exchange=exchange.number,
            )
            for text in insights.told(answer)
        ]
        for insight in made:
            self._keep(insight)
        return made

    def _keep(self, insight: Insight) -> None:
        joined = insights.merged(insight, self.notebook.insights())
        if joined is None:
            self.notebook.add_insight(insight)
        else:
            self.notebook.replace_insight(*joined)

    # -- telling ------------------------------------------------------------------------------

    def plan(self, island: int) -> Plan | None:
        """The plan that the island's next exchange follows; None without one, or once exhausted."""
        begun = [
            asked.number
            for asked, response in self.notebook.consultations()
            if asked.kind is Kind.PLAN and asked.island == island and response is not None
        ]
        latest = max(begun, default=None)
        found = next((p for p in self.notebook.plans() if p[0].number == latest), None)
        return None if found is None or planning.is_exhausted(found[1]) else found[0]

    def sections(self, history: History, island: int, priority: Mapping[str, int]) -> list[Section]:
        """The parts of an exchange's prompt; `priority` by `plan`, `insights` and `recalled`."""
        return [
            planning.section(self.plan(island), priority["plan"]),
            insights.section(history, self.notebook.insights(), priority["insights"]),
            insights.recalled_section(self.notebook.recalled(), priority["recalled"]),
        ]


Asked = Sequence[tuple[Consultation, Response | None]]


def _summed_up(batch: Batch, asked: Asked) -> bool:
    """Whether a batch's summary was given, is on its way, or has been refused too often."""
    about = Kind.SUMMARY, batch.island, batch.number
    mine = [response for c, response in asked if (c.kind, c.island, c.batch) == about]
    refused = [r for r in mine if r is not None and r.reading is Reading.REFUSED]
    return len(mine) > len(refused) or len(refused) >= TRIES


def _is_planned(island: int, asked: Asked) -> bool:
    """Whether a plan for the island is on its way."""
    return any(c.kind is Kind.PLAN and c.island == island and r is None for c, r in asked)
