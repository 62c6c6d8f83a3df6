"""Niches: what is read from sources and build facts, and that reading never fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.schema import BuildFacts, Language
from islands.descriptor import describe
from islands.niche import AXES, Niche
from tests.islands.samples import passed, program

TRITON = """
import triton.language as tl
BLOCK_M = 64  # tune: 32 64
BLOCK_N = 64  # tune: 64 128
BLOCK_K = 32  # tune: 32 64
NUM_STAGES = 3  # tune: 2 3 4
NUM_WARPS = 4  # tune: 4 8
def kernel(x, BLOCK_M: tl.constexpr):
    return tl.load(x)  # not persistent, no split
def run(x, y):
    kernel[(1,)](x, BLOCK_M, num_stages=NUM_STAGES, num_warps=NUM_WARPS)
"""
TILELANG = """
def kernel():
    with T.Kernel(8, threads=256) as bx:
        for k in T.Pipelined(4, num_stages=2):
            T.copy(A[k * block_K], A_shared)
block_M, block_N = 128, 128
block_M = 128
block_N = 128
"""
CUDA = """
#define BLOCK_N 32  // tune: 32 64
constexpr int NUM_THREADS = 128;
constexpr int STAGES = 2;
__global__ void split_kv_kernel(float* x) { asm("cp.async.cg.shared.global"); }
"""
CPP = "constexpr int TILE_M = 16;\nconstexpr int TILE_N = 64;\nvoid run(float* x) {}"


@pytest.mark.parametrize(
    ("source", "language", "build", "key"),
    [
        (TRITON, Language.TRITON, None, "triton/tiled/t64/s3/w4/pointer"),
        (
            TRITON + "SPLIT_K = 4  # tune: 1 4\n",
            Language.TRITON, None, "triton/split/t64/s3/w4/pointer",
        ),
        (
            TRITON + "SPLIT_K = 1  # tune: 1 4\n",
            Language.TRITON, None, "triton/tiled/t64/s3/w4/pointer",
        ),
        (
            TRITON + "PERSISTENT = True  # tune: True False\n",
            Language.TRITON, None, "triton/persistent/t64/s3/w4/pointer",
        ),
        (
            TRITON + "for t in tl.range(pid, tiles, tl.num_programs(0)):\n    pass\n",
            Language.TRITON, None, "triton/persistent/t64/s3/w4/pointer",
        ),
        (
            TRITON.replace("tl.load(x)", "tl.make_tensor_descriptor(x)"),
            Language.TRITON, None, "triton/tiled/t64/s3/w4/tma",
        ),
        (
            TRITON + "USE_TMA = 0  # tune: 0 1\nd = TensorDescriptor(x)\n",
            Language.TRITON, None, "triton/tiled/t64/s3/w4/pointer",
        ),
        (
            TILELANG, Language.TILELANG, BuildFacts(target="sm_90a"),
            "tilelang/tiled/t128/s2/w8/tma",
        ),
        (
            TILELANG, Language.TILELANG, BuildFacts(target="sm_80"),
            "tilelang/tiled/t128/s2/w8/cp_async",
        ),
        (
            TILELANG, Language.TILELANG, BuildFacts(target="c"),
            "tilelang/tiled/t128/other/other/pointer",
        ),
        (CUDA, Language.CUDA, None, "cuda/split/t32/s2/w4/cp_async"),
        (CPP, Language.CPP, None, "cpp/tiled/t32/other/other/pointer"),
        (
            "def run(x):\n    tl.load(x)\n", Language.TRITON, BuildFacts(num_warps=8, num_stages=5),
            "triton/other/other/s4/w8/pointer",
        ),
        ("def run(x):\n    pass\n", Language.PYTHON, None, "other/other/other/other/other/other"),
    ],
)  # fmt: skip
def test_examples(source: str, language: Language, build: BuildFacts | None, key: str) -> None:
    assert describe(program(source, language), passed(1.0, build=build)).key == key


def test_comments_and_docstrings_say_nothing() -> None:
    noisy = '"""persistent split_k TensorDescriptor"""\n# cp.async NUM_STAGES = 4\n' + TRITON
    one, other = program(noisy), program(TRITON)
    assert describe(one, passed(1.0)) == describe(other, passed(1.0))


def test_a_regimes_tunables_count_too() -> None:
    source = (
        "BLOCK_M_FEW = 16\nBLOCK_K_FEW = 256\nBLOCK_M = 64\nUSE_TMA_FEW = 1\nTensorDescriptor\n"
    )
    niche = describe(program(source), passed(1.0))
    assert (niche.tile, niche.memory) == ("t32", "tma")


def test_a_key_names_its_niche() -> None:
    niche = Niche("cuda", "split", "t64", "s3", "w4", "tma")
    assert niche.key == "cuda/split/t64/s3/w4/tma"


names = st.sampled_from(
    ["BLOCK_M", "TILE_N", "BLOCK", "BM", "num_warps", "NUM_STAGES", "threads", "SPLIT_K", "USE_TMA",
     "PERSISTENT", "_tunable_3_"]
)  # fmt: skip
values = st.one_of(
    st.integers(-5, 10**12).map(str), st.sampled_from(["True", "x", "_tunable_9_", ""])
)
statements = st.tuples(names, st.sampled_from([" = ", ": ", "=", " "]), values).map("".join)


@given(
    st.one_of(st.text(min_size=1), st.lists(statements, min_size=1).map("\n".join)),
    st.sampled_from(Language),
    st.builds(
        BuildFacts, num_warps=st.integers(), num_stages=st.integers(), target=st.text(max_size=8)
    ),
)
@settings(max_examples=300, deadline=None)
def test_any_source_has_a_niche(source: str, language: Language, build: BuildFacts) -> None:
    niche = describe(program(source, language), passed(1.0, build=build))
    assert len(niche) == len(AXES)
    assert all(value in axis for value, axis in zip(niche, AXES.values(), strict=True))
