"""One author's work: what is to be sent, what is under way, whether it can be asked at all."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from evolve.authors.author import Author
from evolve.authors.calls import Call, Purpose
from evolve.exchanges import Exchange
from evolve.llm.exchange import Answer, Prompt, Reason, Refused
from evolve.notebook import Consultation

QUIET = frozenset({Reason.OUTAGE, Reason.CLOSED, Reason.BUDGET})
"""Refusals that tell nothing new about the service."""
DENIED = frozenset({Reason.WRONG_KEY, Reason.BAD_REQUEST})
"""Refusals that only a person can end: a wrong key or model's name, an account without quota."""
DENIALS = 5
"""Such refusals in a row after which a model is asked no more."""


@dataclass(frozen=True)
class Sheet:
    """A prompt to be sent: `attempt` counts the answers wanted of an exchange from 1."""

    about: Exchange | Consultation
    text: str
    attempt: int = 1

    @property
    def purpose(self) -> Purpose:
        about = self.about
        return Purpose.WRITE if isinstance(about, Exchange) else Purpose(about.kind.value)


@dataclass(frozen=True)
class Sent:
    """A call under way; `number` is the call's in the store."""

    sheet: Sheet
    number: int
    call: Call
    future: Future[Answer | Refused]

    def outcome(self) -> Answer | Refused:
        """What came back, once `future` is done."""
        try:
            return self.future.result()
        except CancelledError:
            return Refused(model=self.call.model, reason=Reason.CLOSED)


class Desk:
    """The state of one author. `say` gets a line for people when it rests or ends."""

    def __init__(self, author: Author, say: Callable[[str], None]) -> None:
        self.author = author
        self.again: deque[Sheet] = deque()
        self.sent: list[Sent] = []
        self.ended = ""  # why it is asked no more: cost, tokens, refused, exhausted
        self._out: dict[str, str] = {}  # model -> why it is asked no more: cost, tokens, refused
        self._denials: Counter[str] = Counter()  # by model, in a row
        self._fruitless = 0
        self._last = ""
        self._resting = False
        self._say = say

    @property
    def name(self) -> str:
        return self.author.name

    def models(self) -> list[str]:
        """Models that can be asked now; none when it rests or has ended."""
        if self.ended:
            return []
        rests = self.author.models()
        return [m for m, rest in rests.items() if not rest and m not in self._out]

    def affordable(self, prompt: Prompt) -> list[str]:
        """Of these, the ones whose limits admit the prompt."""
        for model in self.models():
            if limit := self.author.limit(prompt, model):
                self.too_dear(model, limit)
        return self.models()

    def free(self) -> bool:
        """Whether one more call may be started."""
        return len(self.sent) < self.author.concurrency and bool(self.models())

    def take_done(self) -> list[Sent]:
        """Calls that have come back; they are under way no more."""
        done = [sent for sent in self.sent if sent.future.done()]
        self.sent = [sent for sent in self.sent if sent not in done]
        return done

    def exchanges(self) -> int:
        """Exchanges that will soon give a program, if any: under way, or about to be sent again.

        What waits for a resting author is left out: nobody waits for the end of an outage.
        """
        waiting = self.again if self.models() else ()
        sheets = [*(sent.sheet for sent in self.sent), *waiting]
        return sum(sheet.purpose is Purpose.WRITE for sheet in sheets)

    def questions(self) -> int:
        """Plans and summaries under way or waiting."""
        sheets = [*(sent.sheet for sent in self.sent), *self.again]
        return sum(sheet.purpose is not Purpose.WRITE for sheet in sheets)

    # -- what becomes of it -------------------------------------------------------------------

    def fruitful(self) -> None:
        """An exchange gave a new program."""
        self._fruitless = 0

    def fruitless(self, why: str) -> None:
        """An exchange came to nothing; too many in a row end the author."""
        self._fruitless += 1
        if self._fruitless >= self.author.patience:
            said = f"{self._fruitless} exchanges in a row gave no new program (the last: {why})"
            self.end("exhausted", said)

    def refused(self, refused: Refused) -> str:
        """A call failed; returns what is told of it.

        A model that is denied again and again is asked no more; the last one ends its author.
        """
        told = ", ".join(part for part in (refused.reason.value, refused.detail) if part)
        if refused.reason in QUIET:
            return told
        self._last = f"{refused.model}: {told}"
        denied = refused.reason in DENIED
        self._denials[refused.model] = self._denials[refused.model] + 1 if denied else 0
        if self._denials[refused.model] == DENIALS:
            self._leave_out(refused.model, "refused", f"{DENIALS} calls in a row got {self._last}")
        return told

    def answered(self, model: str) -> None:
        """A model gave an answer, whatever that is worth."""
        self._denials[model] = 0

    def too_dear(self, model: str, limit: str) -> None:
        """A model whose next call does not fit is asked no more; the last one ends its author."""
        self._leave_out(model, limit, f"max_{limit} is reached: its next call may not fit")

    def _leave_out(self, model: str, reason: str, why: str) -> None:
        self._out[model] = reason
        if len(self._out) == len(self.author.models()):
            self.end(reason, why)
        elif reason == "refused":
            self._say(f"{model} is asked no more: {why}")

    def end(self, reason: str, why: str) -> None:
        if not self.ended:
            self.ended = reason
            self._say(f"{self.name} is asked no more: {why}")

    # -- for people ---------------------------------------------------------------------------

    def tell_of_rest(self) -> None:
        """Says once that all its models rest."""
        rests = [rest for m, rest in self.author.models().items() if m not in self._out]
        resting = not self.ended and bool(rests) and all(rests)
        if resting and not self._resting and min(rests) > 1:
            self._say(f"{self.name} rests for {min(rests):.0f} s: {self._last or 'its calls fail'}")
            self._resting = True
        elif not resting and not self.sent:
            self._resting = False

    def note(self) -> str:
        if self.ended:
            return f"{self.name} ended ({self.ended})"
        resting = "" if self.models() or self.sent else ", resting"
        return f"{self.name} {len(self.sent)} under way{resting}"
