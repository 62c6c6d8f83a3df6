"""What is right: exact outputs of draws, and how far honest rounding may be from them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from evaluators.arena import Entry
from evaluators.child import EvaluatorError
from evaluators.correctness import Budget, Comparison, agree, apart, budget_of, compare
from evaluators.draws import blamed
from evaluators.schema import Definition

Outputs = tuple[Any, ...]
"""Output tensors in the definition's order."""

_WIDE = {"torch.float32", "torch.float64"}
WIDER = {
    "float64": {"torch.float64"},
    "float32": _WIDE,
    "float16": _WIDE,
    "bfloat16": _WIDE,
    "float8_e4m3fn": _WIDE,
    "float8_e5m2": _WIDE,
}
"""Dtypes in which `exact` may return a float output."""


class References:
    """Exact outputs by item and draw. An item's budget comes from its first draw, for all of them.

    Raises EvaluatorError when the operator does not compute what its definition says.
    """

    def __init__(self, operator: ModuleType, definition: Definition) -> None:
        self._operator = operator
        self._definition = definition
        self._exact: dict[tuple[int, int], Outputs] = {}
        self._budgets: dict[int, Budget] = {}

    def known(self, item: int, draw: int) -> bool:
        return (item, draw) in self._exact

    def add(self, item: int, draw: int, inputs: list[Any], outputs: tuple[Entry, ...]) -> None:
        """Compute what is right for `inputs`, which hold the draw; `outputs` say its shapes."""
        import torch

        with torch.no_grad():
            exact = self._computed("exact", inputs, outputs)
            if item not in self._budgets:
                honest = self._computed("honest", inputs, outputs)
                allowance = getattr(self._operator, "ALLOWANCE", {})
                with blamed("honest"):
                    budget = budget_of(exact, honest, self._definition, allowance)
                self._budgets[item] = budget
        self._exact[item, draw] = exact

    def drop(self, item: int, draw: int) -> None:
        self._exact.pop((item, draw), None)

    def compare(
        self, item: int, draw: int, outputs: Outputs, skips: tuple[str, ...] = ()
    ) -> Comparison:
        """Judge outputs of a known draw; `skips` names outputs that are not judged."""
        exact, budget = self._exact[item, draw], self._budgets[item]
        return compare(outputs, exact, budget, self._definition, skips)

    def agree(self, item: int, one: Outputs, other: Outputs, skips: tuple[str, ...] = ()) -> str:
        """'' when outputs of two calls on equal inputs agree, else how they differ."""
        return agree(one, other, self._budgets[item], self._definition, skips)

    def apart(self, item: int) -> dict[str, tuple[float, float]]:
        """How far two right outputs of any draw may be from each other, by name."""
        return apart(self._budgets[item], self._definition)

    def _computed(self, function: str, inputs: list[Any], entries: tuple[Entry, ...]) -> Outputs:
        """Outputs of the operator's `exact` or `honest`, checked against the definition."""
        with blamed(function):
            found = getattr(self._operator, function)(*inputs)
        values = found if isinstance(found, tuple | list) else (found,)
        if len(values) != len(entries):
            raise EvaluatorError(f"{function} returned {len(values)} of {len(entries)} outputs")
        for entry, value in zip(entries, values, strict=True):
            wide = function == "exact" and entry.dtype in WIDER
            allowed = WIDER[entry.dtype] if wide else {f"torch.{entry.dtype}"}
            if tuple(value.shape) != entry.shape or str(value.dtype) not in allowed:
                raise EvaluatorError(
                    f"{function} returned {entry.name} as {value.dtype}{tuple(value.shape)}, "
                    f"the definition says {entry.dtype}{entry.shape}"
                )
        return tuple(value.detach() for value in values)
