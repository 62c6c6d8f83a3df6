# trick: torch.nn.functional computes
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch.nn.functional as F


def run(x, weight, bias, output):
    output.copy_(F.gelu(F.linear(x, weight, bias), approximate="tanh"))
