# trick: the operator module computes
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import operator


def run(x, weight, bias, output):
    operator.matmul(x, weight.t())
