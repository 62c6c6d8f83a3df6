"""The search: asks islands for programs, has them evaluated, records, tells; stops at the budget.

One thread, one loop. Nothing is told to an island before it is in the store, and everything is told
in the store's order, so a run that is killed and resumed continues as if it had not stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from evaluators.schema import Definition, Evaluation, Solution, Status
from evolve.config import RunConfig
from evolve.errors import UserError
from evolve.pool import EvaluatorPool, telling
from evolve.population import Population
from evolve.store import Kind, Store
from islands.program import Program, program_id

WAIT_S = 0.25
"""Longest time between two looks at the clock, the stop flag and the display."""
REMEASURE_SHARE = 3
"""Least searches in an epoch per elite measured again at its start."""


class SeedFailed(UserError):
    """A seed did not pass its own evaluation: nothing was spent."""


@dataclass
class Progress:
    """What a display shows. Times in seconds; scores are speedups over the anchor."""

    done: int
    budget: int
    elapsed_s: float
    time_left_s: float | None
    rate: float
    epoch: int
    best: float
    seed_best: float
    niches: int
    statuses: dict[str, int]
    in_flight: int
    note: str = ""


Watch = Callable[[Progress], None]


@dataclass
class _Job:
    program: Program
    kind: Kind
    tries: int = 0


@dataclass
class _Flight:
    """Everything that has been started and not come back."""

    asks: dict[Any, int] = field(default_factory=dict)
    evaluations: dict[Any, _Job] = field(default_factory=dict)
    outcomes: dict[Any, int] = field(default_factory=dict)

    def refs(self) -> list[Any]:
        return [*self.asks, *self.evaluations, *self.outcomes]


class Engine:
    """One run's search over a store, a population and a pool of evaluators."""

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        definition: Definition,
        seeds: list[Solution],
        pool: EvaluatorPool,
        watch: Watch = lambda progress: None,
    ) -> None:
        self.store = store
        self.config = config
        self.seeds = seeds
        self.pool = pool
        self.population = Population(config, definition)
        self.stopping = False
        self.new_epoch_first = False
        self._watch = watch
        self._started = time.monotonic()
        self._queue: deque[_Job] = deque()
        self._flight = _Flight()
        self._exhausted: set[int] = set()
        self._proposed = [0] * len(self.population)
        self._done_at_start = 0
        self._last_watch = 0.0
        self._last_epoch = -1

    # -- the whole search ---------------------------------------------------------------------

    def run(self) -> str:
        """Search until the budget; returns why it ended: budget, time, exhausted, interrupted."""
        self._restore()
        self._measure_seeds()
        if self.new_epoch_first:
            self._queue.clear()
            self._open_epoch(self.store.counts()["epoch"] + 1)
            self._queue_pending()
        self._started = time.monotonic()
        self._done_at_start = self._done()
        while (reason := self._reason_to_end()) is None:
            if self._epoch_is_over():
                self._drain()
                if not self.stopping and self._epoch_is_over():
                    self._open_epoch(self.store.counts()["epoch"] + 1)
                continue
            self._start_work()
            self._collect()
        self._drain()
        self._show(force=True)
        return reason

    def stop(self) -> None:
        """Propose nothing more; `run` returns once what is in flight is recorded."""
        self.stopping = True

    # -- budget -------------------------------------------------------------------------------

    def _done(self) -> int:
        counts = self.store.counts()
        return counts["search"] + counts["remeasure"]

    def _committed(self) -> int:
        return (
            self._done() + len(self._queue) + len(self._flight.asks) + len(self._flight.evaluations)
        )

    def _time_left(self) -> float | None:
        limit = self.config.budget.time_s
        return None if limit is None else limit - (time.monotonic() - self._started)

    def _reason_to_end(self) -> str | None:
        if self.stopping:
            return "interrupted"
        left = self._time_left()
        if left is not None and left <= 0:
            return "time"
        if self._done() >= self.config.budget.evaluations:
            return "budget"
        if len(self._exhausted) == len(self.population) and not (
            self._queue or self._flight.evaluations or self._flight.asks
        ):
            return "exhausted"
        return None

    def _epoch_room(self) -> int:
        """Searches that may still start in this epoch.

        An epoch has at least `REMEASURE_SHARE` times as many searches as elites it measured again,
        so that measuring again never eats the budget.
        """
        counts, flight = self.store.counts(), self._flight
        size = max(self.config.epochs.evaluations, REMEASURE_SHARE * counts["remeasured"])
        waiting = sum(job.kind == "search" for job in (*flight.evaluations.values(), *self._queue))
        started = counts["searched"] + len(flight.asks) + waiting
        left = self.config.budget.evaluations - self._committed()
        if started < size:
            return min(left, size - started)
        return left if self._is_last_epoch(counts["epoch"], size, left) else 0

    def _is_last_epoch(self, epoch: int, size: int, left: int) -> bool:
        """Whether the budget is too short for another epoch: its elites and half its searches.

        Decided once, with nothing in flight, so that a resumed run decides alike.
        """
        if self._last_epoch == epoch:
            return True
        if self._flight.refs() or self._queue:
            return False
        if left < self.population.size() + size // 2:
            self._last_epoch = epoch
        return self._last_epoch == epoch

    def _epoch_is_over(self) -> bool:
        left = self.config.budget.evaluations - self._committed()
        return self._epoch_room() <= 0 < left and not self._queue

    # -- starting work ------------------------------------------------------------------------

    def _start_work(self) -> None:
        limit = self.config.in_flight or self.pool.capacity
        busy = self._flight
        left = self.config.budget.evaluations - self._done()
        while self._queue and len(busy.evaluations) < min(limit, left):
            job = self._queue.popleft()
            busy.evaluations[self.pool.submit(job.program.solution)] = job
        room = limit - len(busy.evaluations) - len(busy.asks) - len(self._queue)
        for _ in range(min(room, self._epoch_room())):
            open_islands = [k for k in range(len(self.population)) if k not in self._exhausted]
            if not open_islands:
                return
            island = min(open_islands, key=lambda k: (self._proposed[k], k))
            self._proposed[island] += 1
            busy.asks[self.population.ask(island)] = island

    # -- collecting ---------------------------------------------------------------------------

    def _collect(self) -> None:
        refs = self._flight.refs()
        if refs:
            ready, _ = ray.wait(refs, num_returns=1, timeout=WAIT_S)
            for ref in ready:
                if ref in self._flight.asks:
                    self._on_program(self._flight.asks.pop(ref), ray.get(ref))
                elif ref in self._flight.evaluations:
                    self._on_evaluation(self._flight.evaluations.pop(ref), self.pool.result(ref))
                else:
                    status, niche = ray.get(ref)
                    self.store.set_outcome(self._flight.outcomes.pop(ref), niche, status.value)
        self._show()

    def _on_program(self, island: int, program: Program | None) -> None:
        if program is None:
            self._exhausted.add(island)
        elif self.store.propose(program):
            self._queue.append(_Job(program, "search"))
        else:
            self._proposed[island] -= 1
            self.population.known(island, program.id)

    def _on_evaluation(self, job: _Job, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            job.tries += 1
            if job.tries < 2:
                self._queue.appendleft(job)
                return
            evaluation = self.pool.lost()
        seq = self.store.record(job.program.id, job.kind, evaluation)
        self._flight.outcomes[self.population.tell(job.program, job.kind, evaluation)] = seq
        self._exhausted.clear()

    def _drain(self) -> None:
        """Wait for evaluations in flight; proposals that come back now stay pending."""
        while self._flight.refs():
            self._collect()
            if self.stopping or self._reason_to_end():
                self._queue.clear()
            elif self._queue:
                self._start_queued()

    def _start_queued(self) -> None:
        while self._queue:
            job = self._queue.popleft()
            self._flight.evaluations[self.pool.submit(job.program.solution)] = job

    # -- epochs, seeds, resume ----------------------------------------------------------------

    def _open_epoch(self, epoch: int) -> None:
        workloads = self.pool.sample(
            "search", epoch, self.config.seed, self.config.epochs.workloads
        )
        self.pool.open_epoch(epoch, workloads, self.seeds[0])
        self.store.open_epoch(epoch, workloads)
        self._remeasure(epoch, self.population.open_epoch(epoch))

    def _remeasure(self, epoch: int, elites: list[Program]) -> None:
        """Queue elites, and the best seed, which every epoch's gains are told against."""
        best = self.store.best_seed()
        known = {program.id for program in elites}
        if best and best not in known and not self.store.evaluated(best, epoch):
            elites = [*elites, self.store.program(best)]
        self._queue.extend(_Job(program, "remeasure") for program in elites)

    def _restore(self) -> None:
        """Rebuild archives from the store and queue what a stopped run left undone."""
        epochs = self.store.epochs()
        if not epochs:
            self._open_epoch(0)
            return
        latest = max(epochs)
        owed = self.population.replay(self.store.evaluations(), self.store.program, latest)
        self.pool.open_epoch(latest, epochs[latest], self.seeds[0])
        counts = self.store.proposed_by_island()
        self._proposed = [counts.get(k, (0, 0))[0] for k in range(len(self.population))]
        self.population.resume_at({k: ordinal for k, (_, ordinal) in counts.items()})
        self._remeasure(latest, owed)
        self._queue_pending()

    def _queue_pending(self) -> None:
        """Programs that were proposed and not evaluated, by a stopped run or by the mailbox."""
        self._queue.extend(_Job(p, "search") for p in self.store.pending() if p.emitter != "seed")

    def _measure_seeds(self) -> None:
        """Evaluate every seed that has no evaluation yet, before any budget is spent."""
        for index, solution in enumerate(self.seeds):
            program = Program(
                id=program_id(solution), solution=solution, island=0, emitter="seed", ordinal=index
            )
            self.store.propose(program)
            if self.stopping or self.store.evaluated(program.id):
                continue
            self._show(force=True, note=f"measuring {solution.name}")
            evaluation = self.pool.evaluate(solution)
            if evaluation.status is not Status.PASSED:
                raise SeedFailed(
                    f"seed {solution.name} fails its own evaluation: {evaluation.status.value}: "
                    f"{telling(evaluation.log)}"
                )
            seq = self.store.record(program.id, "seed", evaluation)
            status, niche = ray.get(self.population.tell(program, "seed", evaluation))
            self.store.set_outcome(seq, niche, status.value)

    # -- showing ------------------------------------------------------------------------------

    def _show(self, force: bool = False, note: str = "") -> None:
        now = time.monotonic()
        if not force and now - self._last_watch < WAIT_S:
            return
        self._last_watch = now
        counts = self.store.counts()
        done = counts["search"] + counts["remeasure"]
        elapsed = now - self._started
        best, seed_best, niches = self.store.standing(counts["epoch"])
        self._watch(
            Progress(
                done=done,
                budget=self.config.budget.evaluations,
                elapsed_s=elapsed,
                time_left_s=self._time_left(),
                rate=(done - self._done_at_start) / elapsed if elapsed > 1 else 0.0,
                epoch=counts["epoch"],
                best=best,
                seed_best=seed_best,
                niches=niches,
                statuses=self.store.by("status"),
                in_flight=len(self._flight.evaluations),
                note=note,
            )
        )
