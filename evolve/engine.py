"""The search: asks islands for programs, has them evaluated, records, tells; stops at the budget.

One thread, one loop. Nothing is told to an island before it is in the store, and everything is told
in the store's order, so a run that is killed and resumed continues as if it had not stopped.
"""

from __future__ import annotations

from collections import deque

import ray

from evaluators.schema import Definition, Evaluation, Solution, Status, Workload
from evolve.authors.arrivals import Arrivals
from evolve.authors.proposing import Proposing
from evolve.config import RunConfig
from evolve.emitters import EMITTERS
from evolve.errors import UserError
from evolve.flight import Flight, Job
from evolve.phrases import gist
from evolve.pool import EvaluatorPool
from evolve.population import Population
from evolve.progress import Observer, Watch
from evolve.room import Room
from evolve.store import Kind, Store
from islands.program import Program, program_id

WAIT_S = 0.25
"""Longest time between two looks at the clock, the stop flag and the display."""
LOOK_S = 0.05
"""The same while authors are writing, whose answers do not end the wait for evaluations."""
CONCLUDE_S = 60.0
"""Longest time that models have to sum up what the search has learned."""


class SeedFailed(UserError):
    """A seed did not pass its own evaluation: nothing was spent."""


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
        proposing: Proposing | None = None,
        population: Population | None = None,
    ) -> None:
        """`population` None: a new one, as `config` says."""
        self.store = store
        self.config = config
        self.seeds = seeds
        self.pool = pool
        self.population = population or Population(config, definition)
        self.authors = Arrivals(proposing, config, self._limit())
        self.stopping = False
        self.new_epoch_first = False
        self._observer = Observer(store, config.budget.evaluations, config.budget.time_s, watch)
        self._queue: deque[Job] = deque()
        self._flight = Flight()
        self._exhausted: set[int] = set()
        self._proposed = [0] * len(self.population)
        self._room = Room(store, config, self._flight, self._queue, self.population.size)

    # -- the whole search ---------------------------------------------------------------------

    def run(self) -> str:
        """Search until the budget; returns why it ended.

        budget, time, exhausted, interrupted; cost or tokens when authors reached such a limit and
        nobody else proposes.
        """
        self._restore()
        self._measure_seeds()
        if self.new_epoch_first:
            self._queue.clear()
            self._open_epoch(self.store.counts()["epoch"] + 1)
            self._queue_pending()
        self._observer.start()
        while (reason := self._reason_to_end()) is None:
            if self._room.epoch_is_over():
                self._drain()
                if not self.stopping and self._room.epoch_is_over():
                    self._open_epoch(self.store.counts()["epoch"] + 1)
                continue
            self._start_work()
            self._collect()
        if reason in {"interrupted", "time"}:
            self._dismiss()
        self._drain()
        self._conclude(reason)
        self._show(force=True)
        return reason

    def stop(self) -> None:
        """Propose nothing more; `run` returns once what is in flight is recorded."""
        self.stopping = True

    # -- budget -------------------------------------------------------------------------------

    def _reason_to_end(self) -> str | None:
        if self.stopping:
            return "interrupted"
        left = self._observer.time_left
        if left is not None and left <= 0:
            return "time"
        if self._room.unmade() <= 0:
            return "budget"
        if not self._open_islands() and not (
            self._queue or self.authors.queued or self._flight.evaluations or self._flight.asks
        ):
            return self.authors.ended() or None
        return None

    def _unreserved(self) -> int:
        """Evaluations that nothing under way will need, nor any author's program."""
        return self._room.left() - self.authors.coming

    # -- starting work ------------------------------------------------------------------------

    def _start_work(self) -> None:
        busy, limit = self._flight, self._limit()
        self.authors.look(islands=bool(self._open_islands()))
        for _ in range(limit - len(busy.evaluations) - len(busy.asks) - len(self._queue)):
            if not (self._ask() or self._take_arrived()):
                break
        while self._queue and len(busy.evaluations) < min(limit, self._room.unmade()):
            self._submit(self._queue.popleft())
        self.authors.send(self._unreserved())

    def _limit(self) -> int:
        return self.config.in_flight or self.pool.capacity

    def _open_islands(self) -> list[int]:
        """Islands that may have a program to propose."""
        if not any(name in EMITTERS for name in self.config.islands.emitters):
            return []
        return [k for k in range(len(self.population)) if k not in self._exhausted]

    def _ask(self) -> bool:
        """Ask an island for its next program, if it is the islands' turn and there is room."""
        if not self.authors.islands_may() or min(self._room.in_epoch(), self._unreserved()) <= 0:
            return False
        island = min(self._open_islands(), key=lambda k: (self._proposed[k], k))
        self._proposed[island] += 1
        self._flight.asks[self.population.ask(island)] = island
        self.authors.islands_started()
        return True

    def _take_arrived(self) -> bool:
        """Queue an author's program, if there is one and this epoch has room for it."""
        if not self.authors.queued or self._room.in_epoch() <= 0:
            return False
        self._queue.append(Job(self.authors.next(), "search"))
        return True

    def _submit(self, job: Job) -> None:
        """Send a program to a device: a searched one with its contest, others for the full set."""
        options = {}
        if job.kind == "search":
            options["contends"] = self.population.contest(job.program)
            options["twins"] = self.population.twins()
        self._flight.evaluations[self.pool.submit(job.program.solution, **options)] = job

    # -- collecting ---------------------------------------------------------------------------

    def _collect(self) -> None:
        refs = self._flight.refs()
        if refs:
            timeout = LOOK_S if self.authors.writing else WAIT_S
            ready, _ = ray.wait(refs, num_returns=1, timeout=timeout)
            for ref in ready:
                if ref in self._flight.asks:
                    self._on_program(self._flight.asks.pop(ref), ray.get(ref))
                elif ref in self._flight.evaluations:
                    self._on_evaluation(self._flight.evaluations.pop(ref), self.pool.result(ref))
                else:
                    status, niche = ray.get(ref)
                    self.store.set_outcome(self._flight.outcomes.pop(ref), niche, status.value)
        else:
            self.authors.wait(WAIT_S)
        self._arrive(self.authors.collect())
        self._show()

    def _arrive(self, programs: list[Program]) -> None:
        """Authors' programs need not be proposed by an island."""
        for program in programs:
            self.population.known(program.island, program.id)

    def _conclude(self, reason: str) -> None:
        """End the authors, after a last summary where there is time for it."""
        if self.authors.present and reason not in {"interrupted", "time"}:
            self._show(force=True, note="summing up")
            self.authors.conclude(CONCLUDE_S, lambda: self.stopping)
        self._dismiss()

    def _dismiss(self) -> None:
        """End the authors' calls; programs of theirs that wait stay pending."""
        self._arrive(self.authors.close())

    def _on_program(self, island: int, program: Program | None) -> None:
        if program is None:
            self._exhausted.add(island)
        elif self.store.propose(program):
            self._queue.append(Job(program, "search"))
        else:
            self._proposed[island] -= 1
            self.population.known(island, program.id)

    def _on_evaluation(self, job: Job, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            job.tries += 1
            if job.tries < 2:
                self._queue.appendleft(job)
                return
            evaluation = self.pool.lost()
        kind: Kind = "duplicate" if evaluation.status is Status.DUPLICATE else job.kind
        seq = self.store.record(job.program.id, kind, evaluation)
        self.authors.heard(job.program.id, evaluation.status)
        self._flight.outcomes[self.population.tell(job.program, kind, evaluation)] = seq
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
            self._submit(self._queue.popleft())

    # -- epochs, seeds, resume ----------------------------------------------------------------

    def _open_epoch(self, epoch: int) -> None:
        workloads = self.pool.sample(
            "search", epoch, self.config.seed, self.config.epochs.workloads
        )
        self.pool.open_epoch(epoch, workloads, self.seeds[0])
        self.store.open_epoch(epoch, workloads)
        self._ask_costs(workloads)
        self._remeasure(epoch, self.population.open_epoch(epoch))

    def _ask_costs(self, workloads: list[Workload]) -> None:
        """Prompts tell them; asked while the evaluators have nothing else to do."""
        for workload in workloads if self.authors.present else ():
            self.pool.cost(workload)

    def _remeasure(self, epoch: int, elites: list[Program]) -> None:
        """Queue elites, and the best seed, which every epoch's gains are told against."""
        best = self.store.best_seed()
        known = {program.id for program in elites}
        if best and best not in known and not self.store.evaluated(best, epoch):
            elites = [*elites, self.store.program(best)]
        self._queue.extend(Job(program, "remeasure") for program in elites)

    def _restore(self) -> None:
        """Rebuild archives from the store and queue what a stopped run left undone."""
        epochs = self.store.epochs()
        if not epochs:
            self._open_epoch(0)
            return
        latest = max(epochs)
        owed = self.population.replay(self.store.evaluations(), self.store.program, latest)
        self.pool.open_epoch(latest, epochs[latest], self.seeds[0])
        self._ask_costs(epochs[latest])
        counts = self.store.proposed_by_island()
        self._proposed = [counts.get(k, (0, 0))[0] for k in range(len(self.population))]
        self.population.resume_at({k: ordinal for k, (_, ordinal) in counts.items()})
        self._remeasure(latest, owed)
        self._queue_pending()

    def _queue_pending(self) -> None:
        """Programs that were proposed and not evaluated, by a stopped run or by the mailbox."""
        self._queue.extend(Job(p, "search") for p in self.store.pending() if p.emitter != "seed")

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
                    f"{gist(evaluation.log)}"
                )
            seq = self.store.record(program.id, "seed", evaluation)
            status, niche = ray.get(self.population.tell(program, "seed", evaluation))
            self.store.set_outcome(seq, niche, status.value)

    # -- showing ------------------------------------------------------------------------------

    def _show(self, force: bool = False, note: str = "") -> None:
        self._observer.show(len(self._flight.evaluations), self.authors.note, force, note)
