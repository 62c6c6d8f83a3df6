# trick: torch computes, imported with a star
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
from torch import *


def run(x, weight, bias, output):
    mm(x, weight.t(), out=output)
