"""The guard: a plain kernel passes, and each refusal names the line."""

import pytest

from evaluators import guard
from evaluators.schema import BuildSpec, Definition, Solution, SourceFile

DEFINITION = Definition.model_validate(
    {
        "name": "scale",
        "op_type": "scale",
        "axes": {"n": {"type": "var"}},
        "inputs": {
            "x": {"shape": ["n"], "dtype": "float32"},
            "factor": {"shape": None, "dtype": "float32"},
        },
        "outputs": {"y": {"shape": ["n"], "dtype": "float32"}},
    }
)

TRITON = """\
import torch
import triton
import triton.language as tl
from .helper import SIZE

BLOCK = 128  # tune: 64 128 256

@triton.jit
def kernel(x, y, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n) * factor, mask=at < n)

def run(x, factor, y):
    kernel[(triton.cdiv(x.numel(), BLOCK),)](x, y, x.numel(), factor, BLOCK)
"""

CPP = """\
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
// mentions system("rm") and open() in a comment, and a brace {
static const char* kText = "fork() }";
void Run(tvm::ffi::TensorView x, double factor,
         tvm::ffi::TensorView y) {
  for (int i = 0; i < 3; ++i) { (void)kText; }
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
"""


def solution(language, source, **spec):
    file = {"cpp": "kernel.cpp", "cuda": "kernel.cu"}.get(language, "kernel.py")
    return Solution(
        name="s",
        definition="scale",
        author="test",
        spec=BuildSpec(
            language=language, target_hardware=("cpu",), entry_point=f"{file}::run", **spec
        ),
        sources=(SourceFile(path=file, content=source),),
    )


def check(language, source, **spec):
    return guard.check(solution(language, source, **spec), DEFINITION)


@pytest.mark.parametrize(("language", "source"), [("triton", TRITON), ("cpp", CPP), ("cuda", CPP)])
def test_a_plain_kernel_passes(language, source):
    assert check(language, source) == []


def test_run_may_take_its_arguments_as_a_star():
    assert check("triton", "def run(*tensors):\n    pass\n") == []
    assert check("triton", "def run(x, factor=1.0, y=None, z=None):\n    pass\n") == []


def test_names_that_kernels_use_themselves_pass():
    assert check("triton", "def run(input, os, y):\n    sys = input + os\n") == []
    ours = CPP.replace("void Run", "void signal(int* flag) { *flag = 1; }\nvoid Run", 1)
    assert check("cpp", ours.replace("(void)kText;", "int f; signal(&f);")) == []


def test_value_returning_solutions_take_inputs_only():
    source = "def run(x, factor):\n    return x\n"
    assert check("triton", source, destination_passing_style=False) == []
    assert "takes 2 positional" in check("triton", source)[0]


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("def run(x, factor y):\n    pass\n", 1, "does not parse"),
        ("def other(x, factor, y):\n    pass\n", 0, "'run' is not defined"),
        ("\ndef run(x, y):\n    pass\n", 2, "takes 2 positional parameters"),
        ("def run(x, factor, y, z):\n    pass\n", 1, "takes 4 positional parameters"),
        ("def run(x, factor, y, *, z):\n    pass\n", 1, "required keyword"),
        ("async def run(x, factor, y):\n    pass\n", 1, "async"),
        ("import os\ndef run(x, factor, y):\n    pass\n", 1, "import of 'os'"),
        ("def run(x, factor, y):\n    import subprocess\n", 2, "import of 'subprocess'"),
        ("from torch.utils import cpp_extension\ndef run(*a):\n    pass\n", 1, "cpp_extension"),
        ("import torch as t\ndef run(*a):\n    t.load('x')\n", 3, "'torch.load'"),
        ("def run(x, factor, y):\n    open('f')\n", 2, "'open'"),
        ("def run(x, factor, y):\n    eval('1')\n", 2, "'eval'"),
        ("def run(x, factor, y):\n    f = exec\n", 2, "'exec'"),
        ("def run(x, factor, y):\n    run.__globals__\n", 2, "'__globals__'"),
        ("import torch\ndef run(*a):\n    torch.cuda.mem_info = None\n", 3, "must not change"),
        ("A = 1  # tune: 1 2\nA = 2  # tune: 1 2\ndef run(*a):\n    pass\n", None, "twice"),
    ],
)
def test_python_refusals(source, line, words):
    reasons = check("triton", source)
    assert len(reasons) == 1, reasons
    assert words in reasons[0]
    assert line is None or reasons[0].startswith(f"line {line}:")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("FUNC(run, Run)", "FUNC(go, Run)", 0, "'run' is not exported"),
        ("double factor,", "", 5, "Run takes 2 parameters"),
        ("{ (void)kText; }", "{ (void)kText;", 0, "unbalanced"),
        ("(void)kText;", 'system("ls");', 7, "'system'"),
        ("(void)kText;", "::fork ();", 7, "'fork'"),
        ("#include <tvm/ffi/function.h>", "#include <unistd.h>", 2, "'unistd.h'"),
        ("#include <tvm/ffi/function.h>", "#include <sys/mman.h>", 2, "'sys/mman.h'"),
        ("(void)kText;", 'asm volatile("syscall");', 7, "system calls"),
        ("static const", "__attribute__((constructor)) void f(); static", 4, "load time"),
    ],
)
def test_c_refusals(old, new, line, words):
    assert old in CPP
    reasons = check("cpp", CPP.replace(old, new))
    assert len(reasons) == 1, reasons
    assert reasons[0].startswith(f"line {line}:")
    assert words in reasons[0]


def test_empty_c_source_is_refused():
    assert any("empty" in r for r in check("cpp", "// nothing here\n"))


def test_reasons_name_the_file_when_there_are_several():
    two = solution("triton", "def run(*a):\n    pass\n").model_copy(
        update={
            "sources": (
                SourceFile(path="kernel.py", content="import extra\ndef run(*a):\n    pass\n"),
                SourceFile(path="extra.py", content="import socket\n"),
            )
        }
    )
    assert guard.check(two, DEFINITION) == ["extra.py: line 1: import of 'socket' is not allowed"]
