"""Names in a device profile against the kernels that a source declares."""

from pathlib import Path

import pytest

from evaluators import launches
from evaluators.schema import BuildSpec, Language, Solution, SourceFile
from tests.hacks import cases

FILL = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, X>(int)"
GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1"

TRITON = """
import triton
import triton.language as tl

@triton.autotune(configs=[], key=[])
@triton.jit
def split(x): ...

@triton.jit(do_not_specialize=["n"])
def merge(x, n): ...

def run(x, y):
    split[(1,)](x)
"""

CUDA = """
template <int BLOCK>
__global__ void __launch_bounds__(128, 2) split(const float* x) {}
namespace { __global__ __cluster_dims__(2, 1, 1) void merge(float* y) {} }
// __global__ void commented(float* y);
void Run() { split<4><<<1, 2>>>(nullptr); }
"""

TILELANG = """
import tilelang
import tilelang.language as T

@tilelang.jit
def build(n):
    @T.prim_func
    def main(x: T.Tensor((n,), "float32")): ...
    return main

def run(x, y):
    build(4)(x)
"""


def solution(text: str, language: Language, passing: bool = True) -> Solution:
    file = "kernel.cu" if language is Language.CUDA else "kernel.py"
    return Solution(
        name="candidate",
        definition="d",
        author="test",
        sources=(SourceFile(path=file, content=text),),
        spec=BuildSpec(
            language=language,
            target_hardware=("cuda",),
            entry_point=f"{file}::run",
            destination_passing_style=passing,
        ),
    )


def rows(**microseconds: float) -> list[dict[str, object]]:
    return [{"name": n, "count": 1, "device_us": us} for n, us in microseconds.items()]


@pytest.mark.parametrize(
    ("text", "language", "names"),
    [
        (TRITON, Language.TRITON, {"split", "merge"}),
        (CUDA, Language.CUDA, {"split", "merge"}),
        (TILELANG, Language.TILELANG, {"build", "main"}),
    ],
)
def test_declared_kernels(text: str, language: Language, names: set[str]) -> None:
    assert launches.declared(solution(text, language)) == names


@pytest.mark.parametrize(
    ("launched", "name"),
    [
        ("split", "split"),
        ("split_0d1d2c", "split"),
        ("main_kernel", "main"),
        ("main_kernel_1", "main"),
        ("void split<128, 4>(float const*, int)", "split"),
        ("void (anonymous namespace)::split<(Mode)1, true>(float const*)", "split"),
        ("void ns::Outer<int>::split(ns::Arg<float>)", "split"),
        ("std::pair<int, int> split<std::array<char*, 1ul> >(int)", "split"),
    ],
)
def test_a_decorated_name_is_that_of_its_function(launched: str, name: str) -> None:
    assert launches.is_named(launched, name)


@pytest.mark.parametrize("launched", ["splitkreduce_kernel", "void split2::other<1>(int)", FILL])
def test_a_library_kernel_is_not(launched: str) -> None:
    assert not launches.is_named(launched, "split")


def test_own_kernels_pass_with_a_small_fill() -> None:
    profile = rows(split=90.0, merge=8.0) + rows(**{"Memset (Device)": 1.0, FILL: 1.0})
    assert launches.fault(profile, solution(TRITON, Language.TRITON)) == ""


def test_a_library_call_is_told_with_its_name_and_share() -> None:
    profile = rows(split=10.0) + rows(**{GEMM: 90.0})
    text = launches.fault(profile, solution(TRITON, Language.TRITON))
    assert GEMM in text
    assert "90%" in text
    assert "none of its own" in launches.fault(rows(**{GEMM: 1.0}), solution(CUDA, Language.CUDA))


def test_copies_may_take_no_large_part_unless_outputs_are_returned() -> None:
    profile = rows(split=50.0) + rows(**{"Memcpy DtoD (Device -> Device)": 50.0})
    assert "copying" in launches.fault(profile, solution(TRITON, Language.TRITON))
    assert launches.fault(profile, solution(TRITON, Language.TRITON, passing=False)) == ""


@pytest.mark.parametrize("claimed", [None, [], "x", [{"name": 3}], [{"name": "split"}]])
def test_no_profile_is_not_available(claimed: object) -> None:
    text = launches.fault(claimed, solution(TRITON, Language.TRITON))
    assert text.startswith(launches.UNAVAILABLE)


def test_every_honest_cuda_kernel_declares_kernels() -> None:
    corpus = Path(__file__).parents[1] / "honest" / "corpus"
    for case in cases.read(corpus):
        if case.device == "cuda":
            assert launches.declared(case.solution), case.name
