"""One epoch: workloads and cases, their memory, their draws, and what is right for each draw."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from evaluators import arena
from evaluators.arena import Block, Call
from evaluators.child import EvaluatorError
from evaluators.correctness import poison
from evaluators.draws import Draws, blamed
from evaluators.references import References
from evaluators.schema import Definition, Workload

RING = 8
"""Draws that one round of short calls is timed on, where the device has a ring."""


FRESH = 1000
"""Draws from here on are met once: nobody keeps what is right for them."""

SMALL = 1 << 20
"""Bytes; smaller inputs are proven untouched for every draw, since that takes next to no time."""

MENDED = 3
"""Times that spoiled base values are made again before the operator is to blame."""


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
    """`workloads`, and the operator's cases behind them: all are known by their index.

    `order` runs over all of them, cases first, each from cheap to expensive. Live memory belongs to
    whoever holds the device. Raises EvaluatorError when the operator does not make what its
    definition says.
    """

    def __init__(
        self,
        number: int,
        definition: Definition,
        operator: ModuleType,
        workloads: list[Workload],
        device: str,
        secret: bytes,
    ) -> None:
        if not workloads:
            raise EvaluatorError("an epoch needs at least one workload")
        self.number = number
        self.workloads = workloads
        self._definition = definition
        self._operator = operator
        self._device = device
        self._draws = Draws(secret, number, operator, definition, device)
        self.items = (*workloads, *self._draws.cases())
        scalars = [self._draws.scalars(w) for w in self.items]
        ring = 0 if device == "cpu" else RING
        self._plan = arena.plan(definition, [w.axes for w in self.items], scalars, ring)
        self._blocks: Blocks | None = None
        self._pattern: Any = None
        self._base_sums: dict[int, int] = {}
        self._steering_sums: dict[int, list[int]] = {}
        self._mending = threading.Lock()
        self._live_sums: dict[tuple[int, int], int] = {}
        self.right = References(operator, definition)
        self._fresh = itertools.count(FRESH)
        indices = range(len(self.items))
        self.order = sorted(indices, key=lambda i: (not self.is_case(i), self._bytes(i)))

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

    @property
    def on_cpu(self) -> bool:
        return self._device == "cpu"

    def is_case(self, item: int) -> bool:
        return item >= len(self.workloads)

    def label(self, item: int) -> str:
        """What an author may know of an item: its sizes, and the style of a case's values."""
        return self.items[item].label

    def fill(self, old: Blocks | None, copies: int, reserve: int = 0) -> None:
        """Lay out, and make the base inputs. Draws and references are made when first needed."""
        self.lay_out(old, copies, reserve)
        for item in range(len(self.items)):
            self._make_base(item)
        self.blocks.inputs.seal()
        self.release_cache()

    def lay_out(self, old: Blocks | None = None, copies: int = 1, reserve: int = 0) -> None:
        """Allocate the blocks: `old` is used again or freed; `copies` is how many output blocks,
        `reserve` the bytes of the first input block, so that later epochs find room in it."""
        import torch

        try:
            self._blocks = self._allocated(old, copies, reserve)
        except torch.cuda.OutOfMemoryError as error:
            first = str(error).partition(". ")[0]
            raise EvaluatorError(f"the epoch's inputs do not fit the device: {first}") from error
        noise = bytearray(os.urandom(arena.BAND + arena.ALIGNMENT))
        self._pattern = torch.frombuffer(noise, dtype=torch.uint8).to(self._device)

    def _allocated(self, old: Blocks | None, copies: int, reserve: int) -> Blocks:
        inputs, outputs = (old.inputs, old.outputs) if old else (None, [])
        device, plan = self._device, self._plan
        return Blocks(
            device,
            arena.allocate(device, plan.input_bytes, inputs, reserve),
            [
                arena.allocate(device, plan.output_bytes, outputs[i] if i < len(outputs) else None)
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

    # -- inputs --

    def draw(self, item: int, draw: int, ring: int = 0, *, watched: bool = True) -> None:
        """Write the values of a draw into live memory, or into slot `ring` of the ring.

        Where candidates could write inputs, a `watched` draw starts from base values that are
        proven untouched, and `unchanged` can tell afterwards whether the draw still is. Of any draw
        the small inputs and the tables are proven: spoiled ones would crash who did not do it.
        """
        call, watched = self.calls[item], watched and not self.on_cpu
        self._lay_base(item, ring, watched)
        inputs = {e.name: arena.view(self.blocks.inputs.tensor, e) for e in call.inputs(ring)}
        self._draws.vary(self.items[item], inputs, draw)
        if watched:
            self._live_sums[item, ring] = _sum(self._span(item, ring))

    def fresh(self) -> int:
        """The number of a draw that was never written before."""
        return next(self._fresh)

    def unchanged(self, item: int, ring: int = 0) -> bool:
        """Whether the last watched draw in this place is what it was. On the CPU it always is."""
        return self.on_cpu or _sum(self._span(item, ring)) == self._live_sums[item, ring]

    def follows(self, item: int, ring: int) -> bool:
        """Whether live memory still holds what was copied there from slot `ring`."""
        import torch

        one, other = (self._span(item, r).view(torch.int64) for r in (0, ring))
        return bool(torch.equal(one, other))

    # -- outputs --

    def poison(self, item: int, slot: int, ring: int = 0) -> None:
        """Overwrite the outputs, and the guard bands around them, before a call."""
        poison(self.outputs(item, slot, ring))
        block = self.blocks.outputs[slot].tensor
        for start, end in self.calls[item].bands(ring):
            block[start:end].copy_(self._pattern[: end - start])

    def trespass(self, item: int, slot: int, ring: int = 0) -> str:
        """'' when every guard band is as `poison` left it, else where it is not."""
        import torch

        block, call = self.blocks.outputs[slot].tensor, self.calls[item]
        names = [e.name for e in call.outputs]
        for place, (start, end) in enumerate(call.bands(ring)):
            if not torch.equal(block[start:end], self._pattern[: end - start]):
                if place == 0:
                    return f"before output {names[0]!r}"
                return f"behind output {names[place - 1]!r}"
        return ""

    def outputs(self, item: int, slot: int, ring: int = 0) -> tuple[Any, ...]:
        block = self.blocks.outputs[slot].tensor
        return tuple(arena.view(block, e) for e in self.calls[item].results(ring))

    # -- what is right --

    def know(self, item: int, draw: int, ring: int = 0) -> None:
        """Compute what is right for a watched draw that was just written, unless it is known."""
        if self.right.known(item, draw):
            return
        block, call = self.blocks.inputs.tensor, self.calls[item]
        values = [arena.view(block, entry) for entry in call.inputs(ring)]
        self.right.add(item, draw, values, call.outputs)
        if not self.unchanged(item, ring):
            raise EvaluatorError("the operator's reference modifies its inputs")
        self.release_cache()

    def cost(self, item: int) -> tuple[float, float]:
        """(flops, least bytes) of one call."""
        workload = self.items[item]
        with blamed("cost"):
            flops, least = self._operator.cost(
                self._definition.model_dump(mode="json"), workload.axes, workload.make
            )
        return float(flops), float(least)

    def wait(self) -> None:
        """Until the device has done what the judge asked of it."""
        self._on_cuda("synchronize")

    def release_cache(self) -> None:
        """Give back device memory that torch keeps for the judge."""
        self._on_cuda("empty_cache")

    def mend(self, item: int) -> bool:
        """Make base inputs again that somebody has modified. Returns whether they were."""
        if self.on_cpu:
            return False
        with self._mending:
            if _sum(self._base(item)) == self._base_sums[item]:
                return False
            self._make_base(item)
            return True

    def _lay_base(self, item: int, ring: int, watched: bool) -> None:
        """Copy base values to where a draw goes, again where they turn out to be spoiled."""
        live, base = self._span(item, ring), self._base(item)
        if self.on_cpu:
            live.copy_(base)
            return
        with self._mending:
            for _ in range(MENDED):
                live.copy_(base)
                if watched:
                    whole = _sum(live) == self._base_sums[item]
                else:
                    whole = self._steering(item, live) == self._steering_sums[item]
                if whole:
                    return
                self._make_base(item)
        raise EvaluatorError("make_inputs makes other values from the same generator")

    def _steering(self, item: int, span: Any) -> list[int]:
        """Checksums of the small inputs and the integer ones, which say where a kernel reads."""
        import torch

        call = self.calls[item]
        sums = []
        for entry in call.base:
            if entry.shape is None or not entry.nbytes:
                continue
            if entry.nbytes <= SMALL or entry.dtype in ("int32", "int64"):
                start = entry.offset - call.base_start
                end = start + -(-entry.nbytes // arena.ALIGNMENT) * arena.ALIGNMENT
                sums.append(span[start:end].view(torch.int64).sum())
        return torch.stack(sums).tolist() if sums else []

    def _make_base(self, item: int) -> None:
        made, call = self._draws.make(self.items[item]), self.calls[item]
        span = self._base(item)
        span.zero_()  # what lies between tensors too: the checksum covers it
        for entry in call.base:
            if entry.shape is None:
                continue
            value = made.pop(entry.name)
            if tuple(value.shape) != entry.shape or f"torch.{entry.dtype}" != str(value.dtype):
                raise EvaluatorError(
                    f"make_inputs made {entry.name} as {value.dtype}{tuple(value.shape)}, "
                    f"the definition says {entry.dtype}{entry.shape}"
                )
            arena.view(self.blocks.inputs.tensor, entry).copy_(value)
        if not self.on_cpu and item not in self._base_sums:
            self._base_sums[item] = _sum(span)
            self._steering_sums[item] = self._steering(item, span)

    def _base(self, item: int) -> Any:
        call = self.calls[item]
        return self.blocks.inputs.tensor[call.base_start : call.base_start + call.span]

    def _span(self, item: int, ring: int) -> Any:
        call = self.calls[item]
        start = call.live_start + ring * call.span
        return self.blocks.inputs.tensor[start : start + call.span]

    def _bytes(self, item: int) -> int:
        return self.calls[item].span + sum(e.nbytes for e in self.calls[item].outputs)

    def _on_cuda(self, name: str) -> None:
        if not self.on_cpu:
            import torch

            function: Callable[[], None] = getattr(torch.cuda, name)
            function()


def _sum(span: Any) -> int:
    """A checksum: the 8-byte words added with wrap-around."""
    import torch

    return int(span.view(torch.int64).sum())
