# trick: torch's inner operators compute
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    torch.ops.aten.addmm.out(bias, x, weight.t(), out=output)
