# style: a frozen dataclass as plan, lru_cache over sizes, annotations
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: PASSED
# ruff: noqa: PT018
from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@dataclass(frozen=True)
class Plan:
    block_m: int
    block_n: int
    warps: int = 4

    def grid(self, m: int, n: int) -> tuple[int, int]:
        return triton.cdiv(m, self.block_m), n // self.block_n


@functools.cache
def plan(m: int) -> Plan:
    return Plan(16 if m <= 16 else 64, 64)


@triton.jit
def linear_gelu(
    x,
    weight,
    bias,
    output,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        depth = k + tl.arange(0, BLOCK_K)
        a = tl.load(x + row[:, None] * K + depth[None, :], mask=row[:, None] < M, other=0.0)
        b = tl.load(weight + col[None, :] * K + depth[:, None])
        acc = tl.dot(a, b, acc)
    y = acc + tl.load(bias + col).to(tl.float32)[None, :]
    y = y * tl.sigmoid(1.5957691216 * (y + 0.044715 * y * y * y))
    tl.store(output + row[:, None] * N + col[None, :], y.to(tl.bfloat16), mask=row[:, None] < M)


@torch.no_grad()
def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, output: torch.Tensor) -> None:
    assert x.dtype == torch.bfloat16 and x.is_contiguous()
    m, k = x.shape
    n = weight.shape[0]
    chosen = plan(m)
    linear_gelu[chosen.grid(m, n)](
        x,
        weight,
        bias,
        output,
        m,
        n,
        k,
        chosen.block_m,
        chosen.block_n,
        64,
        num_warps=chosen.warps,
    )
