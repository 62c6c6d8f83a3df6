# style: triton.jit called on a plain function, heuristics, a launch plan with class methods
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: PASSED
# ruff: noqa: PT018
import math

import torch
import triton
import triton.language as tl

SLOPE: tl.constexpr = tl.constexpr(1.5957691216)
TYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def _gelu(y):
    return y * tl.sigmoid(SLOPE * (y + 0.044715 * y * y * y))


gelu = triton.jit(_gelu)


@triton.heuristics({"WHOLE": lambda args: args["M"] % args["BLOCK_M"] == 0})
@triton.jit
def linear_gelu(
    x,
    weight,
    bias,
    output,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    OUT: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row[:, None] < M
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        depth = k + tl.arange(0, BLOCK_K)
        at = x + row[:, None] * K + depth[None, :]
        if WHOLE:
            a = tl.load(at)
        else:
            a = tl.load(at, mask=inside, other=0.0)
        b = tl.load(weight + col[None, :] * K + depth[:, None])
        acc = tl.dot(a, b, acc)
    y = gelu(acc + tl.load(bias + col).to(tl.float32)[None, :])
    tl.store(output + row[:, None] * N + col[None, :], y.to(OUT), mask=inside)


class Plan:
    """Block sizes for a number of rows."""

    def __init__(self, rows, columns, block):
        self.block = block
        self.scale = 1 << max(4, math.ceil(math.log2(rows))).bit_length()
        self.grid = (triton.cdiv(rows, block), triton.cdiv(columns, 64))

    @classmethod
    def of(cls, x, weight):
        rows, columns = x.shape[0], weight.shape[0]
        block = min(64, max(16, triton.next_power_of_2(rows)))
        assert x.stride(1) == 1 and weight.is_contiguous(), f"{x.stride()} {weight.stride()}"
        return cls(rows, columns, block)

    def launch(self, tensors, out):
        x, weight, bias = tensors
        sizes = {"M": x.shape[0], "N": weight.shape[0], "K": x.shape[1]}
        blocks = {"BLOCK_M": self.block, "BLOCK_N": 64, "BLOCK_K": 64}
        linear_gelu[self.grid](x, weight, bias, out, **sizes, **blocks, OUT=TYPES[out.dtype])


def run(x, weight, bias, output):
    lowest = torch.finfo(output.dtype).min
    if not lowest < 0 or type(x.shape[0]) is not int:
        raise TypeError(f"{output.dtype} is no output type")
    plan = Plan.of(x, weight)
    plan.launch((x, weight, bias), output)
