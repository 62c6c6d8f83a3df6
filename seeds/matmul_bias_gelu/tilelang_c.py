"""float32 linear + bias + tanh-GELU on the CPU, in TileLang through its C target (one thread).

For each TILE_N columns of the output the weight is packed once, transposed, so that neighbours in
memory are neighbours in an output row; ROWS x TILE_N sums then stay in registers along TILE_K.
"""

import functools

import tilelang
import tilelang.language as T

TILE_N = 16  # tune: 8 16 32 64
TILE_K = 64  # tune: 32 64 128 256 512
ROWS = 2  # tune: 1 2 4 6 8 12
ROW_TILE = 16  # tune: 8 16 32 64

FLAGS = ["-O3", "-march=native"]


@functools.cache
def compiled(n, k):
    m = T.dynamic("m")

    @T.prim_func
    def linear_gelu(
        x: T.Tensor((m, k), "float32"),
        weight: T.Tensor((n, k), "float32"),
        bias: T.Tensor((n,), "float32"),
        output: T.Tensor((m, n), "float32"),
    ):
        with T.Kernel(n // TILE_N, T.ceildiv(m, ROWS * ROW_TILE)) as (tile_n, tile_m):
            packed = T.alloc_local((TILE_K, TILE_N), "float32")
            acc = T.alloc_local((ROW_TILE * ROWS, TILE_N), "float32")
            sums = T.alloc_local((ROWS, TILE_N), "float32")
            for i, j in T.grid(ROW_TILE * ROWS, TILE_N):
                acc[i, j] = 0.0
            for step in T.serial(k // TILE_K):
                for j, p in T.grid(TILE_N, TILE_K):
                    packed[p, j] = weight[tile_n * TILE_N + j, step * TILE_K + p]
                for group in T.serial(ROW_TILE):
                    for r, j in T.grid(ROWS, TILE_N):
                        sums[r, j] = acc[group * ROWS + r, j]
                    for p in T.serial(TILE_K):
                        for r in T.unroll(ROWS):
                            for j in T.serial(TILE_N):
                                # rows past the last one repeat it; their sums are never stored
                                sums[r, j] += (
                                    x[
                                        T.min((tile_m * ROW_TILE + group) * ROWS + r, m - 1),
                                        step * TILE_K + p,
                                    ]
                                    * packed[p, j]
                                )
                    for r, j in T.grid(ROWS, TILE_N):
                        acc[group * ROWS + r, j] = sums[r, j]
            for i in T.serial(ROW_TILE * ROWS):
                if tile_m * ROW_TILE * ROWS + i < m:
                    for j in T.serial(TILE_N):
                        y = acc[i, j] + bias[tile_n * TILE_N + j]
                        # 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u))
                        u = 0.7978845608 * (y + 0.044715 * y * y * y)
                        output[tile_m * ROW_TILE * ROWS + i, tile_n * TILE_N + j] = y / (
                            1.0 + T.exp(-2.0 * u)
                        )

    return tilelang.compile(linear_gelu, target="c", compile_flags=FLAGS)


def run(x, weight, bias, output):
    compiled(*weight.shape)(x, weight, bias, output)
