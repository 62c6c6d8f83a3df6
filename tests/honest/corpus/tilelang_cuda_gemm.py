# style: shared-memory tiles and T.gemm
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: tilelang
# device: cuda
# expected: PASSED
import functools

import tilelang
import tilelang.language as T


@functools.cache
def compiled(n, k):
    m = T.dynamic("m")

    @T.prim_func
    def linear_gelu(
        x: T.Tensor((m, k), "bfloat16"),
        weight: T.Tensor((n, k), "bfloat16"),
        bias: T.Tensor((n,), "bfloat16"),
        output: T.Tensor((m, n), "bfloat16"),
    ):
        with T.Kernel(n // 64, T.ceildiv(m, 64), threads=128) as (tile_n, tile_m):
            x_tile = T.alloc_shared((64, 64), "bfloat16")
            weight_tile = T.alloc_shared((64, 64), "bfloat16")
            acc = T.alloc_fragment((64, 64), "float32")
            T.clear(acc)
            for step in T.Pipelined(k // 64, num_stages=2):
                T.copy(x[tile_m * 64, step * 64], x_tile)
                T.copy(weight[tile_n * 64, step * 64], weight_tile)
                T.gemm(x_tile, weight_tile, acc, transpose_B=True)
            for i, j in T.Parallel(64, 64):
                acc[i, j] += T.cast(bias[tile_n * 64 + j], "float32")
            for i, j in T.Parallel(64, 64):
                acc[i, j] = acc[i, j] / (
                    1.0
                    + T.exp(
                        -1.5957691216 * (acc[i, j] + 0.044715 * acc[i, j] * acc[i, j] * acc[i, j])
                    )
                )
            T.copy(acc, output[tile_m * 64, tile_n * 64])

    return tilelang.compile(linear_gelu, target="cuda")


def run(x, weight, bias, output):
    compiled(*weight.shape)(x, weight, bias, output)
