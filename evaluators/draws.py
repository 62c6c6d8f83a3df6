"""Input values: drawn by the judge from seeds that only it can derive.

Draw k of a workload is a function of the judge's secret, the epoch, the workload and k, so that the
judge can make it again; no candidate can, because no seed and no secret ever enters its process.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from evaluators.child import EvaluatorError
from evaluators.schema import Definition, ScalarInput, Workload

LARGE = 1 << 16
"""Elements from which an operator may be expected to vary a matrix by signs alone."""

EXCHANGED = 4096
"""Rows of a large matrix in which two elements are exchanged, at most."""


class Draws:
    """Makes the values of one epoch's workloads on `device`."""

    def __init__(
        self, secret: bytes, epoch: int, operator: ModuleType, definition: Definition, device: str
    ) -> None:
        self._secret = secret
        self._epoch = epoch
        self._operator = operator
        self._definition = definition
        self._document = definition.model_dump(mode="json")
        self._device = device

    def make(self, workload: Workload, name: int | str = "base") -> dict[str, Any]:
        """New input tensors and scalars by name. Raises EvaluatorError when one is missing."""
        with blamed("make_inputs"):
            made: dict[str, Any] = self._operator.make_inputs(
                self._document,
                workload.axes,
                workload.make,
                named_scalars(workload),
                self._generator(workload, name),
                self._device,
            )
        missing = [name for name in self._definition.inputs if name not in made]
        if missing:
            raise EvaluatorError(f"make_inputs does not make: {', '.join(missing)}")
        return made

    def vary(self, workload: Workload, inputs: dict[str, Any], draw: int) -> None:
        """Give `inputs`, which hold the base values, the values of `draw`, in place."""
        vary = getattr(self._operator, "vary", None)
        if vary is None:
            for name, value in self.make(workload, draw).items():
                if name in inputs and hasattr(inputs[name], "copy_"):
                    inputs[name].copy_(value)
            return
        generator = self._generator(workload, draw)
        with blamed("vary"):
            vary(self._document, workload.axes, workload.make, inputs, generator)
            _exchange(inputs, generator)

    def cases(self) -> tuple[Workload, ...]:
        """The operator's own correctness-only workloads."""
        listed = getattr(self._operator, "cases", None)
        if listed is None:
            return ()
        with blamed("cases"):
            return tuple(
                Workload(uuid=f"case-{number}", axes=axes, make=make, source="case")
                for number, (axes, make) in enumerate(listed(self._document))
            )

    def scalars(self, workload: Workload) -> dict[str, Any]:
        """Scalar inputs by name: those that the workload names, else what the operator makes."""
        named = [name for name, spec in self._definition.inputs.items() if spec.shape is None]
        row = named_scalars(workload)
        if not set(named) <= set(row):
            made = self.make(workload)
            row = {name: row.get(name, made[name]) for name in named}
        return row

    def _generator(self, workload: Workload, name: int | str) -> Any:
        import torch

        text = f"{self._epoch}/{workload.uuid}/{name}".encode()
        seed = int.from_bytes(hmac.digest(self._secret, text, hashlib.sha256)[:8]) >> 1
        return torch.Generator(self._device).manual_seed(seed)


def _exchange(inputs: dict[str, Any], generator: Any) -> None:
    """Exchange two elements, at places that nobody can guess, in rows of large matrices.

    Draws that differ in signs of rows and columns are one matrix: a kernel that keeps it packed
    needs to look at one row and one column of the next draw to know the rest. Now it is wrong.
    Rows keep what they hold, so that the style of a case's values stays as it is.
    """
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for tensor in inputs.values():
        if not torch.is_tensor(tensor) or not tensor.is_floating_point():
            continue
        if tensor.dim() not in (2, 3) or tensor.numel() < LARGE:
            continue
        bits = tensor.view(integers[tensor.element_size()]).flatten(0, -2)
        rows, width = bits.shape
        count = min(rows, EXCHANGED)
        step = rows // count
        start, one, other = (
            torch.randint(most, (number,), generator=generator, device=bits.device)
            for most, number in ((step, 1), (width, count), (width, count))
        )
        row = start + step * torch.arange(count, device=bits.device)  # no row twice
        first, second = bits[row, one], bits[row, other]
        bits[row, one], bits[row, other] = second, first


def named_scalars(workload: Workload) -> dict[str, Any]:
    """Scalars that the workload itself fixes."""
    return {k: v.value for k, v in workload.inputs.items() if isinstance(v, ScalarInput)}


@contextmanager
def blamed(function: str) -> Iterator[None]:
    """What an operator's function raises, a lack of memory included, is the evaluator's error."""
    try:
        yield
    except Exception as error:
        raise EvaluatorError(f"the operator's {function} fails: {error}") from error
