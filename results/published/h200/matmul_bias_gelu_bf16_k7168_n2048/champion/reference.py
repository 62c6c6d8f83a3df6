"""matmul_bias_gelu: `output[M, N] = gelu_tanh(x[M, K] @ weight[N, K]^T + bias[N])`.

The exact result and an honest one, the inputs of a workload, its cost. Standalone.
"""

from __future__ import annotations

from typing import Any

import torch

SIZES = {"normal": 1.0, "large": 256.0, "zeros": 0.0}
"""`make["values"]` -> what x is multiplied by. A fourth style, "negative", has no positive input."""


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x [M, K], weight [N, K], bias [N] -> [M, N], float64 for float32 inputs, else float32."""
    return _linear_gelu(
        x, weight, bias, torch.float64 if x.dtype == torch.float32 else torch.float32
    )


def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The exact result [M, N] rounded to x's dtype."""
    return exact(x, weight, bias).to(x.dtype)


def honest(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """As a good kernel computes: operands as given, float32 sums and activation, rounded once."""
    return _linear_gelu(x, weight, bias, torch.float32).to(x.dtype)


def _linear_gelu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, wide: torch.dtype
) -> torch.Tensor:
    linear = (x.to(wide) @ weight.to(wide).T).add_(bias.to(wide))
    return torch.nn.functional.gelu(linear, approximate="tanh")


def axes_of(
    definition: dict[str, Any], sample: dict[str, Any]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Axes and `make` of a workload from the sampled `num_tokens`."""
    tokens = int(sample.get("trace_axes", sample)["num_tokens"])
    return {"num_tokens": tokens}, {"label": f"tokens={tokens}"}


def cases(definition: dict[str, Any]) -> list[tuple[dict[str, int], dict[str, Any]]]:
    """Token counts at the edges of tiles, and unusual values."""
    rows = [(1, "normal"), (16, "zeros"), (17, "large"), (64, "negative"), (129, "normal")]
    return [
        ({"num_tokens": tokens}, {"label": f"tokens={tokens}, {style} values", "values": style})
        for tokens, style in rows
    ]


def make_inputs(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    scalars: dict[str, Any],
    generator: torch.Generator,
    device: torch.device | str,
) -> dict[str, torch.Tensor]:
    """Inputs on `device`: the linear layer's result has unit variance before the bias, or a `values` style."""
    m, k, n = axes["num_tokens"], *_features(definition)
    dtype = getattr(torch, definition["inputs"]["x"]["dtype"])

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(*shape, generator=generator, device=generator.device)
        return values.mul_(scale).to(device=device, dtype=dtype)

    inputs = {
        "x": normal(m, k),
        "weight": normal(n, k, scale=k**-0.5),
        "bias": normal(n, scale=0.5),
    }
    return _styled(inputs, make)


def vary(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    inputs: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> None:
    """New values in place: x and bias drawn anew, weight with random signs per row and column."""
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    generator = _on(generator, x.device)
    x.normal_(generator=generator)
    bias.normal_(0.0, 0.5, generator=generator)
    if make.get("values") == "negative":  # signs would change nothing
        weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
    else:
        _flip_signs(weight, generator)
    _styled(inputs, make)


def _styled(inputs: dict[str, torch.Tensor], make: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Normal inputs turned in place into those of the style that `make` names."""
    style = make.get("values", "normal")
    if style == "negative":
        for tensor in inputs.values():
            tensor.abs_().neg_()
    else:
        inputs["x"].mul_(SIZES[style])
    return inputs


def _flip_signs(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Random signs per row and per column, in place. Flips bits of 8-byte words: a product of
    narrow floats with a row of signs reaches a fraction of a device's bandwidth."""
    dtype = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    rows, columns = (
        torch.randint(2, (n, 1), generator=generator, device=weight.device, dtype=dtype).mul_(
            torch.iinfo(dtype).min
        )
        for n in weight.shape
    )
    words = weight.view(torch.int64)
    words.bitwise_xor_(rows.repeat(1, 8 // weight.element_size()).view(torch.int64))
    words.bitwise_xor_(columns.flatten().view(torch.int64))


def _on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """`generator`, or one on `device` seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


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
