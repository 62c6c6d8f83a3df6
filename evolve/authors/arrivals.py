"""Authors beside the islands: whose turn it is to propose, and authors' programs that wait.

The engine's only way to authors. A run without any has the islands' turns alone; then nothing here
waits, arrives or is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from evaluators.schema import Status
from evolve.authors.proposing import Proposing
from evolve.authors.shares import Shares
from evolve.config import RunConfig
from evolve.emitters import EMITTERS
from islands.program import Program

ISLANDS = "islands"
"""Stands for all emitters of the islands among those who take turns."""


class Arrivals:
    """Turns, and programs of authors, which the store has as pending already.

    They wait here for their turn, and for room in an epoch. `limit`: evaluations at once.
    """

    def __init__(self, proposing: Proposing | None, config: RunConfig, limit: int) -> None:
        self._proposing = proposing
        self._limit = limit
        self._programs: deque[Program] = deque()
        self._shares = _shares(proposing, config, limit)

    # -- turns --------------------------------------------------------------------------------

    def look(self, islands: bool) -> None:
        """See who can take work at present; `islands`: whether any of them may propose."""
        authors = self._proposing.able() if self._proposing else []
        self._shares.able([ISLANDS, *authors] if islands else authors)

    def islands_may(self) -> bool:
        """Whether it is the islands' turn."""
        return self._shares.may(ISLANDS)

    def islands_started(self) -> None:
        """Count a turn of the islands."""
        self._shares.started(ISLANDS)

    # -- what waits ---------------------------------------------------------------------------

    @property
    def present(self) -> bool:
        """Whether the run has authors."""
        return self._proposing is not None

    @property
    def queued(self) -> int:
        """Programs that wait for their turn."""
        return len(self._programs)

    @property
    def coming(self) -> int:
        """The same, and prompts under way that may each become one."""
        return len(self._programs) + (self._proposing.in_flight if self._proposing else 0)

    @property
    def writing(self) -> bool:
        """Whether answers may come at any moment."""
        return self._proposing is not None and self._proposing.sending

    def note(self) -> str:
        """What a display tells about authors."""
        return self._proposing.note() if self._proposing else ""

    def ended(self) -> str:
        """Why nobody here will propose any more (see `Proposing.ended`); empty while one may."""
        return "exhausted" if self._proposing is None else self._proposing.ended()

    def next(self) -> Program:
        """The program that has waited longest. IndexError when none waits."""
        return self._programs.popleft()

    # -- sending and taking -------------------------------------------------------------------

    def send(self, room: int) -> None:
        """Send prompts whose programs would find work, at most `room`."""
        if self._proposing is not None:
            ahead = self._proposing.concurrency + self._limit - self.coming
            self._proposing.step(self._shares, min(ahead, room))

    def wait(self, seconds: float) -> None:
        """Until an answer comes; at most so long."""
        if self._proposing is not None:
            self._proposing.wait(seconds)

    def collect(self) -> list[Program]:
        """Take answers that came; returns their programs, which wait here from now on."""
        return self._keep(self._proposing.collect() if self._proposing else [])

    def heard(self, program: str, status: Status) -> None:
        """What became of a program, whoever proposed it."""
        if self._proposing is not None:
            self._proposing.heard(program, status)

    def conclude(self, seconds: float, interrupted: Callable[[], bool]) -> None:
        """Have what the search has learned summed up; at most so long."""
        if self._proposing is not None:
            self._proposing.conclude(seconds, interrupted)

    def close(self) -> list[Program]:
        """End the authors' calls; returns programs of answers that had just come."""
        return self._keep(self._proposing.close() if self._proposing else [])

    def _keep(self, programs: list[Program]) -> list[Program]:
        self._programs.extend(programs)
        return programs


def _shares(proposing: Proposing | None, config: RunConfig, limit: int) -> Shares:
    """Turns of the islands' emitters, together, and of each author."""
    given = config.islands.emitters
    islands = sum(share for name, share in given.items() if name in EMITTERS)
    shares, slack = ({ISLANDS: islands}, {ISLANDS: limit}) if islands else ({}, {})
    if proposing is not None:
        for name in proposing.names:
            shares[name], slack[name] = given[name], proposing.concurrency
    return Shares(shares, slack)
