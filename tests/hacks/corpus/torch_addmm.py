# trick: torch computes: addmm and gelu
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    y = torch.addmm(bias, x, weight.t())
    output.copy_(torch.nn.functional.gelu(y, approximate="tanh"))
