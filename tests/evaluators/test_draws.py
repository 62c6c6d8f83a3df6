"""Draws: values that the judge can make again and nobody else can."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from evaluators import catalog
from evaluators.catalog import Operator
from evaluators.child import EvaluatorError
from evaluators.draws import Draws
from evaluators.epoch import Epoch
from tests.evaluators.bench import DEFINITION, OPERATOR, WORKLOADS, operator_folder


def loaded(root: Path, text: str = OPERATOR) -> ModuleType:
    folder = operator_folder(root, text)
    return catalog.load_module(Operator(folder.name, folder, {DEFINITION.name: DEFINITION}))


def draws(module: ModuleType, secret: bytes = b"one", epoch: int = 3) -> Draws:
    return Draws(secret, epoch, module, DEFINITION, "cpu")


def varied(made: Draws, draw: int) -> torch.Tensor:
    inputs = made.make(WORKLOADS[0])
    made.vary(WORKLOADS[0], inputs, draw)
    return inputs["x"]


def test_values_depend_on_secret_epoch_workload_and_draw_alone(tmp_path: Path) -> None:
    module = loaded(tmp_path)
    made = draws(module)
    first = varied(made, 0)
    assert torch.equal(first, varied(draws(module), 0))
    others = [
        varied(made, 1),
        varied(draws(module, b"two"), 0),
        varied(draws(module, epoch=4), 0),
        made.make(WORKLOADS[0])["x"],
        made.make(WORKLOADS[1])["x"][:1000],
    ]
    for other in others:
        assert not torch.isclose(first, other).any()


def test_an_operators_own_vary_gets_base_values_and_a_generator(tmp_path: Path) -> None:
    text = (
        OPERATOR
        + """

def vary(definition, axes, make, inputs, generator):
    signs = torch.randint(0, 2, inputs["x"].shape, generator=generator) * 2 - 1
    inputs["x"].mul_(signs)
"""
    )
    made = draws(loaded(tmp_path, text))
    base = made.make(WORKLOADS[0])["x"]
    assert torch.equal(varied(made, 5).abs(), base.abs())
    assert not torch.equal(varied(made, 5), base)
    assert not torch.equal(varied(made, 5), varied(made, 6))


def test_what_an_operator_does_wrong_is_the_evaluators_error(tmp_path: Path) -> None:
    broken = loaded(tmp_path / "a", OPERATOR.replace('{"x": x, ', "{"))
    with pytest.raises(EvaluatorError, match="does not make: x"):
        draws(broken).make(WORKLOADS[0])
    failing = loaded(tmp_path / "b", OPERATOR + "\ndef vary(*arguments):\n    raise KeyError(7)\n")
    with pytest.raises(EvaluatorError, match="vary fails: 7"):
        varied(draws(failing), 0)


def test_live_memory_holds_the_draw_and_base_memory_stays(tmp_path: Path) -> None:
    epoch = Epoch(3, DEFINITION, loaded(tmp_path), list(WORKLOADS), "cpu", b"one")
    epoch.fill(None, 2)
    try:
        block, call = epoch.blocks.inputs.tensor, epoch.calls[1]
        base = block[call.base_start : call.base_start + call.span].clone()
        x = block[call.live[0].offset :][: call.live[0].nbytes].view(torch.float32)
        epoch.draw(1, 0)
        first = x.clone()
        epoch.draw(1, 1)
        assert not torch.equal(first, x)
        epoch.draw(1, 0)
        assert torch.equal(first, x)
        assert torch.equal(base, block[call.base_start : call.base_start + call.span])
        epoch.know(1, 0)
        right = epoch.outputs(1, 0)
        right[0].copy_(2 * x)
        assert epoch.right.compare(1, 0, right).fault == ""
        right[0][-1] += 1
        assert "output 'y'" in epoch.right.compare(1, 0, right).fault
    finally:
        epoch.blocks.close()


def test_guard_bands_surround_every_output(tmp_path: Path) -> None:
    epoch = Epoch(3, DEFINITION, loaded(tmp_path), list(WORKLOADS), "cpu", b"one")
    epoch.fill(None, 1)
    try:
        (entry,) = epoch.calls[0].outputs
        block = epoch.blocks.outputs[0].tensor
        for place, where in ((entry.offset - 1, "before"), (entry.offset + entry.nbytes, "behind")):
            epoch.poison(0, 0)
            assert torch.isnan(epoch.outputs(0, 0)[0]).all()
            epoch.outputs(0, 0)[0].fill_(1)
            assert epoch.trespass(0, 0) == ""
            block[place] ^= 1
            assert epoch.trespass(0, 0) == f"{where} output 'y'"
    finally:
        epoch.blocks.close()


class Writable(Epoch):
    """Inputs on the CPU that are treated as on an accelerator, where candidates can write them."""

    on_cpu = property(lambda self: False)  # type: ignore[assignment]

    def _on_cuda(self, name: str) -> None:
        """There is no accelerator to wait for."""


@pytest.mark.parametrize("watched", [True, False])
def test_no_draw_starts_from_spoiled_inputs(tmp_path: Path, watched: bool) -> None:
    epoch = Writable(3, DEFINITION, loaded(tmp_path), list(WORKLOADS), "cpu", b"one")
    epoch.fill(None, 1)
    try:
        block, call = epoch.blocks.inputs.tensor, epoch.calls[0]
        base = block[call.base_start : call.base_start + call.span]
        right = base.clone()
        base[4:8] ^= 1
        epoch.draw(0, 0, watched=watched)
        assert torch.equal(base, right)
        assert not epoch.mend(0)
        base[4:8] ^= 1
        assert epoch.mend(0)
        assert torch.equal(base, right)
    finally:
        epoch.blocks.close()
