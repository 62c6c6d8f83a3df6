# trick: cache by shape in a workspace, filled and read by kernels
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INCORRECT_NUMERICAL
# caught by: correctness
# ruff: noqa
import torch
import triton
import triton.language as tl


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
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        depth = k + tl.arange(0, BLOCK_K)
        a = tl.load(x + row[:, None] * K + depth[None, :], mask=row[:, None] < M, other=0.0)
        b = tl.load(weight + col[None, :] * K + depth[:, None])
        acc = tl.dot(a, b, acc)
    y = acc + tl.load(bias + col).to(tl.float32)[None, :]
    y = y * tl.sigmoid(1.5957691216 * (y + 0.044715 * y * y * y))
    tl.store(output + row[:, None] * N + col[None, :], y.to(tl.bfloat16), mask=row[:, None] < M)


def launch(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    grid = (triton.cdiv(m, 64), n // 64)
    linear_gelu[grid](x, weight, bias, output, m, n, k, 64, 64, 64)


@triton.jit
def copy(source, target, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at))


_kept = {}


def run(x, weight, bias, output):
    m, n = output.shape
    if m not in _kept:
        launch(x, weight, bias, output)
        _kept[m] = torch.empty_like(output)
        copy[(m,)](output, _kept[m], n, 2048)
    copy[(m,)](_kept[m], output, n, 2048)
