"""bf16 linear + bias + tanh-GELU for many tokens: one output tile per block, or persistent blocks.

Tiles of the output are taken in groups of GROUP_M row tiles, so that blocks running together share
weight and activation tiles in L2. Operands come by TMA (tensor descriptors) or by plain pointers;
with TMA the loop can be warp-specialised: one warp group copies, two multiply half a tile each.
"""

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

BLOCK_M = 128  # tune: 64 128 256
BLOCK_N = 256  # tune: 64 128 256
BLOCK_K = 64  # tune: 32 64 128
GROUP_M = 8  # tune: 1 2 4 8 16 32
NUM_STAGES = 3  # tune: 2 3 4 5 6
NUM_WARPS = 8  # tune: 4 8 16
USE_TMA = 1  # tune: 0 1
PERSISTENT = 0  # tune: 0 1
CTAS_PER_SM = 1  # tune: 1 2
WARP_SPECIALIZE = 0  # 1 deadlocks with Triton 3.6 and persistent tiles: not searched


@triton.jit
def gelu_tanh(y):
    # 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u)), u = sqrt(2 / pi) * (y + 0.044715 * y^3)
    minus_2u_log2e = -2.302208198 * (y + 0.044715 * y * y * y)
    return y / (1.0 + tl.exp2(minus_2u_log2e))


@triton.jit
def tile_of(
    index, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr
):
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n: tl.constexpr = N // BLOCK_N
    group = index // (GROUP_M * tiles_n)
    rows = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    within = index % (GROUP_M * tiles_n)
    return (group * GROUP_M + within % rows) * BLOCK_M, (within // rows) * BLOCK_N


@triton.jit(do_not_specialize=["M"])
def tiled_kernel(
    x,  # pointer, or tensor descriptor with blocks [BLOCK_M, BLOCK_K]
    weight,  # pointer, or tensor descriptor with blocks [BLOCK_N, BLOCK_K]
    bias_ptr,
    output_ptr,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    USE_TMA: tl.constexpr,
    PERSISTENT: tl.constexpr,
    WARP_SPECIALIZE: tl.constexpr,
):
    tiles = tl.cdiv(M, BLOCK_M) * (N // BLOCK_N)
    step = tl.num_programs(0) if PERSISTENT else tiles
    for tile in tl.range(tl.program_id(0), tiles, step, warp_specialize=WARP_SPECIALIZE):
        first_m, first_n = tile_of(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        rows = first_m + tl.arange(0, BLOCK_M)
        cols = first_n + tl.arange(0, BLOCK_N)
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for k in tl.range(0, K, BLOCK_K):
            if USE_TMA:  # rows beyond M read as zero
                a = x.load([first_m, k])
                b = weight.load([first_n, k])
            else:
                ks = k + tl.arange(0, BLOCK_K)
                a = tl.load(x + (rows % M).to(tl.int64)[:, None] * K + ks[None, :])
                b = tl.load(weight + cols.to(tl.int64)[:, None] * K + ks[None, :])
            acc = tl.dot(a, tl.trans(b), acc)
        y = gelu_tanh(acc + tl.load(bias_ptr + cols).to(tl.float32)[None, :])
        out_ptrs = output_ptr + rows.to(tl.int64)[:, None] * N + cols[None, :]
        tl.store(out_ptrs, y.to(output_ptr.dtype.element_ty), mask=rows[:, None] < M)


@functools.cache
def sm_count(device):
    return torch.cuda.get_device_properties(device).multi_processor_count


def depth_that_fits(rows, block_k, stages):
    """(block_k, stages), lowered until shared memory holds them: 227 KB, one kept for barriers."""
    while block_k > 64 and 2 * rows * block_k * 2 > 226 * 1024:
        block_k //= 2
    return block_k, max(1, min(stages, 226 * 1024 // (rows * block_k * 2)))


def run(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    block_k, stages = depth_that_fits(BLOCK_M + BLOCK_N, BLOCK_K, NUM_STAGES)
    tiles = triton.cdiv(m, BLOCK_M) * (n // BLOCK_N)
    grid = min(tiles, sm_count(output.device) * CTAS_PER_SM) if PERSISTENT else tiles
    specialize = bool(USE_TMA and WARP_SPECIALIZE)
    if USE_TMA:
        x = TensorDescriptor(x, [m, k], [k, 1], [BLOCK_M, block_k])
        weight = TensorDescriptor(weight, [n, k], [k, 1], [BLOCK_N, block_k])
    tiled_kernel[(grid,)](
        x,
        weight,
        bias,
        output,
        m,
        N=n,
        K=k,
        BLOCK_M=BLOCK_M,
        BLOCK_N=BLOCK_N,
        BLOCK_K=block_k,
        GROUP_M=GROUP_M,
        USE_TMA=USE_TMA,
        PERSISTENT=PERSISTENT,
        WARP_SPECIALIZE=specialize,
        num_warps=4 if specialize else NUM_WARPS,
        num_stages=stages,
    )
