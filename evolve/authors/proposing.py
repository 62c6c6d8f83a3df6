"""Asking authors while the search goes on: prompts out, answers in, programs into the store.

The engine's loop owns this object and the store; authors work elsewhere. A prompt and its call are
stored before they are sent, an answer with its verdict and its program in one transaction after it
came. Nothing here waits, but for `wait`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from evaluators.schema import Definition, Status
from evolve.authors.author import Author
from evolve.authors.calls import Call, Calls, may_be_sent_again, written_in_vain
from evolve.authors.commissions import Commissions
from evolve.authors.desk import Desk, Sent, Sheet
from evolve.authors.shares import Shares
from evolve.config import RunConfig
from evolve.exchanges import ATTEMPTS, Exchange, Exchanges, Reply, Verdict
from evolve.llm import answering
from evolve.llm.background import Background
from evolve.llm.counsel import Counsel
from evolve.llm.exchange import Answer, Prompt, Reason, Refused
from evolve.llm.fit import TooFewTokens
from evolve.notebook import Consultation
from evolve.rows import together
from evolve.store import Store
from islands.program import Program

CONSULT_S = 1.0
"""Least seconds between two looks at whether plans or summaries are due."""
COUNSELLOR = "llm"
"""The author that plans and sums up."""


class Proposing:
    """The authors of one run. Not thread-safe: one owner, that of the store.

    `say` gets a line for people when an author rests or ends.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        definition: Definition,
        background: Background,
        authors: Sequence[Author],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._store, self._definition, self._say = store, definition, say
        self._exchanges, self._calls = Exchanges(store), Calls(store)
        self._desks = {author.name: Desk(author, say) for author in authors}
        self._counsel, self._planning = _counsel(store, config, background), False
        if config.llm is not None and COUNSELLOR in self._desks:
            self._planning = config.llm.batch > 0
        self._commissions = Commissions(store, config, background, self._counsel)
        self._changed, self._consulted = True, -CONSULT_S
        self._queued: dict[str, Desk] = {}  # program -> whose it is, until it is evaluated
        self._wake = threading.Event()
        self._calls.close_lost()
        self._take_up()

    # -- what the engine asks -----------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._desks)

    @property
    def concurrency(self) -> int:
        """Calls that all authors together have under way at most."""
        return sum(desk.author.concurrency for desk in self._desks.values())

    @property
    def in_flight(self) -> int:
        """Exchanges that will soon give a program, if any."""
        return sum(desk.exchanges() for desk in self._desks.values())

    @property
    def sending(self) -> bool:
        """Whether any call is under way."""
        return any(desk.sent for desk in self._desks.values())

    def able(self) -> list[str]:
        """Authors that can be asked now: neither ended nor resting."""
        return [name for name, desk in self._desks.items() if desk.models()]

    def ended(self) -> str:
        """Why no author will propose any more: cost, tokens or exhausted; empty while one may."""
        reasons = [desk.ended for desk in self._desks.values()]
        if self.sending or not all(reasons):
            return ""
        return next((r for r in ("cost", "tokens") if r in reasons), "exhausted")

    def step(self, shares: Shares, room: int) -> None:
        """Send what may be sent: questions, prompts once more, at most `room` new ones."""
        self._consult()
        for desk in self._desks.values():
            desk.tell_of_rest()
            while desk.again and desk.free() and self._send(desk, desk.again[0]):
                desk.again.popleft()
            while room > 0 and desk.free() and shares.may(desk.name):
                if not self._commission(desk):
                    break
                shares.started(desk.name)
                room -= 1

    def collect(self) -> list[Program]:
        """Take what has come back; returns programs that are new in the store, to be evaluated."""
        self._wake.clear()
        found: list[Program | None] = []
        for desk in self._desks.values():
            done = desk.take_done()
            found += [self._take(desk, sent) for sent in done]
            self._changed = self._changed or bool(done)
        return [program for program in found if program is not None]

    def heard(self, program: str, status: Status) -> None:
        """Says that an evaluation was recorded: plans and summaries may be due.

        Only now is it known whether an author's program was new code or its compiler's equal.
        """
        self._changed = True
        desk = self._queued.pop(program, None)
        if desk is not None and status is Status.DUPLICATE:
            desk.fruitless("it was built to the same code as an earlier program")
        elif desk is not None:
            desk.fruitful()

    def wait(self, seconds: float) -> None:
        """Wait until a call comes back, at most so long."""
        self._wake.wait(seconds)

    def conclude(self, seconds: float, interrupted: Callable[[], bool]) -> None:
        """Have what the last batches came to summed up, for later runs; at most so long."""
        desk = self._desks.get(COUNSELLOR)
        if not self._planning or desk is None or not desk.models():
            return
        desk.again.clear()
        self._add(desk, self._due(closing=True))
        deadline = time.monotonic() + seconds
        while desk.questions() and desk.models() and not interrupted():
            while desk.again and desk.free() and self._send(desk, desk.again[0]):
                desk.again.popleft()
            if time.monotonic() > deadline:
                return
            self.wait(0.1)
            self.collect()

    def close(self) -> list[Program]:
        """End all calls now; what they cost is kept, and programs of answers just arrived."""
        for desk in self._desks.values():
            desk.author.close()
        return self.collect()

    def unanswered(self) -> int:
        """Prompts that wait to be sent again."""
        return sum(len(desk.again) for desk in self._desks.values())

    def note(self) -> str:
        """One line about all authors, for people."""
        return "; ".join(desk.note() for desk in self._desks.values())

    # -- sending ------------------------------------------------------------------------------

    def _commission(self, desk: Desk) -> bool:
        """Send the next prompt; False when nothing was sent."""
        tokens = desk.author.prompt_tokens
        try:
            exchange = self._commissions.next(desk.name, tokens)
        except TooFewTokens:
            desk.end("exhausted", f"no prompt about any program fits prompt_tokens = {tokens}")
            return False
        return self._send(desk, Sheet(exchange, exchange.prompt), new=True)

    def _consult(self) -> None:
        """Queue the plans and summaries that are due, before other prompts of their author."""
        desk, now = self._desks.get(COUNSELLOR), time.monotonic()
        if desk is None or desk.ended or not self._changed:
            return
        if now - self._consulted >= CONSULT_S:
            self._changed, self._consulted = False, now
            self._add(desk, self._due(closing=False))

    def _due(self, closing: bool) -> list[Consultation]:
        """Questions whose time has come; none any more once one does not fit its prompt."""
        if self._planning:
            try:
                return self._counsel.due(self._commissions.history(), closing)
            except TooFewTokens:
                self._planning = False
                self._say("no plans and summaries: prompt_tokens is too small for them")
        return []

    def _add(self, desk: Desk, asked: Sequence[Consultation]) -> None:
        desk.again.extendleft(Sheet(question, question.prompt) for question in reversed(asked))

    def _send(self, desk: Desk, sheet: Sheet, new: bool = False) -> bool:
        """Send a prompt to a model that can be asked; False when no model's limits admit it."""
        prompt = Prompt(user=sheet.text)
        models = desk.affordable(prompt)
        if not models:
            return False
        model = models[0]
        if len(models) > 1 and desk.name == COUNSELLOR:
            model = self._commissions.model(sheet.about.number, sheet.attempt, models)
        call = Call(
            about=sheet.about.id,
            purpose=sheet.purpose,
            emitter=desk.name,
            model=model,
            attempt=sheet.attempt,
            worst=desk.author.worst(prompt, model),
        )
        with together(self._store.connection):
            if new and isinstance(sheet.about, Exchange):
                self._exchanges.add(sheet.about)
            number = self._calls.open(call)
        future = desk.author.send(prompt, model)
        desk.sent.append(Sent(sheet, number, call, future))
        future.add_done_callback(lambda _: self._wake.set())
        return True

    # -- taking answers -----------------------------------------------------------------------

    def _take(self, desk: Desk, sent: Sent) -> Program | None:
        outcome, about = sent.outcome(), sent.sheet.about
        if isinstance(outcome, Refused) and outcome.reason is Reason.BUDGET:
            limit = desk.author.limit(Prompt(user=sent.sheet.text), sent.call.model)
            desk.too_dear(sent.call.model, limit or "cost")
        told = ""
        if isinstance(outcome, Refused):
            told = desk.refused(outcome)
        else:
            desk.answered(sent.call.model)
        if isinstance(about, Consultation):
            self._hear(sent, about, outcome)
            return None
        if isinstance(outcome, Answer):
            return self._judge(desk, sent, about, outcome)
        self._calls.close(sent.number, sent.call, outcome)
        made = [c for c in self._calls.of(about.id) if c.attempt == sent.sheet.attempt]
        if may_be_sent_again(made):
            desk.again.append(sent.sheet)
        elif written_in_vain(made) or not desk.author.served:
            desk.fruitless(told)
        return None

    def _judge(self, desk: Desk, sent: Sent, exchange: Exchange, answer: Answer) -> Program | None:
        """Keep an answer and what it is worth; an unusable one is returned once, with why."""
        judged = answering.judge(answer.text, exchange, self._store, self._definition)
        program = judged.program if judged.verdict is Verdict.QUEUED else None
        reason = judged.reason
        if answer.cut and judged.verdict is Verdict.UNREADABLE:
            reason += "\nThe answer was cut off at its longest: answer more briefly."
        reply = Reply(
            exchange=exchange.id,
            attempt=sent.sheet.attempt,
            answer=answer.text,
            verdict=judged.verdict,
            reason=reason,
            note=judged.note,
            program=judged.program.id if judged.program else None,
            model=sent.call.model,
            staleness=max(0, self._store.evaluated_of(exchange.island) - exchange.told),
        )
        with together(self._store.connection):
            self._calls.close(sent.number, sent.call, answer)
            self._exchanges.reply(reply)
            if program is not None:
                self._store.propose(program)
        self._counsel.told(exchange, answer.text, reply.program)
        if program is not None:
            self._queued[program.id] = desk
        elif reply.attempt < ATTEMPTS:
            tokens = desk.author.prompt_tokens
            text = answering.again(exchange.prompt, answer.text, reason, tokens)
            desk.again.append(Sheet(exchange, text, reply.attempt + 1))
        else:
            desk.fruitless(f"{judged.verdict.value}, {reason.splitlines()[0]}")
        return program

    def _hear(self, sent: Sent, asked: Consultation, outcome: Answer | Refused) -> None:
        """A plan or a summary; where none came the island goes on without."""
        self._calls.close(sent.number, sent.call, outcome)
        history, model = self._commissions.history(), sent.call.model
        if isinstance(outcome, Answer):
            self._counsel.hear(asked, outcome.text, history=history, model=model)
        elif outcome.reason is not Reason.CLOSED:  # an interrupted one is sent again on resume
            self._counsel.refused(asked, outcome.reason.value, history=history, model=model)

    # -- continuing ---------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Queue what a stopped run has asked and was not answered."""
        answered = self._exchanges.answered()
        for exchange in self._exchanges.all():
            desk = self._desks.get(exchange.emitter)
            if desk is not None and answered.get(exchange.id, 0) < ATTEMPTS:
                desk.again.extend(self._open_sheets(exchange, desk.author.prompt_tokens))
        if self._planning:
            self._add(self._desks[COUNSELLOR], self._counsel.abandoned())

    def _open_sheets(self, exchange: Exchange, tokens: int) -> list[Sheet]:
        """What is still to be sent of an exchange; nothing when it is closed."""
        replies = self._exchanges.replies(exchange.id)
        attempt = len(replies) + 1
        made = [call for call in self._calls.of(exchange.id) if call.attempt == attempt]
        if any(r.verdict is Verdict.QUEUED for r in replies) or not may_be_sent_again(made):
            return []
        if not replies:
            return [Sheet(exchange, exchange.prompt)]
        last = replies[-1]
        text = answering.again(exchange.prompt, last.answer, last.reason, tokens)
        return [Sheet(exchange, text, attempt)]


def _counsel(store: Store, config: RunConfig, background: Background) -> Counsel:
    """Insights for all authors; its questions are for the models alone."""
    if config.llm is None:
        return Counsel(store, background, emitter=COUNSELLOR)
    tokens, batch = config.llm.prompt_tokens // 2, config.llm.batch
    return Counsel(store, background, emitter=COUNSELLOR, batch=batch, tokens=tokens)
