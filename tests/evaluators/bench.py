"""A tiny operator on the CPU, and solutions for it: what the evaluator's tests share.

`double`: y = 2 * x over a var axis n, float32. Real children, real compiles.
"""

from __future__ import annotations

from pathlib import Path

from evaluators.pipeline import Evaluator
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile, Workload
from evaluators.settings import EvaluatorSettings

DEFINITION = Definition.model_validate(
    {
        "name": "double_f32",
        "op_type": "double",
        "axes": {"n": {"type": "var"}},
        "inputs": {
            "x": {"shape": ["n"], "dtype": "float32"},
            "scale": {"shape": None, "dtype": "float32"},
        },
        "outputs": {"y": {"shape": ["n"], "dtype": "float32"}},
    }
)

OPERATOR = """
import torch

TOLERANCES = {}

def exact(x, scale):
    return x.double() * scale

def run(x, scale):
    return exact(x, scale).float()

def honest(x, scale):
    return x * scale

def axes_of(definition, sample):
    return {"n": sample["n"]}, {}

def make_inputs(definition, axes, make, scalars, generator, device):
    x = torch.randn(axes["n"], generator=generator, device=device)
    return {"x": x, "scale": scalars.get("scale", 2.0)}

def cost(definition, axes, make):
    return axes["n"], 8 * axes["n"]
"""

GOOD = """
import torch

def run(x, scale, y):
    torch.mul(x, scale, out=y)
"""

CPP = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
#include <cstdlib>
#include <cstring>

void Run(tvm::ffi::TensorView x, double scale, tvm::ffi::TensorView y) {
  const float* a = static_cast<const float*>(x.data_ptr());
  float* b = static_cast<float*>(y.data_ptr());
  const int64_t n = x.shape()[0];
  %s
  for (int64_t i = 0; i < n; ++i) b[i] = a[i] * scale;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
"""
"""A C++ kernel with room for a trick."""

TRITON = """
import triton
import triton.language as tl

BLOCK = 1024  # tune: 256 512 1024

@triton.jit
def double(x, y, scale, n, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < n)
    for _ in range(100 * (TIMES - 1)):
        value += 0.0 * tl.sin(value)  # arithmetic that the compiler may not drop
    tl.store(y + place, value * scale, mask=place < n)

def run(x, scale, y):
    double[(triton.cdiv(x.numel(), BLOCK),)](x, y, scale, x.numel(), %d, BLOCK)
"""
"""A Triton kernel with arithmetic to spare."""

WORKLOADS = [
    Workload(uuid="small", axes={"n": 1000}, seed=1),
    Workload(uuid="large", axes={"n": 100_000}, seed=2, weight=2.0),
]


def operator_folder(root: Path, text: str = OPERATOR) -> Path:
    """Write `kernels/double` below `root`."""
    folder = root / "kernels" / "double"
    (folder / "definitions").mkdir(parents=True)
    (folder / "definitions" / "double_f32.json").write_text(DEFINITION.model_dump_json())
    (folder / "operator.py").write_text(text)
    return folder


def solution(
    content: str, language: Language = Language.PYTHON, *, passing: bool = True
) -> Solution:
    """A solution of `double_f32` with one source file."""
    file = "kernel.cpp" if language is Language.CPP else "kernel.py"
    return Solution(
        name="candidate",
        definition=DEFINITION.name,
        author="test",
        sources=(SourceFile(path=file, content=content),),
        spec=BuildSpec(
            language=language,
            target_hardware=("cpu", "cuda"),
            entry_point=f"{file}::run",
            destination_passing_style=passing,
            binding="tvm-ffi" if language is Language.CPP else None,
        ),
    )


def evaluator(root: Path, settings: EvaluatorSettings, device: str = "cpu") -> Evaluator:
    """An evaluator of `double_f32` with an open epoch and `GOOD` as its anchor."""
    made = Evaluator(device, DEFINITION, operator_folder(root), settings)
    made.open_epoch(3, WORKLOADS, solution(GOOD))
    return made
