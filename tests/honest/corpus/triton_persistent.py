# style: persistent blocks that call another jitted function
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: PASSED
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
    for tile in range(tl.program_id(0), tl.cdiv(M, BLOCK_M) * (N // BLOCK_N), tl.num_programs(0)):
        one_tile(x, weight, bias, output, tile, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K)


@triton.jit
def one_tile(
    x,
    weight,
    bias,
    output,
    tile,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tile // (N // BLOCK_N) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tile % (N // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        depth = k + tl.arange(0, BLOCK_K)
        a = tl.load(x + row[:, None] * K + depth[None, :], mask=row[:, None] < M, other=0.0)
        b = tl.load(weight + col[None, :] * K + depth[:, None])
        acc = tl.dot(a, b, acc)
    y = acc + tl.load(bias + col).to(tl.float32)[None, :]
    y = y * tl.sigmoid(1.5957691216 * (y + 0.044715 * y * y * y))
    tl.store(output + row[:, None] * N + col[None, :], y.to(tl.bfloat16), mask=row[:, None] < M)


def run(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    tiles = triton.cdiv(m, 64) * (n // 64)
    blocks = min(tiles, torch.cuda.get_device_properties(x.device).multi_processor_count)
    linear_gelu[(blocks,)](x, weight, bias, output, m, n, k, 64, 64, 64)
