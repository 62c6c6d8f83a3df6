# trick: torch computes through functools.partial
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch
import functools


def run(x, weight, bias, output):
    functools.partial(torch.mm, out=output)(x, weight.t())
