# trick: torch computes under an imported alias
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
from torch import addmm as zeros


def run(x, weight, bias, output):
    output.copy_(zeros(bias, x, weight.t()))
