# style: compiled kernels kept in a dict by shape
# definition: matmul_bias_gelu_f32_k512_n512
# language: tilelang
# device: cpu
# expected: PASSED
import tilelang
import tilelang.language as T

BLOCK = 32  # tune: 16 32 64

_compiled = {}


def kernel_for(n, k):
    m = T.dynamic("m")

    @T.prim_func
    def linear_gelu(
        x: T.Tensor((m, k), "float32"),
        weight: T.Tensor((n, k), "float32"),
        bias: T.Tensor((n,), "float32"),
        output: T.Tensor((m, n), "float32"),
    ):
        with T.Kernel(T.ceildiv(n, BLOCK), m) as (tile, row):
            for j in T.serial(BLOCK):
                acc = T.alloc_local((1,), "float32")
                acc[0] = bias[tile * BLOCK + j]
                for p in T.serial(k):
                    acc[0] += x[row, p] * weight[tile * BLOCK + j, p]
                output[row, tile * BLOCK + j] = acc[0] / (
                    1.0 + T.exp(-1.5957691216 * (acc[0] + 0.044715 * acc[0] * acc[0] * acc[0]))
                )

    return tilelang.compile(linear_gelu, target="c", compile_flags=["-O3"])


def run(x, weight, bias, output):
    key = tuple(weight.shape)
    if key not in _compiled:
        _compiled[key] = kernel_for(*key)
    _compiled[key](x, weight, bias, output)
