# trick: torch itself under another name
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(x, weight, bias, output):
    t = torch
    t.mm(x, weight.t(), out=output)
