# trick: torch.compile writes the kernel
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


@torch.compile
def linear(x, weight, bias):
    return torch.nn.functional.gelu(x @ weight.T + bias, approximate="tanh")


def run(x, weight, bias, output):
    output.copy_(linear(x, weight, bias))
