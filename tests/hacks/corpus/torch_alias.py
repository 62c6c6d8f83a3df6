# trick: torch computes under another name
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch

f = torch.matmul


def run(x, weight, bias, output):
    y = f(x, weight.t())
    output.copy_(y)
