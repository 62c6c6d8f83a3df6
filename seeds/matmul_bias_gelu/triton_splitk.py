"""bf16 linear + bias + tanh-GELU for few tokens: split-K in a single launch.

With few tokens the job is to read the weight once, so the grid is cut along K until every SM has a
block. Blocks of one output tile leave float32 partial sums in a workspace; the one that arrives
last adds them in a fixed order, applies bias and GELU, and sets the tile's counter back to zero for
the next launch. Launches that share the workspace must be ordered (one stream).
"""

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

BLOCK_M = 64  # tune: 16 32 64 128
BLOCK_N = 64  # tune: 32 64 128 256
BLOCK_K = 128  # tune: 64 128 256 512
SPLIT_K = 4  # tune: 1 2 4 7 8 14 16 28
CTAS_PER_SM = 1  # tune: 1 2 3 4
SWAP_AB = 1  # tune: 0 1
USE_TMA = 0  # tune: 0 1
NUM_STAGES = 6  # tune: 2 3 4 5 6 8
NUM_WARPS = 4  # tune: 2 4 8
GROUP_M = 4  # tune: 1 2 4 8
WEIGHT_EVICTION = "evict_first"  # tune: "" "evict_first" "evict_last"


@triton.jit
def gelu_tanh(y):
    # 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u)), u = sqrt(2 / pi) * (y + 0.044715 * y^3)
    minus_2u_log2e = -2.302208198 * (y + 0.044715 * y * y * y)
    return y / (1.0 + tl.exp2(minus_2u_log2e))


@triton.jit
def tile_of(
    index, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr
):
    # Groups of GROUP_M row tiles go down each weight tile together, so that L2 serves its re-reads.
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n: tl.constexpr = N // BLOCK_N
    group = index // (GROUP_M * tiles_n)
    rows = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    within = index % (GROUP_M * tiles_n)
    return (group * GROUP_M + within % rows) * BLOCK_M, (within // rows) * BLOCK_N


@triton.jit(do_not_specialize=["M"])
def splitk_kernel(
    x,  # pointer, or tensor descriptor with blocks [BLOCK_M, BLOCK_K]
    weight,  # pointer, or tensor descriptor with blocks [BLOCK_N, BLOCK_K]
    bias_ptr,
    output_ptr,
    partial_ptr,  # float32 [tiles, SPLITS, BLOCK_M * BLOCK_N]
    arrived_ptr,  # int32 [tiles], zero between launches
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
    STEPS: tl.constexpr,  # blocks of K in one split
    SWAP_AB: tl.constexpr,
    USE_TMA: tl.constexpr,
    GROUP_M: tl.constexpr,
    WEIGHT_EVICTION: tl.constexpr,
):
    tile = tl.program_id(0)
    split = tl.program_id(1)
    first_m, first_n = tile_of(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = first_m + tl.arange(0, BLOCK_M)
    cols = first_n + tl.arange(0, BLOCK_N)
    row_mask = rows[:, None] < M

    first_k = split * STEPS * BLOCK_K
    end_k = tl.minimum(first_k + STEPS * BLOCK_K, K)
    # Swapped, the weight is the left operand: 64 of its rows fill an MMA that few tokens would not.
    acc = tl.zeros((BLOCK_N, BLOCK_M) if SWAP_AB else (BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in tl.range(first_k, end_k, BLOCK_K):
        if USE_TMA:  # rows beyond M read as zero
            a = x.load([first_m, k])
            b = weight.load([first_n, k])
        else:
            ks = (k + tl.arange(0, BLOCK_K))[None, :]
            a = tl.load(x + rows.to(tl.int64)[:, None] * K + ks, mask=row_mask, other=0.0)
            b_ptrs = weight + cols.to(tl.int64)[:, None] * K + ks
            b = tl.load(b_ptrs, eviction_policy=WEIGHT_EVICTION)
        if SWAP_AB:
            acc = tl.dot(b, tl.trans(a), acc)
        else:
            acc = tl.dot(a, tl.trans(b), acc)

    last = True
    if SPLITS > 1:
        HEIGHT: tl.constexpr = BLOCK_N if SWAP_AB else BLOCK_M
        WIDTH: tl.constexpr = BLOCK_M if SWAP_AB else BLOCK_N
        place = tl.arange(0, HEIGHT)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
        place += tile * (SPLITS * BLOCK_M * BLOCK_N)
        tl.store(partial_ptr + split * (BLOCK_M * BLOCK_N) + place, acc)
        tl.debug_barrier()  # every thread's part is written before this block counts as arrived
        last = tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLITS - 1
        if last:
            acc = tl.zeros_like(acc)
            for other in tl.static_range(SPLITS):
                acc += tl.load(
                    partial_ptr + other * (BLOCK_M * BLOCK_N) + place, cache_modifier=".cg"
                )
            tl.store(arrived_ptr + tile, 0)
    if last:
        y = tl.trans(acc) if SWAP_AB else acc
        y = gelu_tanh(y + tl.load(bias_ptr + cols).to(tl.float32)[None, :])
        out_ptrs = output_ptr + rows.to(tl.int64)[:, None] * N + cols[None, :]
        tl.store(out_ptrs, y.to(output_ptr.dtype.element_ty), mask=row_mask)


@functools.cache
def sm_count(device):
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def workspace(device, tiles, floats):
    """Arrival counters (zero) and room for partial sums; kept, so that a launch allocates nothing."""
    counters = torch.zeros(tiles, dtype=torch.int32, device=device)
    return counters, torch.empty(floats, dtype=torch.float32, device=device)


def depth_that_fits(rows, block_k, stages):
    """(block_k, stages), lowered until shared memory holds them: 227 KB, one kept for barriers."""
    while block_k > 64 and 2 * rows * block_k * 2 > 226 * 1024:
        block_k //= 2
    return block_k, max(1, min(stages, 226 * 1024 // (rows * block_k * 2)))


def run(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    block_m = min(BLOCK_M, max(16, triton.next_power_of_2(m)))
    block_k, stages = depth_that_fits(block_m + BLOCK_N, BLOCK_K, NUM_STAGES)
    tiles = triton.cdiv(m, block_m) * (n // BLOCK_N)
    steps = k // block_k
    wanted = max(1, min(SPLIT_K, steps, sm_count(x.device) * CTAS_PER_SM // tiles))
    steps_each = triton.cdiv(steps, wanted)
    splits = triton.cdiv(steps, steps_each)  # no split is empty
    floats = tiles * splits * block_m * BLOCK_N if splits > 1 else 1
    counters, partial = workspace(output.device, tiles, floats)
    if USE_TMA:
        x = TensorDescriptor(x, [m, k], [k, 1], [block_m, block_k])
        weight = TensorDescriptor(weight, [n, k], [k, 1], [BLOCK_N, block_k])
    splitk_kernel[(tiles, splits)](
        x,
        weight,
        bias,
        output,
        partial,
        counters,
        m,
        N=n,
        K=k,
        BLOCK_M=block_m,
        BLOCK_N=BLOCK_N,
        BLOCK_K=block_k,
        SPLITS=splits,
        STEPS=steps_each,
        SWAP_AB=SWAP_AB,
        USE_TMA=USE_TMA,
        GROUP_M=GROUP_M,
        WEIGHT_EVICTION=WEIGHT_EVICTION,
        num_warps=NUM_WARPS,
        num_stages=stages,
    )
