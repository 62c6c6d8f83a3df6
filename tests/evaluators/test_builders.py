"""Builders: every language compiles a real small kernel; errors say what the compiler said."""

import os
import shutil

import pytest
import torch

from evaluators.builders import REGISTRY, BuildError, binary, builder_for
from evaluators.builders.cuda import architecture
from evaluators.schema import BuildSpec, Language, Solution, SourceFile

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")

CPP = """\
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

constexpr float OFFSET = 1.0f;  // tune: 0.0f 1.0f

void Run(tvm::ffi::TensorView x, double factor, tvm::ffi::TensorView y) {
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(y.data_ptr());
#pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = from[i] * factor + OFFSET;
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
"""

CUDA = """\
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

__global__ void scale(const float* x, float* y, int64_t n, float factor) {
  __shared__ float tile[256];
  int64_t i = blockIdx.x * 256 + threadIdx.x;
  if (i < n) tile[threadIdx.x] = x[i];
  __syncthreads();
  if (i < n) y[i] = tile[255 - threadIdx.x] * factor;
}

void Run(tvm::ffi::TensorView x, double factor, tvm::ffi::TensorView y) {
  DLDevice device = x.device();
  auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  scale<<<(x.numel() + 255) / 256, 256, 0, stream>>>(static_cast<const float*>(x.data_ptr()),
      static_cast<float*>(y.data_ptr()), x.numel(), factor);
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
"""

TRITON = """\
import torch
import triton
import triton.language as tl

BLOCK = 64  # tune: 64 128

@triton.jit
def matmul(a, b, c, K, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for k in tl.range(0, K, BLOCK, num_stages=3):
        x = tl.load(a + i[:, None] * K + k + i[None, :])
        y = tl.load(b + i[:, None] * K + k + i[None, :])
        acc = tl.dot(x, tl.trans(y), acc)
    tl.store(c + i[:, None] * BLOCK + i[None, :], acc.to(tl.bfloat16))

def run(a, b, c):
    waves = torch.cuda.get_device_properties(a.device).multi_processor_count // 132
    matmul[(waves,)](a, b, c, a.shape[1], BLOCK, num_warps=8)
"""

TILELANG_C = """\
import functools
import tilelang
import tilelang.language as T

TILE = 16  # tune: 8 16 32

@functools.cache
def kernel(n, k):
    m = T.dynamic("m")

    @T.prim_func
    def rows(a: T.Tensor((m, k), "float32"), b: T.Tensor((n, k), "float32"),
             c: T.Tensor((m, n), "float32")):
        with T.Kernel(T.ceildiv(n, TILE), m) as (x, y):
            acc = T.alloc_local((TILE,), "float32")
            for j in T.serial(TILE):
                acc[j] = 0.0
            for i in T.serial(k):
                for j in T.serial(TILE):
                    acc[j] += a[y, i] * b[x * TILE + j, i]
            for j in T.serial(TILE):
                c[y, x * TILE + j] = acc[j]

    return tilelang.compile(rows, target="c", compile_flags=["-O3", "-march=native"])

def run(a, b, c):
    kernel(b.shape[0], a.shape[1])(a, b, c)
"""

TILELANG = """\
import functools
import tilelang
import tilelang.language as T

STAGES = 3  # tune: 2 3 4

@functools.cache
def kernel(n, k):
    @tilelang.jit
    def matmul(n, k):
        m = T.dynamic("m")

        @T.prim_func
        def tiles(a: T.Tensor((m, k), "bfloat16"), b: T.Tensor((n, k), "bfloat16"),
                  c: T.Tensor((m, n), "bfloat16")):
            with T.Kernel(T.ceildiv(n, 64), T.ceildiv(m, 64), threads=128) as (x, y):
                left = T.alloc_shared((64, 64), "bfloat16")
                right = T.alloc_shared((64, 64), "bfloat16")
                acc = T.alloc_fragment((64, 64), "float32")
                T.clear(acc)
                for i in T.Pipelined(T.ceildiv(k, 64), num_stages=STAGES):
                    T.copy(a[y * 64, i * 64], left)
                    T.copy(b[x * 64, i * 64], right)
                    T.gemm(left, right, acc, transpose_B=True)
                T.copy(acc, c[y * 64, x * 64])

        return tiles

    return matmul(n, k)

def run(a, b, c):
    kernel(b.shape[0], a.shape[1])(a, b, c)
"""

SUFFIX = {Language.CPP: "cpp", Language.CUDA: "cu"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Builders point compile caches into the candidate's folder; put the environment back."""
    for name in ("TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "TILELANG_TMP_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("TILELANG_PRINT_ON_COMPILATION", "0")


def solution(language, source, function="run", **more_files):
    language = Language(language)
    entry = f"kernel.{SUFFIX.get(language, 'py')}"
    files = {entry: source, **{k.replace("__", "."): v for k, v in more_files.items()}}
    return Solution(
        name="test",
        definition="test",
        author="test",
        spec=BuildSpec(
            language=language, target_hardware=("cpu",), entry_point=f"{entry}::{function}"
        ),
        sources=tuple(SourceFile(path=k, content=v) for k, v in files.items()),
    )


def build(language, source, folder, device="cpu", **more):
    return builder_for(Language(language)).build(solution(language, source, **more), folder, device)


def compile_only(language, source, inputs, folder, target="sm_90a"):
    builder = builder_for(Language(language))
    return builder.compile_only(solution(language, source), inputs, folder, target)


def bf16(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16)


def test_every_language_has_its_builder():
    assert set(REGISTRY) == set(Language)
    assert all(builder_for(language).language is language for language in Language)


# --- C++ ---


def test_cpp_compiles_and_runs(tmp_path):
    built = build("cpp", CPP, tmp_path)
    x, y = torch.randn(1000), torch.full((1000,), float("nan"))
    assert built.call(x, 3.0, y) is None
    torch.testing.assert_close(y, 3 * x + 1)
    assert built.facts().target == "native"
    assert built.facts().seconds > 0
    assert built.prepare is None


def test_cpp_is_optimised_with_openmp(tmp_path):
    body = "#ifdef _OPENMP\n#define THREADED 1\n#endif\nstatic_assert(THREADED);\n"
    body += "#ifndef __OPTIMIZE__\n#error not optimised\n#endif\n"
    facts = compile_only("cpp", body + CPP, [], tmp_path)
    assert facts.kernels == ("run",)


def test_cpp_compiles_all_its_files_and_finds_headers(tmp_path):
    source = '#include "part/bias.h"\n' + CPP.replace("+ OFFSET", "+ bias()")
    built = build(
        "cpp",
        source,
        tmp_path,
        **{"part/bias__h": "float bias();\n", "bias__cpp": "float bias() { return 5; }\n"},
    )
    y = torch.empty(2)
    built.call(torch.zeros(2), 1.0, y)
    assert y.tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("to[i] =", "to[i] = undeclared +", "undeclared"),
        ("+ OFFSET", "+ elsewhere(i)", "elsewhere"),
        ("FUNC(run, Run)", "FUNC(other, Run)", "has no function 'run'"),
    ],
)
def test_cpp_errors_are_the_compilers_words(tmp_path, old, new, words):
    source = CPP.replace(old, new)
    if "elsewhere" in words:
        source = source.replace("void Run", "float elsewhere(int64_t);\nvoid Run")
    with pytest.raises(BuildError) as caught:
        build("cpp", source, tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


# --- CUDA C++ ---


@needs_nvcc
def test_cuda_compiles_for_a_named_target(tmp_path):
    facts = compile_only("cuda", CUDA, [], tmp_path)
    assert facts.target == "sm_90a"
    assert facts.shared_bytes == 1024
    assert facts.registers > 0
    assert facts.spills == 0
    assert any("scale" in kernel for kernel in facts.kernels)


@needs_nvcc
def test_cuda_errors_name_the_line(tmp_path):
    with pytest.raises(BuildError, match=r'kernel.cu\(11\): error.*"undeclared"'):
        compile_only("cuda", CUDA.replace("* factor;", "* undeclared;"), [], tmp_path)


def test_cuda_says_when_nvcc_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    with pytest.raises(BuildError, match="nvcc is not there"):
        compile_only("cuda", CUDA, [], tmp_path)


def test_cuda_does_not_run_on_the_cpu(tmp_path):
    with pytest.raises(BuildError, match="does not run on cpu"):
        build("cuda", CUDA, tmp_path)


def test_architectures_carry_their_own_features():
    assert architecture((8, 0)) == "sm_80"
    assert architecture((9, 0)) == "sm_90a"
    assert architecture((10, 0)) == "sm_100a"


# --- Triton ---


def test_triton_compiles_for_a_named_target(tmp_path):
    inputs = [bf16(64, 512), bf16(64, 512), bf16(64, 64)]
    facts = compile_only("triton", TRITON, inputs, tmp_path)
    assert facts.kernels == ("matmul",)
    assert facts.target == "sm_90a"
    assert facts.num_warps == 8
    assert facts.shared_bytes >= 2 * 2 * 64 * 64 * 2
    assert facts.registers > 0
    assert list((tmp_path / "triton").rglob("*.cubin")), "the cache is the candidate's own"


def test_triton_tunables_change_the_facts(tmp_path):
    inputs = [bf16(128, 512), bf16(128, 512), bf16(128, 128)]
    large = TRITON.replace("BLOCK = 64", "BLOCK = 128")
    facts = compile_only("triton", large, inputs, tmp_path)
    assert facts.shared_bytes >= 2 * 2 * 128 * 128 * 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tl.dot(", "tl.dott(", "dott"),
        ("def run(a, b, c):", "def run(a, b, c):\n    return", "launched no Triton kernel"),
        ("import torch\n", "import torch\nimport nowhere\n", "No module named 'nowhere'"),
        ("num_stages=3", "num_stages=40", "bytes of shared memory, sm_90a allows 232448"),
    ],
)
def test_triton_errors(tmp_path, old, new, words):
    inputs = [bf16(64, 4096), bf16(64, 4096), bf16(64, 64)]
    with pytest.raises(BuildError) as caught:
        compile_only("triton", TRITON.replace(old, new), inputs, tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(BuildError, match="unknown target 'sm_12'"):
        compile_only("triton", TRITON, [], tmp_path, target="sm_12")


def test_compile_only_leaves_torch_as_it_was(tmp_path):
    before = torch.cuda.get_device_properties, torch.cuda.is_available()
    compile_only("triton", TRITON, [bf16(64, 64), bf16(64, 64), bf16(64, 64)], tmp_path)
    assert (torch.cuda.get_device_properties, torch.cuda.is_available()) == before


# --- TileLang ---


def test_tilelang_runs_on_the_cpu(tmp_path):
    built = build("tilelang", TILELANG_C, tmp_path)
    a, b, c = torch.randn(5, 96), torch.randn(64, 96), torch.empty(5, 64)
    built.call(a, b, c)
    torch.testing.assert_close(c, a @ b.T, rtol=1e-4, atol=1e-4)
    assert built.facts().kernels == ("rows_kernel",)
    assert any((tmp_path / "tilelang").iterdir()), "the cache is the candidate's own"


@needs_nvcc
def test_tilelang_compiles_for_a_named_target(tmp_path):
    inputs = [bf16(16, 256), bf16(128, 256), bf16(16, 128)]
    facts = compile_only("tilelang", TILELANG, inputs, tmp_path)
    assert facts.kernels == ("tiles_kernel",)
    assert facts.target == "sm_90a"
    assert facts.shared_bytes >= 3 * 2 * 64 * 64 * 2
    assert facts.registers > 0
    assert facts.num_warps >= 4


def test_tilelang_errors(tmp_path):
    inputs = [bf16(16, 256), bf16(128, 256), bf16(16, 128)]
    with pytest.raises(BuildError, match="name 'wrong' is not defined"):
        compile_only("tilelang", TILELANG.replace("gemm(left", "gemm(wrong"), inputs, tmp_path)


# --- Python peers ---


def test_python_run(tmp_path):
    built = build("python", "def run(x, y):\n    y.copy_(2 * x)\n", tmp_path)
    y = torch.empty(3)
    built.call(torch.ones(3), y)
    assert y.tolist() == [2.0] * 3


def test_python_prepare_plans_outside_the_call(tmp_path):
    source = "def prepare(x, y):\n    doubled = 2 * x\n    return lambda: y.copy_(doubled)\n"
    built = build("python", source, tmp_path, function="prepare")
    x, y = torch.ones(3), torch.zeros(3)
    job = built.prepare(x, y)
    assert y.tolist() == [0.0] * 3
    job()
    assert y.tolist() == [2.0] * 3
    built.call(x * 2, y)
    assert y.tolist() == [4.0] * 3


def test_python_helpers_beside_the_entry_file(tmp_path):
    source = "from helper_of_the_test import double\ndef run(x, y):\n    y.copy_(double(x))\n"
    helper = "def double(x):\n    return 2 * x\n"
    built = build("python", source, tmp_path, helper_of_the_test__py=helper)
    y = torch.empty(1)
    built.call(torch.ones(1), y)
    assert y.item() == 2.0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def other():\n    pass\n", "has no function 'run'"),
        ("x = 1\nx.nope\ndef run():\n    pass\n", "kernel.py:2 in <module>: x.nope"),
        ("def run(:\n", "SyntaxError"),
    ],
)
def test_python_errors(tmp_path, source, words):
    with pytest.raises(BuildError) as caught:
        build("python", source, tmp_path)
    assert words in str(caught.value)


# --- on a CUDA device ---


def cuda_case(language):
    """Source, arguments with the output last, and the expected output."""
    if language == "cuda":
        x = torch.randn(4096, device="cuda")
        return CUDA, [x, 0.5, torch.empty_like(x)], x.view(-1, 256).flip(1).flatten() * 0.5
    source = {"triton": TRITON, "tilelang": TILELANG}[language]
    a, b = (torch.randn(64, 512, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return source, [a, b, a.new_empty(64, 64)], a.float() @ b.float().T


@needs_gpu
@pytest.mark.parametrize("language", ["cuda", "triton", "tilelang"])
def test_kernels_run_and_are_captured_on_torchs_current_stream(tmp_path, language):
    source, arguments, expected = cuda_case(language)
    output = arguments[-1]
    built = build(language, source, tmp_path, device="cuda")
    built.call(*arguments)
    torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=0.2)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        built.call(*arguments)
    output.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=0.2)
    facts = built.facts()
    assert facts.registers > 0
    assert facts.shared_bytes > 0
    assert facts.spills == 0
    assert facts.kernels


# -- the hash of what was built -------------------------------------------------------------------


def built_from(tmp_path, language, source):
    folder = tmp_path / f"build_{len(list(tmp_path.iterdir()))}_of_a_name_of_its_own"
    folder.mkdir()
    builder = builder_for(language)
    return builder.compile_only(solution(language, source), [], folder, "sm_90").binary


PLAIN_CPP = """\
#include <math.h>
constexpr float OFFSET = 1.0f;
extern "C" void run(const float* x, float* y, int n) {
  for (int i = 0; i < n; ++i) y[i] = erff(x[i]) + OFFSET;
}
"""


@pytest.fixture(scope="module")
def plain_cpp(tmp_path_factory):
    return built_from(tmp_path_factory.mktemp("plain"), Language.CPP, PLAIN_CPP)


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("", "", True),
        ("x[i]) +", "*(x + i)) +", True),
        ("OFFSET = 1.0f;", "OFFSET = 1.0f, UNUSED = 2.0f;", True),
        ("OFFSET = 1.0f;", "OFFSET = 1.5f;", False),
        ("erff", "tanf", False),  # nothing differs but the name of what is linked
        ('extern "C" void run', 'extern "C" void ran', False),
    ],
)
def test_cpp_s_hash_says_whether_the_code_is_the_same(tmp_path, plain_cpp, old, new, is_same):
    assert len(plain_cpp) == 32
    changed = built_from(tmp_path, Language.CPP, PLAIN_CPP.replace(old, new))
    assert (changed == plain_cpp) == is_same


def test_a_file_of_another_kind_has_no_hash(tmp_path):
    file = tmp_path / "kernel.so"
    for content in (b"", b"not a library", b"\x7fELF\x02", b"\x7fELF\x02" + b"\xff" * 200):
        file.write_bytes(content)
        assert binary.digest(file) == ""


PLAIN_CUDA = """\
namespace {
__global__ void scale(float* y, int n) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i < n) y[i] *= 3.0f;
}
}
extern "C" void run(float* y, int n) { scale<<<n / 256, 256>>>(y, n); }
"""


@needs_nvcc
def test_cuda_s_hash_says_whether_the_code_is_the_same(tmp_path):
    one = built_from(tmp_path, Language.CUDA, PLAIN_CUDA)
    assert len(one) == 32
    renamed = PLAIN_CUDA.replace("int i =", "int at =").replace("i < n", "at < n")
    assert built_from(tmp_path, Language.CUDA, renamed.replace("[i]", "[at]")) == one
    assert built_from(tmp_path, Language.CUDA, PLAIN_CUDA.replace("3.0f", "4.0f")) != one
    assert built_from(tmp_path, Language.CUDA, PLAIN_CUDA.replace("n / 256", "n / 128")) != one


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("", "\n\n# a comment, and lines that move\n", True),
        ("acc", "total", True),  # a local name of the kernel
        ("tl.zeros", "0.0 + tl.zeros", True),  # what the compiler drops
        ("tl.dot", "2 * tl.dot", False),
        ("def run(", "LATER = 3\n\n\ndef run(", False),  # host code: it might be used
    ],
)
def test_triton_s_hash_says_whether_the_code_is_the_same(tmp_path, old, new, is_same):
    inputs = [bf16(64, 512), bf16(64, 512), bf16(64, 64)]
    found = []
    mine = TRITON + "# of this test\n"  # kernels are found by their module's name
    for number, source in enumerate((mine, mine.replace(old, new, -1 if old else 1))):
        (tmp_path / str(number)).mkdir()
        found.append(compile_only("triton", source, inputs, tmp_path / str(number)).binary)
    assert len(found[0]) == 32
    assert (found[0] == found[1]) == is_same
