"""One epoch: workloads with their inputs and references, the same for all programs of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from evaluators import arena
from evaluators.arena import Block, Call
from evaluators.child import EvaluatorError
from evaluators.correctness import Comparison, compare, poison
from evaluators.schema import Definition, ScalarInput, Workload


@dataclass
class Blocks:
    """Shared memory of an evaluator: one input block, an output block per slot and the anchor's."""

    device: str
    inputs: Block
    outputs: list[Block]

    def close(self) -> None:
        for block in (self.inputs, *self.outputs):
            block.close()


class Epoch:
    """Inputs and references of `workloads`, made once. `order` runs from cheap to expensive.

    Raises EvaluatorError when the operator does not make what its definition says.
    """

    def __init__(
        self,
        number: int,
        definition: Definition,
        operator: ModuleType,
        workloads: list[Workload],
        device: str,
    ) -> None:
        if not workloads:
            raise EvaluatorError("an epoch needs at least one workload")
        self.number = number
        self.workloads = workloads
        self._definition = definition
        self._operator = operator
        self._device = device
        self._plan = arena.plan(definition, [w.axes for w in workloads], self._scalars())
        self._blocks: Blocks | None = None
        self._references: list[tuple[Any, ...]] = []
        self._checksum = 0
        self.order = sorted(range(len(workloads)), key=self._bytes)

    @property
    def calls(self) -> tuple[Call, ...]:
        return self._plan.calls

    @property
    def blocks(self) -> Blocks:
        """The shared memory; there is none before `lay_out`."""
        if self._blocks is None:
            raise EvaluatorError("the epoch has no memory yet")
        return self._blocks

    @property
    def laid_out(self) -> bool:
        return self._blocks is not None

    @property
    def host_bytes(self) -> int:
        """What mapping the blocks adds to the memory of a process on the CPU."""
        if self._device != "cpu":
            return 0
        return self.blocks.inputs.nbytes + self.blocks.outputs[0].nbytes

    def fill(self, old: Blocks | None, copies: int) -> None:
        """Lay out, and make inputs and references."""
        self.lay_out(old, copies)
        for index in range(len(self.workloads)):
            self._make_inputs(index)
        self.blocks.inputs.seal()
        self._checksum = self._sum()
        self._references = [self._reference(i) for i in range(len(self.workloads))]
        if self._sum() != self._checksum:
            raise EvaluatorError("the operator's reference modifies its inputs")
        self._release_cache()

    def lay_out(self, old: Blocks | None = None, copies: int = 1) -> None:
        """Allocate the blocks: `old` is used again or freed; `copies` is how many output blocks."""
        outputs = old.outputs if old else []
        self._blocks = Blocks(
            self._device,
            arena.allocate(self._device, self._plan.input_bytes, old.inputs if old else None),
            [
                arena.allocate(
                    self._device, self._plan.output_bytes, outputs[i] if i < len(outputs) else None
                )
                for i in range(copies)
            ],
        )

    def attachment(self, slot: int) -> tuple[dict[str, Any], list[int]]:
        """What a child needs to see the blocks; `slot` chooses its outputs."""
        inputs, fds = self.blocks.inputs.share()
        outputs, more = self.blocks.outputs[slot].share()
        message = {
            "command": "attach",
            "device": self._device,
            "calls": [c.model_dump(mode="json") for c in self.calls],
            "inputs": inputs,
            "outputs": outputs,
        }
        return message, fds + more

    def poison(self, workload: int, slot: int) -> None:
        """Overwrite the outputs before a judged call."""
        poison(self._outputs(workload, slot))
        self._wait()

    def compare(self, workload: int, slot: int, skips: tuple[str, ...] = ()) -> Comparison:
        """Judge what the outputs hold now; `skips` names outputs that are not judged."""
        tolerances = self._operator.TOLERANCES
        outputs = self._outputs(workload, slot)
        return compare(outputs, self._references[workload], self._definition, tolerances, skips)

    def restore(self) -> bool:
        """Make the inputs again if anybody modified them; returns whether that was so.

        On the CPU they are sealed, and nobody can.
        """
        if self._device == "cpu" or self._sum() == self._checksum:
            return False
        for index in range(len(self.workloads)):
            self._make_inputs(index)
        self._release_cache()
        return True

    def _scalars(self) -> list[dict[str, Any]]:
        """Scalar inputs of each workload: those it names, else what the operator makes."""
        named = [name for name, spec in self._definition.inputs.items() if spec.shape is None]
        rows = []
        for workload in self.workloads:
            row = _named_scalars(workload)
            if not set(named) <= set(row):
                made = self._made(workload)
                row = {name: row.get(name, made[name]) for name in named}
            rows.append(row)
        return rows

    def _made(self, workload: Workload) -> dict[str, Any]:
        import torch

        generator = torch.Generator(self._device).manual_seed(workload.seed)
        with _blamed("make_inputs"):
            made: dict[str, Any] = self._operator.make_inputs(
                self._definition.model_dump(mode="json"),
                workload.axes,
                workload.make,
                _named_scalars(workload),
                generator,
                self._device,
            )
        missing = [name for name in self._definition.inputs if name not in made]
        if missing:
            raise EvaluatorError(f"make_inputs does not make: {', '.join(missing)}")
        return made

    def _make_inputs(self, index: int) -> None:
        made = self._made(self.workloads[index])
        for entry in self.calls[index].inputs:
            if entry.shape is None:
                continue
            value = made.pop(entry.name)
            if tuple(value.shape) != entry.shape or f"torch.{entry.dtype}" != str(value.dtype):
                raise EvaluatorError(
                    f"make_inputs made {entry.name} as {value.dtype}{tuple(value.shape)}, "
                    f"the definition says {entry.dtype}{entry.shape}"
                )
            arena.view(self.blocks.inputs.tensor, entry).copy_(value)

    def _reference(self, index: int) -> tuple[Any, ...]:
        import torch

        inputs = [arena.view(self.blocks.inputs.tensor, e) for e in self.calls[index].inputs]
        with torch.no_grad(), _blamed("run"):
            returned = self._operator.run(*inputs)
        values = returned if isinstance(returned, tuple | list) else (returned,)
        for entry, value in zip(self.calls[index].outputs, values, strict=True):
            if tuple(value.shape) != entry.shape or f"torch.{entry.dtype}" != str(value.dtype):
                raise EvaluatorError(
                    f"the reference returned {entry.name} as {value.dtype}{tuple(value.shape)}, "
                    f"the definition says {entry.dtype}{entry.shape}"
                )
        return tuple(value.detach() for value in values)

    def _outputs(self, workload: int, slot: int) -> tuple[Any, ...]:
        block = self.blocks.outputs[slot].tensor
        return tuple(arena.view(block, e) for e in self.calls[workload].outputs)

    def _bytes(self, index: int) -> int:
        call = self.calls[index]
        return sum(e.nbytes for e in (*call.inputs, *call.outputs))

    def _sum(self) -> int:
        """A checksum over all inputs: their 8-byte words added with wrap-around."""
        import torch

        size = self._plan.input_bytes
        return int(self.blocks.inputs.tensor[:size].view(torch.int64).sum())

    def _wait(self) -> None:
        self._on_cuda("synchronize")

    def _release_cache(self) -> None:
        self._on_cuda("empty_cache")

    def _on_cuda(self, name: str) -> None:
        if self._device != "cpu":
            import torch

            function: Callable[[], None] = getattr(torch.cuda, name)
            function()


@contextmanager
def _blamed(function: str) -> Iterator[None]:
    """What an operator's function raises, a lack of memory included, is the evaluator's error."""
    try:
        yield
    except Exception as error:
        raise EvaluatorError(f"the operator's {function} fails: {error}") from error


def _named_scalars(workload: Workload) -> dict[str, Any]:
    return {k: v.value for k, v in workload.inputs.items() if isinstance(v, ScalarInput)}
