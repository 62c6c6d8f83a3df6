"""bf16 linear + bias + tanh-GELU for any number of tokens: each regime has its own tiles.

- up to FEW_TOKENS: reading the weight is the job; split-K, operands swapped;
- up to MIDDLE_TOKENS, then up to LARGE_TOKENS: the output has fewer tiles than the GPU has SMs, so
  K is split until all are busy, small tiles first, then large ones;
- above: one output tile per block, or persistent blocks.

Split-K blocks leave float32 partial sums in a workspace; the one that arrives last at a tile adds
them in a fixed order, applies bias and GELU and sets the tile's counter back to zero for the next
launch. Launches that share the workspace must be ordered (one stream).
"""

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

FEW_TOKENS = 64  # tune: 16 32 64 128
BLOCK_M_FEW = 32  # tune: 16 32 64
BLOCK_N_FEW = 64  # tune: 32 64 128
BLOCK_K_FEW = 128  # tune: 64 128 256
SPLIT_K_FEW = 4  # tune: 2 4 7 8 14 16
CTAS_PER_SM_FEW = 1  # tune: 1 2 3
USE_TMA_FEW = 0  # tune: 0 1
NUM_STAGES_FEW = 6  # tune: 2 3 4 5 6 8
NUM_WARPS_FEW = 4  # tune: 4 8

MIDDLE_TOKENS = 256  # tune: 128 192 256 384 512
BLOCK_M_MIDDLE = 64  # tune: 64 128
BLOCK_N_MIDDLE = 64  # tune: 64 128 256
BLOCK_K_MIDDLE = 128  # tune: 64 128
SPLIT_K_MIDDLE = 2  # tune: 1 2 4 8 16
CTAS_PER_SM_MIDDLE = 1  # tune: 1 2
SWAP_AB_MIDDLE = 1  # tune: 0 1
USE_TMA_MIDDLE = 1  # tune: 0 1
NUM_STAGES_MIDDLE = 6  # tune: 2 3 4 5 6
NUM_WARPS_MIDDLE = 4  # tune: 4 8

LARGE_TOKENS = 1024  # tune: 512 768 1024 1280 1536
BLOCK_M_LARGE = 128  # tune: 64 128
BLOCK_N_LARGE = 128  # tune: 64 128 256
BLOCK_K_LARGE = 64  # tune: 64 128
SPLIT_K_LARGE = 4  # tune: 1 2 4 8
USE_TMA_LARGE = 1  # tune: 0 1
NUM_STAGES_LARGE = 4  # tune: 2 3 4 5 6
NUM_WARPS_LARGE = 4  # tune: 4 8

BLOCK_M = 128  # tune: 64 128 256
BLOCK_N = 256  # tune: 128 256
BLOCK_K = 64  # tune: 32 64 128
GROUP_M = 8  # tune: 2 4 8 16
NUM_STAGES = 4  # tune: 3 4 5
NUM_WARPS = 8  # tune: 4 8
USE_TMA = 1  # tune: 0 1
PERSISTENT = 0  # tune: 0 1
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


def run_splitk(
    x, weight, bias, output, *, block_m, block_n, block_k, split_k, ctas, swap, tma, stages, warps
):
    m, k = x.shape
    n = weight.shape[0]
    block_m = min(block_m, max(16, triton.next_power_of_2(m)))
    block_k, stages = depth_that_fits(block_m + block_n, block_k, stages)
    tiles = triton.cdiv(m, block_m) * (n // block_n)
    steps = k // block_k
    wanted = max(1, min(split_k, steps, sm_count(output.device) * ctas // tiles))
    steps_each = triton.cdiv(steps, wanted)
    splits = triton.cdiv(steps, steps_each)  # no split is empty
    floats = tiles * splits * block_m * block_n if splits > 1 else 1
    counters, partial = workspace(output.device, tiles, floats)
    if tma:
        x = TensorDescriptor(x, [m, k], [k, 1], [block_m, block_k])
        weight = TensorDescriptor(weight, [n, k], [k, 1], [block_n, block_k])
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
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        SPLITS=splits,
        STEPS=steps_each,
        SWAP_AB=swap,
        USE_TMA=tma,
        GROUP_M=4,
        WEIGHT_EVICTION="evict_first" if m <= block_m else "",
        num_warps=warps,
        num_stages=stages,
    )


def run_tiled(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    block_k, stages = depth_that_fits(BLOCK_M + BLOCK_N, BLOCK_K, NUM_STAGES)
    tiles = triton.cdiv(m, BLOCK_M) * (n // BLOCK_N)
    grid = min(tiles, sm_count(output.device)) if PERSISTENT else tiles
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


FEW = {
    "block_m": BLOCK_M_FEW,
    "block_n": BLOCK_N_FEW,
    "block_k": BLOCK_K_FEW,
    "split_k": SPLIT_K_FEW,
    "ctas": CTAS_PER_SM_FEW,
    "swap": 1,
    "tma": USE_TMA_FEW,
    "stages": NUM_STAGES_FEW,
    "warps": NUM_WARPS_FEW,
}
MIDDLE = {
    "block_m": BLOCK_M_MIDDLE,
    "block_n": BLOCK_N_MIDDLE,
    "block_k": BLOCK_K_MIDDLE,
    "split_k": SPLIT_K_MIDDLE,
    "ctas": CTAS_PER_SM_MIDDLE,
    "swap": SWAP_AB_MIDDLE,
    "tma": USE_TMA_MIDDLE,
    "stages": NUM_STAGES_MIDDLE,
    "warps": NUM_WARPS_MIDDLE,
}
LARGE = {
    "block_m": BLOCK_M_LARGE,
    "block_n": BLOCK_N_LARGE,
    "block_k": BLOCK_K_LARGE,
    "split_k": SPLIT_K_LARGE,
    "ctas": 1,
    "swap": 0,
    "tma": USE_TMA_LARGE,
    "stages": NUM_STAGES_LARGE,
    "warps": NUM_WARPS_LARGE,
}


def run(x, weight, bias, output):
    tokens = x.shape[0]
    if tokens <= FEW_TOKENS:
        run_splitk(x, weight, bias, output, **FEW)
    elif tokens <= MIDDLE_TOKENS:
        run_splitk(x, weight, bias, output, **MIDDLE)
    elif tokens <= LARGE_TOKENS:
        run_splitk(x, weight, bias, output, **LARGE)
    else:
        run_tiled(x, weight, bias, output)
