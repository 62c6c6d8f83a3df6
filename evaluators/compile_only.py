"""Compiles solutions for a named target on a machine that does not have the device.

The same isolation as an evaluation, but nothing runs: build facts or errors, no scores.
"""

from __future__ import annotations

import time
from pathlib import Path

from evaluators import catalog, devices, guard, workloads
from evaluators.catalog import Operator
from evaluators.child import CandidateFailed, Child, Limits, Nursery
from evaluators.epoch import Epoch
from evaluators.schema import BuildFacts, Definition, Record, Solution, Status, Workload
from evaluators.settings import EvaluatorSettings

MAX_BYTES = 2 << 30
"""Tensors of the workload that is compiled for: JIT languages read shapes and dtypes only."""


class Compiled(Record):
    """Outcome for one solution: `PASSED` with facts, or a failure with its log."""

    solution: str
    target: str
    status: Status
    log: str = ""
    build: BuildFacts | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED


class Compiler:
    """Compiles solutions of one definition for `target` (such as `sm_90a`). A context manager.

    `workload` chooses the shapes; None takes the smallest of a search sample for CUDA. Raises
    CatalogError and EvaluatorError from the constructor.
    """

    def __init__(
        self,
        definition: Definition,
        operator_dir: Path,
        target: str,
        workload: Workload | None = None,
        settings: EvaluatorSettings | None = None,
    ) -> None:
        folder = Path(operator_dir)
        operator = Operator(folder.name, folder, {definition.name: definition})
        self._definition = definition
        self._target = target
        self._settings = settings or EvaluatorSettings()
        chosen = workload or _smallest(operator, definition)
        module = catalog.load_module(operator)
        self._epoch = Epoch(0, definition, module, [chosen], "cpu", b"")
        self._epoch.lay_out()
        self._nursery = Nursery("cuda")
        self._nursery.start()

    def compile(self, solution: Solution, *, trusted: bool = False) -> Compiled:
        """Compile one solution; never raises for anything that the solution does."""
        start = time.perf_counter()
        reasons = [] if trusted else guard.check(solution, self._definition)
        if reasons:
            return self._outcome(solution, start, Status.INVALID_SOURCE, "\n".join(reasons))
        try:
            facts = self._facts(solution)
        except CandidateFailed as error:
            return self._outcome(solution, start, error.status, error.log)
        return self._outcome(solution, start, Status.PASSED, "", facts)

    def close(self) -> None:
        self._nursery.close()
        self._epoch.blocks.close()

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _facts(self, solution: Solution) -> BuildFacts:
        memory = self._settings.memory_bytes or devices.default_memory_bytes(1)
        limits = Limits(memory + self._epoch.host_bytes)
        deadline = self._settings.build_deadline_s
        with Child(self._nursery, solution.spec.language, limits) as child:
            message, fds = self._epoch.attachment(0)
            child.ask(message, deadline, fds)
            reply = child.ask(
                {
                    "command": "compile",
                    "solution": solution.model_dump(mode="json"),
                    "target": self._target,
                },
                deadline,
            )
        try:
            return BuildFacts.model_validate(reply.get("facts"))
        except ValueError as error:
            raise CandidateFailed(Status.COMPILE_ERROR, f"malformed facts: {error}") from error

    def _outcome(
        self,
        solution: Solution,
        start: float,
        status: Status,
        log: str,
        facts: BuildFacts | None = None,
    ) -> Compiled:
        return Compiled(
            solution=solution.name,
            target=self._target,
            status=status,
            log=log[-4000:],
            build=facts,
            seconds=round(time.perf_counter() - start, 3),
        )


def _smallest(operator: Operator, definition: Definition) -> Workload:
    found = workloads.search_sample(operator, definition, "cuda", 0, 0, MAX_BYTES)
    return min(found, key=lambda w: workloads.input_bytes(definition, w.axes))
