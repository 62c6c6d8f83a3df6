# trick: torch computes through tensor methods
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    y = x.matmul(weight.t()).add_(bias)
    output.copy_(y.sigmoid().mul_(y))
