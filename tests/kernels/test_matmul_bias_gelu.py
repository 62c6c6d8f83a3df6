"""Operator matmul_bias_gelu: exact and honest results, inputs, cost, and its seeds on the CPU.

The Triton seeds run in Triton's interpreter in float16 (its bfloat16 dot is wrong), in a process of
their own because interpreting is decided at import.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from evaluators import catalog, correctness, tunables
from evaluators.builders import cuda
from evaluators.builders.base import BuildError
from evaluators.schema import Definition, Language

ROOT = Path(__file__).parents[2]
OPERATOR = ROOT / "kernels" / "matmul_bias_gelu"
SEEDS = ROOT / "seeds" / "matmul_bias_gelu"
DEFINITIONS = sorted((OPERATOR / "definitions").glob("*.json"))
SEED_BLOCKS = tomllib.loads((SEEDS / "seeds.toml").read_text())["seed"]
CUDA_BLOCKS = [block for block in SEED_BLOCKS if "cuda" in block["devices"]]


def by_path(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tested_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def operator() -> ModuleType:
    return by_path(OPERATOR / "operator.py")


def small(name: str = "matmul_bias_gelu_f32_k512_n512") -> dict[str, Any]:
    return json.loads((OPERATOR / "definitions" / f"{name}.json").read_text())


def made(operator: ModuleType, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    definition = small()
    axes, make = operator.axes_of(definition, {"num_tokens": tokens})
    generator = torch.Generator().manual_seed(seed)
    return operator.make_inputs(definition, axes, make, {}, generator, "cpu")


def error(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest absolute difference over the reference's RMS; NaN where the output has one."""
    difference = (output.double() - reference.double()).abs().max()
    return (difference / reference.double().square().mean().sqrt()).item()


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda p: p.stem)
def test_definition_is_valid_and_named_after_its_shape(path: Path) -> None:
    definition = Definition.model_validate_json(path.read_text())
    const = definition.const_axes
    assert definition.name == path.stem
    assert f"_k{const['k']}_n{const['n']}" in definition.name
    assert list(definition.inputs) == ["x", "weight", "bias"]
    assert list(definition.outputs) == ["output"]


def test_definitions_carry_the_operators_reference(operator: ModuleType) -> None:
    space: dict[str, Any] = {}
    exec(small()["reference"], space)
    inputs = made(operator, 5)
    torch.testing.assert_close(space["run"](**inputs), operator.run(**inputs), rtol=0, atol=0)


def test_reference_is_the_textbook_formula(operator: ModuleType) -> None:
    inputs = {name: t.double() for name, t in made(operator, 9).items()}
    y = torch.einsum("mk,nk->mn", inputs["x"], inputs["weight"]) + inputs["bias"]
    u = (2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)
    expected = 0.5 * y * (1 + torch.tanh(u))
    got = operator.run(**{name: t.float() for name, t in inputs.items()})
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)


def test_inputs_follow_the_generator_and_have_unit_scale(operator: ModuleType) -> None:
    first, again, other = (made(operator, 64, seed) for seed in (1, 1, 2))
    for name, shape in {"x": (64, 512), "weight": (512, 512), "bias": (512,)}.items():
        assert first[name].shape == shape
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
    linear = first["x"] @ first["weight"].T
    assert 0.9 < linear.std().item() < 1.1


def test_cost_counts_multiply_adds_and_every_tensor_once(operator: ModuleType) -> None:
    flops, least_bytes = operator.cost(
        small("matmul_bias_gelu_bf16_k7168_n2048"), {"num_tokens": 64}, {}
    )
    assert flops == 2 * 64 * 2048 * 7168
    assert least_bytes == 2 * (64 * 7168 + 2048 * 7168 + 2048 + 64 * 2048)


def judged(output: torch.Tensor, operator: ModuleType, inputs: dict[str, torch.Tensor]) -> str:
    """What the judge says of an output for these inputs."""
    dtype = str(inputs["x"].dtype).removeprefix("torch.")
    definition = next(
        d for d in map(_definition, DEFINITIONS) if d.outputs["output"].dtype == dtype
    )
    exact = (operator.exact(**inputs),)
    budget = correctness.budget_of(exact, (operator.honest(**inputs),), definition, {})
    return correctness.compare((output,), exact, budget, definition).fault


def assert_right(run: Callable[..., Any], operator: ModuleType) -> None:
    """A CPU kernel is right in all cases, in two draws each, and in other sizes."""
    spec = small()
    sizes = [operator.axes_of(spec, {"num_tokens": tokens}) for tokens in (33, 96)]
    for axes, make in [*operator.cases(spec), *sizes]:
        generator = torch.Generator().manual_seed(5)
        inputs = operator.make_inputs(spec, axes, make, {}, generator, "cpu")
        for _ in range(2):
            output = torch.full((axes["num_tokens"], 512), float("nan"))
            run(*inputs.values(), output)
            assert not judged(output, operator, inputs), make["label"]
            operator.vary(spec, axes, make, inputs, generator)


def _definition(path: Path) -> Definition:
    return Definition.model_validate_json(path.read_text())


def test_the_budget_allows_rounding_twice_and_not_a_lost_block_of_k(operator: ModuleType) -> None:
    inputs = {name: t.bfloat16() for name, t in made(operator, 128).items()}
    linear = torch.nn.functional.linear(inputs["x"], inputs["weight"], inputs["bias"])
    eager = torch.nn.functional.gelu(linear, approximate="tanh")
    assert not judged(eager, operator, inputs)
    lost = {**inputs, "x": inputs["x"].clone()}
    lost["x"][:, 96:98] = 0
    assert judged(operator.run(**lost), operator, inputs)


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda p: p.stem)
def test_cases_are_right_when_honest_and_wrong_when_zero(path: Path, operator: ModuleType) -> None:
    spec = json.loads(path.read_text())
    spec["axes"]["k"]["value"], spec["axes"]["n"]["value"] = 512, 256
    found = operator.cases(spec)
    assert {make["values"] for _, make in found} == {"normal", "large", "zeros", "negative"}
    assert {1, 16, 17, 129} <= {axes["num_tokens"] for axes, _ in found}
    for axes, make in found:
        generator = torch.Generator().manual_seed(0)
        inputs = operator.make_inputs(spec, axes, make, {}, generator, "cpu")
        output = operator.honest(**inputs)
        assert output.isfinite().all()
        assert not judged(output, operator, inputs), make["label"]
        assert judged(torch.zeros_like(output), operator, inputs), make["label"]
        if make["values"] == "negative":
            assert all(bool((t <= 0).all()) for t in inputs.values())
        assert bool((inputs["x"] == 0).all()) == (make["values"] == "zeros")


@pytest.mark.parametrize("style", ["normal", "large", "zeros", "negative"])
def test_vary_changes_every_output_and_keeps_the_distribution(
    style: str, operator: ModuleType
) -> None:
    spec, axes, make = small(), {"num_tokens": 16}, {"values": style}

    def drawn(draw: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        inputs = operator.make_inputs(spec, axes, make, {}, generator, "cpu")
        before = {name: t.data_ptr() for name, t in inputs.items()}
        operator.vary(spec, axes, make, inputs, torch.Generator().manual_seed(draw))
        assert before == {name: t.data_ptr() for name, t in inputs.items()}
        return inputs

    base = operator.make_inputs(spec, axes, make, {}, torch.Generator().manual_seed(3), "cpu")
    first, again, second = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for one, other in ((first, second), (first, base)):
        assert not (one["weight"] == other["weight"]).all(0).any()  # in every column
        assert not (one["weight"] == other["weight"]).all(1).any()  # and row
        assert float((operator.run(**one) == operator.run(**other)).double().mean()) < 0.3
    for name in first:
        assert float(first[name].std()) == pytest.approx(float(base[name].std()), rel=0.1)


@pytest.mark.parametrize("block", SEED_BLOCKS, ids=lambda b: b["file"])
def test_seed_declares_tunables_that_include_its_defaults(block: dict[str, Any]) -> None:
    found = tunables.find((SEEDS / block["file"]).read_text())
    assert len(found) >= 4
    for tunable in found.values():
        assert tunable.value in tunable.choices
        assert len(tunable.choices) >= 2


@pytest.mark.parametrize("definition", ["k7168_n2048", "k4096_n14336"])
@pytest.mark.parametrize("block", CUDA_BLOCKS, ids=lambda b: b["file"])
def test_every_tile_divides_the_definitions_axes(block: dict[str, Any], definition: str) -> None:
    axes = {"K": 7168, "N": 2048} if definition == "k7168_n2048" else {"K": 4096, "N": 14336}
    for name, tunable in tunables.find((SEEDS / block["file"]).read_text()).items():
        for axis, extent in axes.items():
            if f"BLOCK_{axis}" in name:
                assert all(extent % int(choice) == 0 for choice in tunable.choices), name


class TestCpp:
    """The C++ seed, built with the flags that the project builds with."""

    def run(self, tmp_path: Path, operator: ModuleType, values: dict[str, str]) -> None:
        from tvm_ffi import libinfo, load_module

        source = tunables.assign((SEEDS / "cpp.cpp").read_text(), values)
        (tmp_path / "kernel.cpp").write_text(source)
        library = Path(libinfo.find_libtvm_ffi())
        includes = (libinfo.find_include_path(), libinfo.find_dlpack_include_path())
        subprocess.run(
            ["g++", "-O3", "-march=native", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
            + [f"-I{path}" for path in includes]
            + ["kernel.cpp", "-o", "kernel.so", str(library), f"-Wl,-rpath,{library.parent}"],
            cwd=tmp_path,
            check=True,
        )
        run = load_module(str(tmp_path / "kernel.so")).run
        assert_right(run, operator)

    def test_default(self, tmp_path: Path, operator: ModuleType) -> None:
        self.run(tmp_path, operator, {})

    def test_other_tiles(self, tmp_path: Path, operator: ModuleType) -> None:
        values = {"TILE_M": "48", "TILE_N": "64", "TILE_K": "128", "ROWS": "6", "COLS": "32"}
        self.run(tmp_path, operator, {**values, "WEIGHT_FIRST": "1"})


def test_tilelang_c_seed_is_right_for_any_number_of_tokens(operator: ModuleType) -> None:
    pytest.importorskip("tilelang")
    assert_right(by_path(SEEDS / "tilelang_c.py").run, operator)


@pytest.mark.parametrize("seed", ["triton_tiled", "triton_splitk", "triton_hybrid"])
def test_triton_seed_lowers_its_depth_until_shared_memory_holds_it(seed: str) -> None:
    pytest.importorskip("triton")
    fit = by_path(SEEDS / f"{seed}.py").depth_that_fits
    for rows, block_k, stages in itertools.product((32, 128, 256, 512), (32, 64, 512), (2, 4, 8)):
        got_k, got_stages = fit(rows, block_k, stages)
        assert rows * got_k * 2 * got_stages < 227 * 1024
        assert 1 <= got_stages <= stages
        assert min(block_k, 64) <= got_k <= block_k
    assert fit(128, 64, 6) == (64, 6)


@pytest.mark.parametrize("extreme", [0, -1], ids=["smallest", "largest"])
def test_cuda_seed_compiles_without_spills_at_both_ends_of_its_tunables(
    extreme: int, tmp_path: Path
) -> None:
    try:
        cuda.find_nvcc()
    except BuildError as absent:
        pytest.skip(str(absent))
    operator_found = catalog.load_operator("matmul_bias_gelu")
    definition = operator_found.definitions["matmul_bias_gelu_bf16_k7168_n2048"]
    seeds = catalog.seeds(operator_found, definition, "cuda")
    seed = next(s for s in seeds if s.spec.language is Language.CUDA)
    values = {name: t.choices[extreme] for name, t in tunables.find(seed.entry_source).items()}
    edited = seed.with_entry_source(tunables.assign(seed.entry_source, values))
    facts = cuda.CudaBuilder().compile_only(edited, [], tmp_path, "sm_90a")
    assert len(facts.kernels) == 6  # one for each width of the token tile
    assert facts.spills == 0
    assert 0 < facts.registers <= 255


INTERPRET = """
import importlib.util, json, sys, types
import torch

torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=16)
generator = torch.Generator().manual_seed(0)
k, n = 512, 256
weight = (torch.randn(n, k, generator=generator) / k**0.5).half()
bias = torch.randn(n, generator=generator).half()


def errors(path, tokens):
    spec = importlib.util.spec_from_file_location(path, path)
    seed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seed)
    for m in tokens:
        x = torch.randn(m, k, generator=generator).half()
        linear = x.float() @ weight.float().T + bias.float()
        reference = torch.nn.functional.gelu(linear, approximate="tanh")
        for launch in range(2):  # the second finds the counters as the first left them
            output = torch.full((m, n), float("nan"), dtype=torch.float16)
            seed.run(x, weight, bias, output)
            yield (output.float() - reference).abs().max().item()


print(json.dumps({path: list(errors(path, tokens)) for path, tokens in json.load(sys.stdin)}))
"""

INTERPRETED: list[tuple[str, dict[str, str], tuple[int, ...]]] = [
    ("triton_splitk", {"SPLIT_K": "4"}, (1, 17, 70)),
    ("triton_splitk", {"SPLIT_K": "7", "SWAP_AB": "0", "USE_TMA": "1", "BLOCK_K": "64"}, (17,)),
    ("triton_splitk", {"SPLIT_K": "8", "BLOCK_M": "32", "CTAS_PER_SM": "4"}, (200,)),
    ("triton_tiled", {"GROUP_M": "2"}, (3, 300)),
    ("triton_tiled", {"PERSISTENT": "1", "USE_TMA": "0", "BLOCK_M": "64"}, (300,)),
    (
        "triton_hybrid",
        {"MIDDLE_TOKENS": "128", "LARGE_TOKENS": "512", "BLOCK_M_FEW": "16"},
        (5, 100, 200, 600),
    ),
]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """Per case of INTERPRETED, the largest absolute error of each launch."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("interpreted")
    cases = []
    for number, (seed, values, tokens) in enumerate(INTERPRETED):
        path = folder / f"kernel_{number}.py"
        path.write_text(tunables.assign((SEEDS / f"{seed}.py").read_text(), values))
        cases.append((str(path), tokens))
    done = subprocess.run(
        [sys.executable, "-c", INTERPRET],
        input=json.dumps(cases),
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]).values())


@pytest.mark.parametrize("case", range(len(INTERPRETED)), ids=lambda i: f"{INTERPRETED[i]}")
def test_triton_seed_in_the_interpreter(interpreted: list[list[float]], case: int) -> None:
    assert len(interpreted[case]) == 2 * len(INTERPRETED[case][2])
    for worst in interpreted[case]:
        assert worst < 4e-3  # two units in the last place of float16 at 4


def test_peers_write_into_output(operator: ModuleType) -> None:
    inputs = made(operator, 32)
    checked = []
    for peer in by_path(OPERATOR / "peers.py").PEERS:
        if "cpu" not in peer["devices"] or peer["name"] == "torch_compile":
            continue
        space: dict[str, Any] = {}
        exec(peer["source"], space)
        output = torch.full((32, 512), float("nan"))
        space["run"](*inputs.values(), output)
        assert not judged(output, operator, inputs)
        checked.append(peer["name"])
    assert checked == ["torch_eager"]
