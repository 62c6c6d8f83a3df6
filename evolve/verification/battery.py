"""Runs the steps in order. One that does not hold ends the battery; a report is always written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.child import EvaluatorError
from evaluators.schema import Evaluation
from evolve.authors.keys import drop, named_near
from evolve.config import parse
from evolve.errors import UserError
from evolve.phrases import gist
from evolve.plan import plan, pool_for
from evolve.verification import environment, page, regression, steps, subject
from evolve.verification.progress import Watch
from evolve.verification.record import NAMES, Outcome, Report, Step
from evolve.verification.steps import Bench
from evolve.verification.subject import REPORT, Claim, Subject

DOING = {
    "environment": "looking at the device, making inputs and references",
    "build": "building, and a first evaluation on unseen workloads",
    "correctness": "judging every case and unseen workload on new values",
    "benchmark": "timing on the report grid",
    "stability": "many judged calls",
    "regression": "comparing with earlier measurements",
}


def verify(
    path: Path, device: str, seed: int, peers: bool, quiet: bool, out: Path | None = None
) -> tuple[Report, Path]:
    """The whole battery on what is at `path`; the report, and the folder that it was written to.

    `out` is the folder itself; by default one for the device beside what was given. UserError and
    ExportError for bad input; nothing of what a kernel does is raised.
    """
    drop(named_near(path), os.environ)  # before anything starts that would inherit them
    given = subject.read(path)
    choices = {"operator": given.operator.name, "definition": given.definition.name}
    found = plan(parse({**choices, "device": device, "seed": seed}))
    listed = catalog.peers(found.operator, found.definition, found.device) if peers else []
    with Watch(quiet) as watch, pool_for(found) as pool:
        name = str(pool.facts.get("name", found.device))
        folder = out or given.folder / subject.slug(name)
        page.make(folder)
        watch.say(f"verifying {given.solution.name} on {name}")
        bench = Bench(given.solution, found, pool, seed, watch)
        battery = Battery(given, bench, listed, _before(given, folder, name))
        try:
            battery.run()
        finally:
            report = battery.report(name)
            page.write(report, folder)
    return report, folder


class Battery:
    """The steps of one verification and what they found so far."""

    def __init__(self, given: Subject, bench: Bench, peers: list[Any], before: Claim | str) -> None:
        self._given, self._bench, self._peers, self._before = given, bench, peers, before
        self._done: dict[str, Step] = {}
        self._evaluation: Evaluation | None = None
        self._entries: list[dict[str, Any]] = []
        self._started = time.time()

    def run(self) -> None:
        """All steps, up to the first that does not hold."""
        work: dict[str, Callable[[], Step]] = {
            "environment": self._environment,
            "build": self._build,
            "correctness": self._correctness,
            "benchmark": self._benchmark,
            "stability": self._stability,
            "regression": self._regression,
        }
        for name, step in work.items():
            self._bench.watch.doing(DOING[name])
            started = time.monotonic()
            try:
                found = step()
            except (UserError, EvaluatorError) as error:
                found = Step(name=name, outcome=Outcome.BROKEN, summary=gist(str(error)))
            seconds = round(time.monotonic() - started, 1)
            self._done[name] = found.model_copy(update={"seconds": seconds})
            self._bench.watch.say(page.line(self._done[name]))
            if not found.holds:
                return

    def report(self, device: str) -> Report:
        """What is known now; steps that were not reached say so."""
        solution = self._given.solution
        return Report(
            solution=solution.name,
            digest=solution.digest(),
            definition=solution.definition,
            language=solution.spec.language.value,
            entry_point=solution.spec.entry_point,
            device=device,
            seed=self._bench.seed,
            started=self._started,
            steps=tuple(
                self._done.get(name) or Step(name=name, outcome=Outcome.NOT_REACHED)
                for name in NAMES
            ),
            entries=tuple(self._entries),
            anchor=self._bench.found.anchor.digest(),
        )

    def _environment(self) -> Step:
        steps.open_unseen(self._bench)  # what candidates are kept from is known only then
        return environment.describe(self._bench.found.device, self._bench.pool.accounting()[0])

    def _build(self) -> Step:
        step, self._evaluation = steps.build(self._bench)
        return step

    def _correctness(self) -> Step:
        assert self._evaluation is not None
        return steps.correctness(self._bench, self._evaluation)

    def _benchmark(self) -> Step:
        step, self._entries = steps.benchmark(self._bench, self._peers)
        return step

    def _stability(self) -> Step:
        return steps.stability(self._bench)

    def _regression(self) -> Step:
        return regression.step(self._entries, self._before, self._bench.found.anchor.digest())


def _before(given: Subject, folder: Path, device: str) -> Claim | str:
    """The measurement to compare with: the report before in `folder`, else what is claimed."""
    claim = subject.earlier(folder / REPORT, given.solution.digest()) or given.claim
    if claim is None:
        return "no earlier measurement of this kernel is here"
    if claim.device != device:
        return f"{claim.source} is of another device ({claim.device})"
    return claim
