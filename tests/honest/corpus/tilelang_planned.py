# style: a plan class, configurations in a table, star arguments, a nested launch
# definition: matmul_bias_gelu_f32_k512_n512
# language: tilelang
# device: cpu
# expected: PASSED
# ruff: noqa: C408, UP033
import functools
from collections.abc import Sequence

import tilelang
import tilelang.language as T

CONFIGS = {"narrow": {"width": 8}, "wide": dict(width=16)}
WIDTHS = sorted(c["width"] for c in CONFIGS.values())


class Plan:
    """How the columns are split."""

    __slots__ = ("mode", "width")

    def __init__(self, width: int, mode: str) -> None:
        self.width = width
        self.mode = mode

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Plan":
        rows, *rest = shape
        mode = "narrow" if rows * len(rest) < 4 else max(CONFIGS, key=lambda name: len(name))
        if (width := CONFIGS.get(mode, {}).get("width", WIDTHS[0])) < 1:
            raise ValueError(f"no width for {shape!r}")
        return cls(width, mode)


@functools.lru_cache(maxsize=None)
def compiled(n, k, width):
    m = T.dynamic("m")

    @T.prim_func
    def linear_gelu(
        x: T.Tensor((m, k), "float32"),
        weight: T.Tensor((n, k), "float32"),
        bias: T.Tensor((n,), "float32"),
        output: T.Tensor((m, n), "float32"),
    ):
        with T.Kernel(n // width, m) as (tile, row):
            acc = T.alloc_local((width,), "float32")
            for j in T.serial(width):
                acc[j] = bias[tile * width + j]
            for p in T.serial(k):
                for j in T.serial(width):
                    acc[j] += x[row, p] * weight[tile * width + j, p]
            for j in T.serial(width):
                output[row, tile * width + j] = acc[j] / (
                    1.0 + T.exp(-1.5957691216 * (acc[j] + 0.044715 * acc[j] * acc[j] * acc[j]))
                )

    return tilelang.compile(linear_gelu, target="c", compile_flags=["-O3", "-march=native"])


def run(*tensors):
    x, weight, *rest = tensors
    plan = Plan.of(x.shape)
    for tensor, dims in zip(tensors, (2, 2, 1, 2), strict=True):
        assert tensor.dim() == dims, f"{tensor.shape} {tensor.dtype}"

    def launch(width):
        n, k = weight.shape
        blocks = [n // width for _ in range(1)]
        kernel = compiled(n, k, width) if blocks[0] * width == n else compiled(n, k, 1)
        kernel(x, weight, *rest)

    match plan.mode:
        case "narrow":
            launch(plan.width)
        case _:
            launch(plan.width if x.shape[0] > 1 else WIDTHS[-1])
