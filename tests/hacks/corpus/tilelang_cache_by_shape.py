# trick: cache by shape in a workspace, in TileLang
# definition: matmul_bias_gelu_f32_k512_n512
# language: tilelang
# device: cpu
# expected: INCORRECT_NUMERICAL
# caught by: correctness
# ruff: noqa
import functools

import tilelang
import tilelang.language as T
import torch

_kept = {}


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
        with T.Kernel(n // 16, m) as (tile, row):
            acc = T.alloc_local((16,), "float32")
            for j in T.serial(16):
                acc[j] = bias[tile * 16 + j]
            for p in T.serial(k):
                for j in T.serial(16):
                    acc[j] += x[row, p] * weight[tile * 16 + j, p]
            for j in T.serial(16):
                output[row, tile * 16 + j] = acc[j] / (
                    1.0 + T.exp(-1.5957691216 * (acc[j] + 0.044715 * acc[j] * acc[j] * acc[j]))
                )

    return tilelang.compile(linear_gelu, target="c", compile_flags=["-O3", "-march=native"])


@functools.cache
def copied(n):
    m = T.dynamic("m")

    @T.prim_func
    def copy(source: T.Tensor((m, n), "float32"), target: T.Tensor((m, n), "float32")):
        with T.Kernel(m) as row:
            for j in T.serial(n):
                target[row, j] = source[row, j]

    return tilelang.compile(copy, target="c", compile_flags=["-O3", "-march=native"])


def run(x, weight, bias, output):
    m, n = output.shape
    if m not in _kept:
        _kept[m] = torch.empty_like(output)
        compiled(*weight.shape)(x, weight, bias, _kept[m])
    copied(n)(_kept[m], output)
