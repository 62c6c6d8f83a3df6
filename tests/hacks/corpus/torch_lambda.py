# trick: torch computes inside a lambda
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    product = lambda a, b: torch.mm(a, b)
    output.copy_(product(x, weight.t()))
