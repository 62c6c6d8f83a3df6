# trick: a workspace that is added to before it is zeroed, in Triton
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INCORRECT_NUMERICAL or NONDETERMINISTIC
# caught by: correctness
# ruff: noqa
import torch
import triton
import triton.language as tl


@triton.jit
def partial_sums(
    x,
    weight,
    partial,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(tl.program_id(2) * BLOCK_K, K, BLOCK_K * SPLIT):
        depth = k + tl.arange(0, BLOCK_K)
        a = tl.load(x + row[:, None] * K + depth[None, :], mask=row[:, None] < M, other=0.0)
        b = tl.load(weight + col[None, :] * K + depth[:, None])
        acc = tl.dot(a, b, acc)
    tl.atomic_add(partial + row[:, None] * N + col[None, :], acc, mask=row[:, None] < M)


@triton.jit
def finish(partial, bias, output, N: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * N + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y = tl.load(partial + at) + tl.load(bias + at % N).to(tl.float32)
    y = y * tl.sigmoid(1.5957691216 * (y + 0.044715 * y * y * y))
    tl.store(output + at, y.to(output.dtype.element_ty))


def run(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    partial = torch.empty((m, n), dtype=torch.float32, device=x.device)
    partial_sums[(triton.cdiv(m, 16), n // 64, 4)](x, weight, partial, m, n, k, 4, 16, 64, 64)
    finish[(m, n // 256)](partial, bias, output, n, 256)
