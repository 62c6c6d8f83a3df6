# trick: torch computes, imported by the compiler's own modules
# definition: matmul_bias_gelu_f32_k512_n512
# language: tilelang
# device: cpu
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import tilelang.language as T
from tilelang.jit.kernel import torch as imported


def run(x, weight, bias, output):
    y = imported.nn.functional.linear(x, weight, bias)
    imported.ops.aten.gelu.out(y, approximate="tanh", out=output)
