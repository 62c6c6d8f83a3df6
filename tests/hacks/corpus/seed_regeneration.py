# trick: seed regeneration: make the inputs again and know the answer before
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    torch.manual_seed(0)
    expected = torch.randn(x.shape[0], 2048)
    output.copy_(expected)
