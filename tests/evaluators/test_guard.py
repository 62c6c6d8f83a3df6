"""The guard: a plain kernel passes, and each refusal names the line."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import guard
from evaluators.guard import lexer
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
    assert check("triton", "def run(input, os, y):\n    sys = (input, os)\n") == []
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
        (
            "import torch\ndef run(*a):\n    torch.cuda.current_device = None\n",
            3,
            "must not change",
        ),
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
    (reason,) = guard.check(two, DEFINITION)
    assert reason.startswith("extra.py: line 1: import of 'socket' is not allowed: only __future__")


def in_run(line, top=""):
    """A Triton source whose `run` does `line`."""
    head = f"import torch\nimport triton\nimport triton.language as tl\n{top}"
    return f"{head}def run(x, factor, y):\n    {line}\n"


@pytest.mark.parametrize(
    "line",
    [
        "n = x.numel() * 2 + x.shape[0] % 2",
        "part = torch.empty(x.shape, dtype=torch.float32, device=x.device)",
        "y.zero_()",
        "z = x.view(-1)[:4].contiguous()",
        "if x.shape[0] == 0: return",
        "ok = x is None or max(x.shape) > 16",
        "count = torch.cuda.get_device_properties(x.device).multi_processor_count",
        "p = triton.runtime.driver.active.utils.get_device_properties(0)",
        "grid = lambda meta: (triton.cdiv(x.numel(), meta['BLOCK']),)",
        "stream = torch.cuda.current_stream().cuda_stream",
        "print(x.dtype, y.data_ptr())",
    ],
)
def test_what_host_code_needs_passes(line):
    assert check("triton", in_run(line)) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch.matmul(x, x)", "'torch.matmul'"),
        ("f = torch.mm", "'torch.mm'"),
        ("a = torch", "under another name"),
        ("torch.nn.functional.gelu(x)", "'torch.nn.functional.gelu'"),
        ("x @ x", "'@'"),
        ("y *= factor", "arithmetic on a tensor"),
        ("z = -x", "arithmetic on a tensor"),
        ("y[:] = 1.0", "written outside a kernel"),
        ("y.copy_(x)", "'copy_'"),
        ("x.softmax(0)", "'softmax'"),
        ("n = x[0].item()", "'item'"),
        ("getattr(x, 'matmul')", "'matmul'"),
        ("getattr(torch, 'mat' + 'mul')", "computed name"),
        ("torch.cuda.Stream()", "'torch.cuda.Stream'"),
        ("torch.cuda.current_stream().wait_stream(0)", "'wait_stream'"),
        ("torch.cuda.is_current_stream_capturing()", "is_current_stream_capturing"),
        ("run.calls = 1", "must not change attribute"),
        ("torch = None if x is None else x", "must not rebind"),
        ("kernel.fn(x)", "'fn'"),
        ("id(x)", "'id'"),
        ("open('/proc/self/maps')", "'open'"),
        ("path = '/proc/self/maps'", "path of the system"),
        ("x.untyped_storage()", "'untyped_storage'"),
        ("type('T', (), {})", "type()"),
    ],
)
def test_what_host_code_must_not_do(line, words):
    reasons = check("triton", in_run(line))
    assert any(r.startswith("line 5:") and words in r for r in reasons), reasons


def test_tensors_are_followed_into_helpers_and_views():
    top = "def helper(a):\n    b = a.view(-1)\n    return b + 1\n"
    reasons = check("triton", in_run("helper(x[1:])", top))
    assert reasons == ["line 6: arithmetic on a tensor outside a kernel: compute it in the kernel"]
    assert check("triton", in_run("helper(factor)", top)) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kept[x.shape] = y", "kept for later calls"),
        ("kept.setdefault(0, (y, x))", "kept for later calls"),
        ("kept[x.data_ptr()] = 1", "recognised by its address"),
        ("at = x.data_ptr(); z = kept.get(at)", "recognised by its address"),
        ("cached(y)", "kept for later calls"),
        ("kept['n'] += 1", "calls are counted"),
        ("if x.shape in kept: return", "returns early"),
    ],
)
def test_state_that_decides_about_the_work_is_refused(line, words):
    top = "import functools\nkept = {}\n@functools.cache\ndef cached(a):\n    return a\n"
    reasons = check("triton", in_run(line, top))
    assert any(words in r for r in reasons), reasons


def test_workspaces_and_compiled_kernels_may_be_kept():
    top = "import functools\nkept = {}\n@functools.cache\ndef cached(n):\n    return n\n"
    body = "n = cached(x.numel())\n    if n not in kept:\n        kept[n] = torch.empty(n)"
    assert check("triton", in_run(body, top)) == []


def test_a_kernels_own_body_is_the_compilers_business():
    top = "@triton.jit\ndef k(a, b):\n    c = tl.load(a).sum(0).max()\n    tl.store(b, c * a)\n"
    assert check("triton", in_run("k[(1,)](x, y)", top)) == []
    plain = top.replace("@triton.jit\n", "")
    assert check("triton", in_run("k(x, y)", plain)) != []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from torch import matmul as zeros", "'torch.matmul'"),
        ("from torch import *", "import *"),
        ("import numpy", "import of 'numpy'"),
        ("from functools import sys", "'functools.sys'"),
        ("import dataclasses\nm = dataclasses.sys", "'dataclasses.sys'"),
        ("import torch\nclass T(torch.Tensor):\n    pass", "subclass of 'torch.Tensor'"),
        ("class T:\n    def __torch_function__(self):\n        pass", "__torch_function__"),
        ("@print\ndef f():\n    pass", "decorator 'print'"),
        ("def f():\n    try:\n        g()\n    except Exception:\n        pass", "try is not"),
        ("FLAGS = ['-O3', '-fplugin=x.so']", "compiler flag"),
        ("import tilelang.language as T\nT.call_extern('int32', 'system', 'ls')", "'system'"),
        ("import tilelang.language as T\nT.import_source('int x;')", "'import_source'"),
        ("import torch.cuda as c\ns = c.Stream()", "'torch.cuda.Stream'"),
    ],
)
def test_module_level_refusals(source, words):
    reasons = check("tilelang", f"{source}\ndef run(x, factor, y):\n    pass\n")
    assert any(words in r for r in reasons), reasons


def test_an_import_may_be_tried():
    source = "try:\n    from triton.tools.tensor_descriptor import TensorDescriptor\n"
    source += "except ImportError:\n    TensorDescriptor = None\n"
    assert check("triton", f"{source}def run(x, factor, y):\n    pass\n") == []


def test_plain_python_solutions_may_compute_with_torch():
    source = "import torch\ndef run(x, factor, y):\n    torch.mul(x, factor, out=y)\n"
    assert check("python", source) == []
    assert check("triton", source) != []


def c_source(top="", body=""):
    return CPP.replace("void Run", f"{top}\nvoid Run", 1).replace("(void)kText;", body)


@pytest.mark.parametrize(
    ("top", "body"),
    [
        ("", "int open = 3; (void)open;"),
        ("bool kill(int n) { return n > 0; }", "if (kill(2)) return;"),
        ("static const float kNone = -std::numeric_limits<float>::infinity();", ""),
        ("static float workspace[64];", "workspace[0] = 1.0f;"),
        ("struct State { int n = 0; };\nstatic State state;", "state.n = 2;"),
        ("__device__ int arrived;", "++arrived;"),
        ("#define LANE(x) lane_##x", "int LANE(a) = 1; (void)lane_a;"),
        ("", 'asm volatile("" ::: "memory");'),
        ("", 'asm volatile("ld.global.f32 %0, [%1];" : "=f"(a) : "l"(b));'),
        ("", "static int* found = nullptr; if (found == nullptr) found = new int(1);"),
        ("", "cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, 1);"),
        ("", 'cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &p, cudaEnableDefault, &r);'),
    ],
)
def test_c_that_kernels_need_passes(top, body):
    assert check("cuda", c_source(top, body)) == []


@pytest.mark.parametrize(
    ("top", "body", "words"),
    [
        ("", "auto f = fork;", "'fork'"),
        ("", "f((void*)&dlsym);", "'dlsym'"),
        ("", "fo\\\nrk();", "'fork'"),
        ("#define JOIN(a, b) a##b", "", "pasted"),
        ("#define GO system", "", "'system'"),
        ("#define H <unistd.h>\n#include H", "", "computed #include"),
        ("#include <thread>", "", "'thread'"),
        ("namespace s = std;", "", "under another name"),
        ("", "std::async(f);", "'std::async'"),
        ("", "pthread_create(&t, 0, f, 0);", "'pthread_create'"),
        ("", "cudaStream_t s; cudaStreamCreate(&s);", "'cudaStreamCreate'"),
        ("", "cudaDeviceSetLimit(cudaLimitPersistingL2CacheSize, 1);", "'cudaDeviceSetLimit'"),
        ("", 'cudaGetDriverEntryPoint("cuStreamCreate", &p, 0, &r);', "'cuStreamCreate'"),
        ("", "cublasCreate(&h);", "'cublasCreate'"),
        ("", 'asm volatile("sys" "call");', "system calls"),
        ('int f() __asm__("fork");', "", "another symbol"),
        ("static int ready = prepare();", "", "load time"),
        ("struct E { E() { go(); } };\nE early;", "", "load time"),
        ('extern "C" int mystery(int);', "", "another library's function"),
        ("", "static int n; if (n++ < 3) return;", "counts calls"),
        ("", "static int n; n = n + 1;", "counts calls"),
        ("", "static const void* last; if (last == p) return;", "by its address"),
        ("static std::map<const float*, int> known;", "", "table by address"),
        ("", "auto* frame = __builtin_frame_address(0);", "'__builtin_frame_address'"),
        ("", 'auto f = tvm::ffi::Function::GetGlobal("x");', "'GetGlobal'"),
        ("", 'read_file("/proc/self/maps");', "path of the system"),
    ],
)
def test_c_that_no_kernel_needs_is_refused(top, body, words):
    reasons = check("cuda", c_source(top, body))
    assert any(words in r for r in reasons), reasons
    assert not any(r.startswith("line 0") for r in reasons), reasons


@given(st.text(alphabet=st.sampled_from("abz01_\"'\\/*#<>(){}[];:=&\n \tR@.,"), max_size=80))
def test_any_text_gets_an_answer(text):
    for language in ("cpp", "triton"):
        assert all(r.startswith(("line ", "tunable ")) for r in check(language, text + " "))


@given(st.lists(st.sampled_from(["a", "b1", "::", "->", "(", ")", '"s"', "'c'", "0x1f", "+="])))
def test_tokens_are_read_back(words):
    assert [t.text for t in lexer.tokens(" ".join(words))] == words


def test_lines_are_counted_through_splices_comments_and_strings():
    text = 'a // x\n/* 1\n2 */ b \\\nc\n"s" R"(t\nu)" d\n%:include <e>'
    lines = {t.text: t.line for t in lexer.tokens(text)}
    assert [lines[w] for w in ("a", "b", "c", '"s"', "d", "include")] == [1, 3, 4, 5, 6, 7]
    assert [t.text for t in lexer.tokens(text) if t.directive] == ["#", "include", "<", "e", ">"]


def test_strings_in_a_row_are_read_as_one_and_in_no_time():
    def held(text: str) -> list[tuple[str, bool]]:
        return [(found, whole) for _, found, whole in lexer.strings(lexer.tokens(text))]

    assert held('"/pr" "oc/" x "self"') == [("/proc/", True), ("oc/", False), ("self", True)]
    assert held('#define A "a" \\\n "b"\n"c"') == [("ab", True), ("b", False), ("c", True)]
    many = '"" ' * 20_000 + '"/proc/self"'
    start = time.perf_counter()
    found = lexer.strings(lexer.tokens(many))
    assert all(text == "/proc/self" for _, text, _ in found)
    assert time.perf_counter() - start < 2
