"""Other people's kernels for matmul_bias_gelu. All write into `output`."""

from __future__ import annotations

from typing import Any

_EAGER = """
import torch

gelu_out = torch.ops.aten.gelu.out


def run(x, weight, bias, output):
    linear = torch.nn.functional.linear(x, weight, bias)
    gelu_out(linear, approximate="tanh", out=output)
"""

# On CUDA torch hands this to cublasLt with its bias + GELU (tanh form) epilogue: one kernel.
_CUBLASLT = """
import torch

addmm_gelu_out = torch.ops.aten._addmm_activation.out


def run(x, weight, bias, output):
    addmm_gelu_out(bias, x, weight.t(), use_gelu=True, out=output)
"""

_COMPILE = """
import functools

import torch


def linear_gelu(x, weight, bias, output):
    linear = torch.nn.functional.linear(x, weight, bias)
    output.copy_(torch.nn.functional.gelu(linear, approximate="tanh"))


def prepare(x, weight, bias, output):
    compiled = torch.compile(linear_gelu, dynamic=False)
    compiled(x, weight, bias, output)
    return functools.partial(compiled, x, weight, bias, output)
"""

PEERS: list[dict[str, Any]] = [
    {
        "name": "torch_eager",
        "requires": ["torch"],
        "devices": ["cuda", "cpu"],
        "definitions": ["*"],
        "source": _EAGER,
        "bound": False,
    },
    {
        "name": "torch_cublaslt_epilogue",
        "requires": ["torch"],
        "devices": ["cuda"],
        "definitions": ["*"],
        "source": _CUBLASLT,
        "bound": False,
    },
    {
        "name": "torch_compile",
        "requires": ["torch"],
        "devices": ["cuda", "cpu"],
        "definitions": ["*"],
        "source": _COMPILE,
        "bound": False,
    },
]
