"""gqa_paged_decode: reference against formula, inputs, seeds on the CPU, seeds built for sm_90a."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators import catalog, correctness, guard, workloads
from evaluators.builders import builder_for
from evaluators.schema import Definition, Language, Solution

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = catalog.load_operator("gqa_paged_decode")
MODULE: Any = catalog.load_module(OPERATOR)
PS16 = "gqa_paged_decode_h32_kv8_d128_ps16"
PS1 = "gqa_paged_decode_h32_kv8_d128_ps1"
F32 = "gqa_paged_decode_f32_h8_kv2_d64_ps16"
LENGTHS = [[1], [0], [17], [300], [5, 0, 1, 64, 129], [700, 0, 3, 37, 300]]


def make(name: str, lens: list[int], *, seed: int = 0) -> tuple[Definition, list[Any]]:
    """Inputs of a batch with these lengths."""
    definition = OPERATOR.definitions[name]
    page = definition.const_axes["page_size"]
    used = sum(-(-n // page) for n in lens)
    axes = {
        "batch_size": len(lens),
        "num_pages": used + 5,
        "len_indptr": len(lens) + 1,
        "num_kv_indices": used,
    }
    inputs = MODULE.make_inputs(
        definition.model_dump(mode="json"),
        axes,
        {"seq_lens": lens},
        {},
        torch.Generator().manual_seed(seed),
        "cpu",
    )
    assert list(inputs) == list(definition.inputs)
    for spec_name, spec in definition.inputs.items():
        if spec.shape is not None:
            assert tuple(inputs[spec_name].shape) == definition.shape_of(spec, axes)
            assert inputs[spec_name].dtype == getattr(torch, spec.dtype)
    return definition, list(inputs.values())


def by_formula(inputs: list[Any], b: int, head: int) -> tuple[torch.Tensor, float]:
    """One query head of one sequence, written out in float64."""
    q, k, v, indptr, indices = inputs[:5]
    page = k.shape[1]
    pages = indices[indptr[b] : indptr[b + 1]].tolist()
    tokens = len(pages) * page
    if len(inputs) == 7 and pages:
        tokens -= page - int(inputs[5][b])
    g = head // (q.shape[1] // k.shape[2])
    rows = [(pages[t // page], t % page) for t in range(tokens)]
    keys = torch.stack([k[p, s, g] for p, s in rows]).double()
    values = torch.stack([v[p, s, g] for p, s in rows]).double()
    scores = keys @ q[b, head].double() * inputs[-1]
    weights = torch.softmax(scores, 0)
    return weights @ values, float(torch.logsumexp(scores, 0)) / math.log(2)


@pytest.mark.parametrize("name", [F32, PS16, PS1])
def test_reference_follows_the_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "CHUNK_TOKENS", 50)  # several chunks, ends off the page's grid
    _, inputs = make(name, [130, 0, 1, 49])
    output, lse = MODULE.run(*inputs)
    for b, head in ((0, 0), (0, 5), (2, 3), (3, 7)):
        want, want_lse = by_formula(inputs, b, head)
        torch.testing.assert_close(output[b, head].double(), want, atol=1e-2, rtol=1e-2)
        assert float(lse[b, head]) == pytest.approx(want_lse, abs=1e-4)
    assert bool((output[1] == 0).all())
    assert bool((lse[1] == -math.inf).all())


def judged(outputs: Any, definition: Definition, inputs: list[Any]) -> str:
    """What the judge says of outputs for these inputs."""
    exact = MODULE.exact(*inputs)
    budget = correctness.budget_of(exact, MODULE.honest(*inputs), definition, {})
    return correctness.compare(tuple(outputs), exact, budget, definition).fault


@pytest.mark.parametrize("length", [40, 4000])
def test_a_lost_boundary_token_is_noticed_at_any_length(length: int) -> None:
    for name in (F32, PS16):
        definition, inputs = make(name, [length])
        assert not judged(MODULE.run(*inputs), definition, inputs)
        assert judged(MODULE.run(*inputs[:5], inputs[5] - 1, inputs[6]), definition, inputs)


def test_a_lost_tile_in_the_middle_of_a_long_sequence_is_noticed() -> None:
    definition, inputs = make(PS16, [12_000])
    pages = torch.cat([inputs[4][:300], inputs[4][304:]])  # 64 tokens fewer
    shorter = [*inputs[:3], torch.tensor([0, len(pages)]), pages, *inputs[5:]]
    assert not judged(MODULE.honest(*inputs), definition, inputs)
    assert "each row" in judged(MODULE.honest(*shorter), definition, inputs)


@pytest.mark.parametrize("name", [F32, PS16, PS1])
def test_cases_are_right_when_honest_and_wrong_when_zero(name: str) -> None:
    definition = OPERATOR.definitions[name]
    spec = definition.model_dump(mode="json")
    styles = set()
    for axes, case in MODULE.cases(spec):
        assert axes["num_kv_indices"] < 2000
        generator = torch.Generator().manual_seed(0)
        inputs = list(MODULE.make_inputs(spec, axes, case, {}, generator, "cpu").values())
        outputs = MODULE.honest(*inputs)
        assert not judged(outputs, definition, inputs), case["label"]
        assert judged([torch.zeros_like(o) for o in outputs], definition, inputs), case["label"]
        styles.add(case["values"])
        if case["values"] == "negative":
            assert (outputs[0] < 0).all()
            assert (outputs[1][:, 0] < 0).all()  # of a peaked head
        if case["values"] == "zeros":
            tokens = torch.tensor(case["seq_lens"])[:, None].double()
            torch.testing.assert_close(
                outputs[1].double(), tokens.log2().expand(outputs[1].shape), atol=1e-6, rtol=1e-6
            )
        if case["values"] == "large":
            assert float(outputs[1].max()) > 128  # exp of such a score overflows float32
    assert styles == {"normal", "large", "zeros", "negative"}
    lens = {n for _, case in MODULE.cases(spec) for n in case["seq_lens"]}
    assert {0, 1, 15, 16, 17, 32, 33, 64, 65, 128, 129} <= lens


@pytest.mark.parametrize("style", ["normal", "large", "zeros", "negative"])
@pytest.mark.parametrize("name", [F32, PS16, PS1])
def test_vary_changes_all_and_keeps_what_inputs_are(name: str, style: str) -> None:
    definition = OPERATOR.definitions[name]
    spec = definition.model_dump(mode="json")
    case = {"seq_lens": [300, 0, 17, 1], "values": style}
    page = definition.const_axes["page_size"]
    used = sum(-(-n // page) for n in case["seq_lens"])
    axes = {"batch_size": 4, "num_pages": used + 5, "len_indptr": 5, "num_kv_indices": used}

    def drawn(draw: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(3)
        inputs = MODULE.make_inputs(spec, axes, case, {}, generator, "cpu")
        before = {n: t.data_ptr() for n, t in inputs.items() if isinstance(t, torch.Tensor)}
        MODULE.vary(spec, axes, case, inputs, torch.Generator().manual_seed(draw))
        assert before == {n: inputs[n].data_ptr() for n in before}
        return inputs

    first, again, second = drawn(1), drawn(1), drawn(2)
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again[key])
    for key in ("k_cache", "v_cache"):
        for page_now, page_then in zip(first[key], second[key], strict=True):
            assert not torch.equal(page_now, page_then)
        size = first[key].double().square().mean().sqrt()
        assert 0.9 < float(size) / (64 if (key, style) == ("v_cache", "large") else 1) < 1.1
        assert style != "negative" or bool((first[key] <= 0).all())
    indices = first["kv_indices"].tolist()
    assert len(set(indices)) == len(indices)
    assert max(indices) < axes["num_pages"]
    assert indices != second["kv_indices"].tolist()
    outputs, others = (MODULE.honest(*inputs.values()) for inputs in (first, second))
    filled = torch.tensor([0, 2, 3])
    same = (outputs[0] == others[0])[filled]
    assert float(same.double().mean()) < 0.05
    if style == "normal":
        assert (outputs[1] != others[1])[filled].all()
        for length in (300, 17):
            b = case["seq_lens"].index(length)
            share = boundary_share(list(first.values()), b)
            assert float(share.min()) > 0.05
            assert float(share.max()) < 0.6


def boundary_share(inputs: list[Any], b: int) -> torch.Tensor:
    """The last token's share of the softmax of each group's first head."""
    q, k, _, indptr, indices, *rest = inputs
    page = k.shape[1]
    pages = indices[indptr[b] : indptr[b + 1]].long()
    length = (len(pages) - 1) * page + (int(rest[0][b]) if len(rest) == 2 else page)
    token = torch.arange(length)
    keys = k.flatten(0, 1)[pages[token // page] * page + token % page].double()
    scores = torch.einsum("gd,ngd->gn", q[b, :: q.shape[1] // k.shape[2]].double(), keys)
    return torch.softmax(scores * rest[-1], -1)[:, -1]


def test_pages_are_shuffled_and_not_shared() -> None:
    _, inputs = make(PS1, [500, 300])
    indices = inputs[4].tolist()
    assert len(set(indices)) == len(indices) == 800
    assert indices != sorted(indices)


def test_inputs_depend_on_the_seed_alone() -> None:
    first, again, other = (make(F32, [40, 7], seed=s)[1] for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first[:6], again[:6], strict=True))
    assert not torch.equal(first[1], other[1])


def test_cost_counts_cache_reads() -> None:
    definition = OPERATOR.definitions[PS16]
    spec = definition.model_dump(mode="json")
    axes, made = MODULE.axes_of(spec, {"batch_size": 2, "seq_len": 1000})
    flops, bytes_ = MODULE.cost(spec, axes, made)
    assert flops == 4 * 2000 * 32 * 128
    cache = 2 * 2000 * 8 * 128 * 2
    assert cache < bytes_ < 1.02 * cache


@pytest.mark.parametrize("name", [F32, PS16, PS1])
def test_axes_of_keeps_within_the_declared_lengths(name: str) -> None:
    definition = OPERATOR.definitions[name].model_dump(mode="json")
    axes, made = MODULE.axes_of(definition, {"batch_size": 9, "seq_len": 180_000, "spread": 1.0})
    lens = made["seq_lens"]
    assert len(set(lens)) > 5
    assert min(lens) >= 1
    assert max(lens) <= MODULE.MAX_TOKENS
    page = definition["axes"]["page_size"]["value"]
    assert axes["num_kv_indices"] == sum(-(-n // page) for n in lens)
    assert axes["num_pages"] > axes["num_kv_indices"]


def test_recorded_workloads_become_inputs() -> None:
    definition = OPERATOR.definitions[PS1]
    real = [
        w
        for w in workloads.verification_sample(OPERATOR, definition, "cuda", 0, 1 << 30)
        if w.source == "workloads_ps1.jsonl"
    ]
    assert real
    for workload in real:
        lens = workload.make["seq_lens"]
        assert sum(lens) == workload.axes["num_kv_indices"]
        assert len(lens) == workload.axes["batch_size"]
        assert min(lens) >= 1


def test_report_grid_is_the_published_one() -> None:
    grid = workloads.report_grid(OPERATOR, OPERATOR.definitions[PS16], "cuda")
    assert [w.label for w in grid][:2] == ["B1 L1024", "B1 L16384"]
    assert len(grid) == 9


def test_every_definition_has_seeds_and_all_pass_the_guard() -> None:
    for definition in OPERATOR.definitions.values():
        device = "cpu" if "f32" in definition.name else "cuda"
        found = catalog.seeds(OPERATOR, definition, device)
        assert found
        for seed in found:
            assert guard.check(seed, definition) == []


def test_page_size_one_cuda_seed_differs_in_its_page_size_alone() -> None:
    folder = ROOT / "seeds/gqa_paged_decode"
    lines, ps1 = (
        set((folder / name).read_text().splitlines())
        for name in ("cuda_splitkv.cu", "cuda_splitkv_ps1.cu")
    )
    assert len(ps1 - lines) <= 5
    assert len(lines - ps1) <= 6


def seed_of(name: str, language: Language, device: str, stem: str = "") -> Solution:
    for seed in catalog.seeds(OPERATOR, OPERATOR.definitions[name], device):
        if seed.spec.language is language and stem in seed.name:
            return seed
    raise AssertionError(f"no {language.value} seed for {name}")


def outputs_for(inputs: list[Any]) -> list[torch.Tensor]:
    q = inputs[0]
    return [torch.full_like(q, math.nan), torch.full(q.shape[:2], math.nan)]


@pytest.fixture(scope="module")
def cpp_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    seed = seed_of(F32, Language.CPP, "cpu")
    return builder_for(Language.CPP).build(seed, tmp_path_factory.mktemp("cpp"), "cpu").call


@pytest.mark.parametrize("lens", [*LENGTHS, [4096, 0, 17, 1000]], ids=str)
def test_cpp_seed_is_right(cpp_run: Any, lens: list[int]) -> None:
    definition, inputs = make(F32, lens)
    outputs = outputs_for(inputs)
    cpp_run(*inputs, *outputs)
    assert not judged(outputs, definition, inputs)


def test_cpp_seed_is_right_in_all_cases(cpp_run: Any) -> None:
    definition = OPERATOR.definitions[F32]
    spec = definition.model_dump(mode="json")
    for axes, case in MODULE.cases(spec):
        generator = torch.Generator().manual_seed(5)
        made = MODULE.make_inputs(spec, axes, case, {}, generator, "cpu")
        for _ in range(2):
            inputs = list(made.values())
            outputs = outputs_for(inputs)
            cpp_run(*inputs, *outputs)
            assert not judged(outputs, definition, inputs), case["label"]
            MODULE.vary(spec, axes, case, made, generator)


INTERPRET = """
import importlib.util, math, sys, torch
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
seed, cases = load("seed", sys.argv[1]), torch.load(sys.argv[2])
for inputs, want in cases:
    for _ in range(2):  # again: arrival counters must be back at zero
        out, lse = torch.full_like(want[0], math.nan), torch.full_like(want[1], math.nan)
        seed.run(*inputs, out, lse)
        torch.testing.assert_close(out, want[0], atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(lse, want[1], atol=1e-3, rtol=1e-3)
"""


@pytest.mark.parametrize("stem", ["triton_splitkv", "triton_onepass"])
def test_triton_seeds_are_right_when_interpreted(stem: str, tmp_path: Path) -> None:
    """In float16: the interpreter's bfloat16 products are wrong."""
    cases = []
    for name in (PS16, PS1):
        for lens in LENGTHS:
            _, inputs = make(name, lens)
            inputs[:3] = [t.half() for t in inputs[:3]]
            cases.append((inputs, MODULE.run(*inputs)))
    torch.save(cases, tmp_path / "cases.pt")
    script = tmp_path / "interpret.py"
    script.write_text(INTERPRET)
    source = ROOT / f"seeds/gqa_paged_decode/{stem}.py"
    done = subprocess.run(
        [sys.executable, str(script), str(source), str(tmp_path / "cases.pt")],
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "language", "stem"),
    [
        (PS16, Language.TRITON, "splitkv"),
        (PS1, Language.TRITON, "onepass"),
        (PS16, Language.TILELANG, "splitkv"),
        (PS1, Language.CUDA, "splitkv"),
    ],
)
def test_cuda_seeds_compile_for_hopper(
    name: str, language: Language, stem: str, tmp_path: Path
) -> None:
    if language is not Language.TRITON and shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    seed = seed_of(name, language, "cuda", stem)
    _, inputs = make(name, [100, 40])
    facts = builder_for(language).compile_only(
        seed, [*inputs, *outputs_for(inputs)], tmp_path, "sm_90a"
    )
    assert facts.kernels
    assert facts.spills == 0
    assert facts.shared_bytes <= 227 * 1024


def peer_run(name: str) -> Any:
    definition = OPERATOR.definitions[F32]
    found = {p.solution.name: p for p in catalog.peers(OPERATOR, definition, "cpu")}
    peer = next(p for key, p in found.items() if name in key)
    space: dict[str, Any] = {}
    exec(peer.solution.entry_source, space)
    return space["prepare"]


@pytest.mark.parametrize("lens", [[300], [5, 1, 64, 129]], ids=str)
def test_torch_peers_are_right(lens: list[int]) -> None:
    _, inputs = make(F32, lens)
    want = MODULE.run(*inputs)
    outputs = outputs_for(inputs)
    peer_run("torch_eager")(*inputs, *outputs)()
    torch.testing.assert_close(outputs[0], want[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs[1], want[1], atol=1e-4, rtol=1e-4)
    outputs = outputs_for(inputs)
    peer_run("sdpa")(*inputs, *outputs)()
    torch.testing.assert_close(outputs[0], want[0], atol=1e-4, rtol=1e-4)
