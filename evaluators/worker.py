"""The evaluator of one device as a Ray actor.

The actor's process is the judge: it alone imports torch, so that the driver need not. Arguments and
results are records and plain data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from evaluators.devices import default_slots
from evaluators.sanitizer import Sanitized
from evaluators.schema import Definition, Evaluation, Replays, Solution, Workload
from evaluators.settings import EvaluatorSettings

SHARE = 4
"""One sampled workload may take this part of an epoch's memory, so that several fit."""

LIVE_SHARE = 1.4
"""Live inputs and the ring stand beside an epoch's inputs: together this part of their memory."""

EXTRA_THREADS = 2
"""Actor threads beside those that evaluate: for `facts` and `sample` meanwhile."""


class EvaluatorWorker:
    """`Evaluator` with the workloads and costs of its operator."""

    def __init__(
        self, device: str, definition: Definition, operator_dir: str, settings: EvaluatorSettings
    ) -> None:
        # Threads of the judge that spin while they wait would take cores from what is timed next.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        from evaluators import catalog
        from evaluators.pipeline import Evaluator

        folder = Path(operator_dir)
        self._operator = catalog.Operator(folder.name, folder, {definition.name: definition})
        self._definition = definition
        self._evaluator = Evaluator(device, definition, folder, settings)
        # Ray gives an actor that reserves no CPU one thread; references want the cores.
        torch.set_num_threads(len(os.sched_getaffinity(0)))

    def facts(self) -> dict[str, Any]:
        """See `Evaluator.facts`."""
        return self._evaluator.facts()

    def sample(self, kind: str, epoch: int, seed: int, count: int | None) -> list[Workload]:
        """Workloads of `kind` (search, verification, report) that fit the device all at once.

        Raises CatalogError.
        """
        whole = self._evaluator.input_bytes
        limit = whole if kind == "report" else whole // SHARE
        while True:
            found = self._draw(kind, epoch, seed, count, limit)
            base, live = self._bytes(found)
            if not found or (base <= whole and base + live <= LIVE_SHARE * whole):
                return found
            limit = limit * 3 // 4

    def costs(self, workloads: list[Workload]) -> list[tuple[float, float]]:
        """(flops, least bytes) of each workload, from the operator."""
        from evaluators.catalog import load_module

        module, definition = load_module(self._operator), self._definition.model_dump(mode="json")
        found = (module.cost(definition, w.axes, w.make) for w in workloads)
        return [(float(flops), float(least_bytes)) for flops, least_bytes in found]

    def open_epoch(self, epoch: int, workloads: list[Workload], anchor: Solution) -> None:
        """See `Evaluator.open_epoch`."""
        if self._evaluator.device != "cpu" and not self._evaluator.reserve_bytes:
            # A block that grows leaves its memory behind: the first should do for the report too.
            self._evaluator.reserve_bytes = self._report_bytes()
        self._evaluator.open_epoch(epoch, workloads, anchor)

    def evaluate(
        self,
        solution: Solution,
        trusted: bool = False,
        samples_factor: float = 1.0,
        skips: tuple[str, ...] = (),
        contends: Callable[..., bool] | None = None,
        twins: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """See `Evaluator.evaluate`."""
        return self._evaluator.evaluate(
            solution,
            trusted=trusted,
            samples_factor=samples_factor,
            skips=skips,
            contends=contends,
            twins=twins,
        )

    def replay(
        self,
        solution: Solution,
        calls: int,
        trusted: bool = False,
        skips: tuple[str, ...] = (),
    ) -> Replays:
        """See `Evaluator.replay`."""
        return self._evaluator.replay(solution, calls, trusted=trusted, skips=skips)

    def sanitize(self, solution: Solution, workloads: list[Workload]) -> list[Sanitized]:
        """See `evaluators.sanitizer.check`."""
        from evaluators import sanitizer
        from evaluators.catalog import load_module

        module, device = load_module(self._operator), self._evaluator.device
        return sanitizer.check(solution, self._definition, module, device, workloads)

    def close(self) -> None:
        """End every process of the evaluator."""
        self._evaluator.close()

    def _draw(
        self, kind: str, epoch: int, seed: int, count: int | None, limit: int
    ) -> list[Workload]:
        from evaluators import workloads

        operator, definition, device = self._operator, self._definition, self._evaluator.device
        if kind == "search":
            return workloads.search_sample(operator, definition, device, epoch, seed, limit, count)
        if kind == "verification":
            return workloads.verification_sample(operator, definition, device, seed, limit, count)
        if kind == "report":
            return workloads.report_grid(operator, definition, device, limit)
        raise ValueError(f"unknown kind of workloads: {kind}")

    def _report_bytes(self) -> int:
        """Bytes that the inputs of the report grid take in all; 0 where there is none."""
        from evaluators.catalog import CatalogError

        try:
            return sum(self._bytes(self.sample("report", 0, 0, None)))
        except CatalogError:
            return 0

    def _bytes(self, found: list[Workload]) -> tuple[int, int]:
        """Bytes of the base inputs of workloads and the operator's cases, and of live inputs and
        ring beside them."""
        from evaluators import arena, workloads
        from evaluators.catalog import load_module
        from evaluators.epoch import RING

        cases = getattr(load_module(self._operator), "cases", None)
        declared = cases(self._definition.model_dump(mode="json")) if cases else []
        padding = arena.ALIGNMENT * len(self._definition.inputs)
        sizes = [
            workloads.input_bytes(self._definition, axes) + padding
            for axes in (*(w.axes for w in found), *(axes for axes, _ in declared))
        ]
        largest = max(sizes, default=0)
        ring = arena.ring_bytes(largest, RING) if self._evaluator.device != "cpu" else 0
        return sum(sizes), largest + ring


def make_actor(
    device: str,
    definition: Definition,
    operator_dir: Path,
    settings: EvaluatorSettings,
    gpus: float = 0,
) -> Any:
    """Start the actor; `gpus` is what Ray reserves for it. Needs an initialised Ray."""
    slots = settings.slots or default_slots(device)
    options = {"num_cpus": 0, "num_gpus": gpus, "max_concurrency": slots + EXTRA_THREADS}
    actor = ray.remote(EvaluatorWorker).options(**options)
    return actor.remote(device, definition, str(operator_dir), settings)
