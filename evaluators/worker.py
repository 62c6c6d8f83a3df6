"""The evaluator of one device as a Ray actor.

The actor's process is the judge: it alone imports torch, so that the driver need not. Arguments and
results are records and plain data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray

from evaluators.devices import default_slots
from evaluators.schema import Definition, Evaluation, Solution, Workload
from evaluators.settings import EvaluatorSettings

SHARE = 4
"""One sampled workload may take this part of an epoch's memory, so that several fit."""

EXTRA_THREADS = 2
"""Actor threads beside those that evaluate: for `facts` and `sample` meanwhile."""


class EvaluatorWorker:
    """`Evaluator` with the workloads and costs of its operator."""

    def __init__(
        self, device: str, definition: Definition, operator_dir: str, settings: EvaluatorSettings
    ) -> None:
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
            if self._bytes(found) <= whole or not found:
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
        self._evaluator.open_epoch(epoch, workloads, anchor)

    def evaluate(
        self,
        solution: Solution,
        trusted: bool = False,
        samples_factor: float = 1.0,
        skips: tuple[str, ...] = (),
    ) -> Evaluation:
        """See `Evaluator.evaluate`."""
        return self._evaluator.evaluate(
            solution, trusted=trusted, samples_factor=samples_factor, skips=skips
        )

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

    def _bytes(self, found: list[Workload]) -> int:
        from evaluators import workloads

        return sum(workloads.input_bytes(self._definition, w.axes) for w in found)


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
