# trick: another compiler, at import
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch
from torch.utils.cpp_extension import load_inline

module = load_inline(name="fast", cpp_sources="", functions=[])


def run(x, weight, bias, output):
    module.run(x, weight, bias, output)
