"""What every operator in `kernels/` promises, on its default definitions and all their cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evaluators import catalog, correctness
from evaluators.schema import Definition

DEFAULTS = [
    (name, definition)
    for name in catalog.list_operators()
    for definition in sorted(set(catalog.load_operator(name).defaults.values()))
]
SMALL_BYTES = 1 << 28


@pytest.fixture(params=DEFAULTS, ids=lambda d: d[1], scope="module")
def known(request: pytest.FixtureRequest) -> tuple[Any, Definition]:
    """(operator.py, definition)"""
    operator = catalog.load_operator(request.param[0])
    return catalog.load_module(operator), operator.definitions[request.param[1]]


def drawn(module: Any, definition: Definition, case: Any, draw: int = 0) -> dict[str, Any]:
    """Inputs of a case, by name; `draw` 0 are those of `make_inputs`."""
    axes, make = case
    spec = definition.model_dump(mode="json")
    generator = torch.Generator().manual_seed(1)
    inputs: dict[str, Any] = module.make_inputs(spec, axes, make, {}, generator, "cpu")
    if draw:
        module.vary(spec, axes, make, inputs, torch.Generator().manual_seed(draw))
    return inputs


def outputs(function: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    found = function(*inputs.values())
    return found if isinstance(found, tuple) else (found,)


def test_cases_cover_the_styles_and_are_small(known: tuple[Any, Definition]) -> None:
    module, definition = known
    cases = module.cases(definition.model_dump(mode="json"))
    assert {make.get("values") for _, make in cases} == {"normal", "large", "zeros", "negative"}
    labels = [make["label"] for _, make in cases]
    assert len(set(labels)) == len(labels)
    for axes, make in cases:
        flops, least = module.cost(definition.model_dump(mode="json"), axes, make)
        assert least < SMALL_BYTES
        assert flops > 0


def test_outputs_have_the_shapes_and_dtypes_promised(known: tuple[Any, Definition]) -> None:
    module, definition = known
    case = module.cases(definition.model_dump(mode="json"))[0]
    inputs = drawn(module, definition, case)
    assert list(inputs) == list(definition.inputs)
    before = {k: v.clone() for k, v in inputs.items() if isinstance(v, torch.Tensor)}
    rounded, honest, exact = (outputs(f, inputs) for f in (module.run, module.honest, module.exact))
    for i, spec in enumerate(definition.outputs.values()):
        shape = definition.shape_of(spec, case[0])
        assert {tuple(o[i].shape) for o in (rounded, honest, exact)} == {shape}
        assert rounded[i].dtype == honest[i].dtype == getattr(torch, spec.dtype)
        assert torch.equal(rounded[i], exact[i].to(rounded[i].dtype))
        if spec.dtype.startswith(("float", "bfloat")):
            assert exact[i].dtype in (torch.float32, torch.float64)
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_honest_is_right_and_zeros_are_wrong_in_every_draw(known: tuple[Any, Definition]) -> None:
    module, definition = known
    spec, allowance = definition.model_dump(mode="json"), getattr(module, "ALLOWANCE", {})
    for axes, make in module.cases(spec):
        inputs, budget = drawn(module, definition, (axes, make)), None
        for draw in (1, 2):
            exact, honest = outputs(module.exact, inputs), outputs(module.honest, inputs)
            budget = budget or correctness.budget_of(exact, honest, definition, allowance)
            found = correctness.compare(honest, exact, budget, definition)
            assert found.fault == "", make["label"]
            assert found.budget_used < 0.6
            zeros = tuple(torch.zeros_like(o) for o in honest)
            assert correctness.compare(zeros, exact, budget, definition).fault, make["label"]
            module.vary(spec, axes, make, inputs, torch.Generator().manual_seed(draw))


def test_yesterdays_outputs_are_wrong_for_the_next_draw(known: tuple[Any, Definition]) -> None:
    module, definition = known
    for case in module.cases(definition.model_dump(mode="json"))[:2]:
        first, second = (drawn(module, definition, case, draw) for draw in (1, 2))
        exact, stale = outputs(module.exact, second), outputs(module.honest, first)
        budget = correctness.budget_of(exact, outputs(module.honest, second), definition, {})
        assert correctness.compare(stale, exact, budget, definition).fault, case[1]["label"]
