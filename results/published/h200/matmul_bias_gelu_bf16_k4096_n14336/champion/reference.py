"""matmul_bias_gelu: `output[M, N] = gelu_tanh(x[M, K] @ weight[N, K]^T + bias[N])`.

The plain PyTorch reference, the inputs of a workload, its cost and the tolerances. Standalone.
"""

from __future__ import annotations

from typing import Any

import torch

TOLERANCES: dict[str, tuple[float, float]] = {
    # bfloat16 keeps 8 bits: in [4, 8) one step is 0.031, and the outputs' RMS is about 0.7, so that
    # one step at the largest outputs is 0.045 of the RMS. A kernel may differ by that one step.
    "bfloat16": (0.06, 0.0),
    "float32": (2e-5, 0.0),
}


def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Reference: x [M, K], weight [N, K], bias [N] -> [M, N] in x's dtype, computed wider."""
    wide = torch.float64 if x.dtype == torch.float32 else torch.float32
    linear = x.to(wide) @ weight.to(wide).T + bias.to(wide)
    return torch.nn.functional.gelu(linear, approximate="tanh").to(x.dtype)


def axes_of(
    definition: dict[str, Any], sample: dict[str, Any]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Axes and `make` of a workload from the sampled `num_tokens`."""
    tokens = int(sample.get("trace_axes", sample)["num_tokens"])
    return {"num_tokens": tokens}, {"label": f"tokens={tokens}"}


def make_inputs(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    scalars: dict[str, Any],
    generator: torch.Generator,
    device: torch.device | str,
) -> dict[str, torch.Tensor]:
    """Inputs on `device`: the linear layer's result has unit variance before the bias."""
    m, k, n = axes["num_tokens"], *_features(definition)
    dtype = getattr(torch, definition["inputs"]["x"]["dtype"])

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(*shape, generator=generator, device=generator.device)
        return values.mul_(scale).to(device=device, dtype=dtype)

    return {"x": normal(m, k), "weight": normal(n, k, scale=k**-0.5), "bias": normal(n, scale=0.5)}


def cost(
    definition: dict[str, Any], axes: dict[str, int], make: dict[str, Any]
) -> tuple[float, float]:
    """(flops, least bytes): multiply-adds of the matmul; x, weight, bias read and output written once."""
    m, k, n = axes["num_tokens"], *_features(definition)
    itemsize = getattr(torch, definition["inputs"]["x"]["dtype"]).itemsize
    return 2.0 * m * n * k, float(itemsize * (m * k + n * k + n + m * n))


def _features(definition: dict[str, Any]) -> tuple[int, int]:
    axes = definition["axes"]
    return axes["k"]["value"], axes["n"]["value"]
