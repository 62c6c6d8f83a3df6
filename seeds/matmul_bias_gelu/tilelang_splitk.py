"""bf16 linear + bias + tanh-GELU for few tokens, in TileLang: split-K, then one small kernel.

The weight is the left operand of the matrix product: its rows fill an MMA that few tokens would
not. Each block leaves a float32 partial sum; `finish` adds them up and applies bias and GELU. Above
CHUNK tokens the batch is cut into chunks, so that the partial sums stay small.
"""

import functools

import tilelang
import tilelang.language as T
import torch

BLOCK_M = 64  # tune: 16 32 64
BLOCK_N = 128  # tune: 64 128
BLOCK_K = 128  # tune: 64 128 256
SPLIT_K = 8  # tune: 1 2 4 7 8 14 16
NUM_STAGES = 4  # tune: 2 3 4 5 6
THREADS = 128  # tune: 128 256
CHUNK = 256  # tune: 128 256 512
FINISH_THREADS = 128  # tune: 64 128 256
FINISH_BLOCK_N = 256  # tune: 128 256 512

FAST_MATH = {tilelang.PassConfigKey.TL_ENABLE_FAST_MATH: True}


@functools.cache
def partial_sums(n, k, block_m):
    m = T.dynamic("m")
    steps = k // BLOCK_K
    steps_each = -(-steps // SPLIT_K)

    @T.prim_func
    def partial_product(
        x: T.Tensor((m, k), "bfloat16"),
        weight: T.Tensor((n, k), "bfloat16"),
        partial: T.Tensor((SPLIT_K, m, n), "float32"),
    ):
        with T.Kernel(n // BLOCK_N, T.ceildiv(m, block_m), SPLIT_K, threads=THREADS) as (
            tile_n,
            tile_m,
            split,
        ):
            x_tile = T.alloc_shared((block_m, BLOCK_K), "bfloat16")
            weight_tile = T.alloc_shared((BLOCK_N, BLOCK_K), "bfloat16")
            acc = T.alloc_fragment((BLOCK_N, block_m), "float32")
            T.clear(acc)
            for step in T.Pipelined(steps_each, num_stages=NUM_STAGES):
                # past the end of K both tiles read as zero
                T.copy(x[tile_m * block_m, (split * steps_each + step) * BLOCK_K], x_tile)
                T.copy(weight[tile_n * BLOCK_N, (split * steps_each + step) * BLOCK_K], weight_tile)
                T.gemm(weight_tile, x_tile, acc, transpose_B=True)
            for j, i in T.Parallel(BLOCK_N, block_m):
                if tile_m * block_m + i < m:
                    partial[split, tile_m * block_m + i, tile_n * BLOCK_N + j] = acc[j, i]

    return tilelang.compile(partial_product, pass_configs=FAST_MATH)


@functools.cache
def finish(n):
    m = T.dynamic("m")

    @T.prim_func
    def add_partials(
        partial: T.Tensor((SPLIT_K, m, n), "float32"),
        bias: T.Tensor((n,), "bfloat16"),
        output: T.Tensor((m, n), "bfloat16"),
    ):
        with T.Kernel(n // FINISH_BLOCK_N, m, threads=FINISH_THREADS) as (tile, row):
            y = T.alloc_fragment((FINISH_BLOCK_N,), "float32")
            for j in T.Parallel(FINISH_BLOCK_N):
                y[j] = T.cast(bias[tile * FINISH_BLOCK_N + j], "float32")
            for split in T.serial(SPLIT_K):
                for j in T.Parallel(FINISH_BLOCK_N):
                    y[j] += partial[split, row, tile * FINISH_BLOCK_N + j]
            for j in T.Parallel(FINISH_BLOCK_N):
                # 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u)), u = sqrt(2 / pi) * (y + 0.044715 * y^3)
                output[row, tile * FINISH_BLOCK_N + j] = T.cast(
                    y[j] / (1.0 + T.exp2(-2.302208198 * (y[j] + 0.044715 * y[j] * y[j] * y[j]))),
                    "bfloat16",
                )

    return tilelang.compile(add_partials, pass_configs=FAST_MATH)


def run(x, weight, bias, output):
    n, k = weight.shape
    multiply = partial_sums(n, k, min(BLOCK_M, 16 if x.shape[0] <= 16 else BLOCK_M))
    add_up = finish(n)
    for first in range(0, x.shape[0], CHUNK):
        rows = x[first : first + CHUNK]
        partial = torch.empty((SPLIT_K, rows.shape[0], n), dtype=torch.float32, device=x.device)
        multiply(rows, weight, partial)
        add_up(partial, bias, output[first : first + CHUNK])
