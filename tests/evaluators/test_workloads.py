"""Workloads: deterministic, stratified, within memory, and search never sees the rest."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluators import catalog, workloads
from evaluators.catalog import CatalogError
from evaluators.schema import ScalarInput
from evaluators.workload_file import Variable

DEFINITION = {
    "name": "decode_f16",
    "op_type": "decode",
    "axes": {
        "batch": {"type": "var"},
        "tokens": {"type": "var"},
        "d": {"type": "const", "value": 8},
    },
    "inputs": {
        "kv": {"shape": ["tokens", "d"], "dtype": "float16"},
        "scale": {"shape": None, "dtype": "float32"},
    },
    "outputs": {"y": {"shape": ["batch", "d"], "dtype": "float32"}},
}

OPERATOR = """\
def exact(kv, scale): return kv
def honest(kv, scale): return kv
def run(kv, scale): return kv
def axes_of(definition, sample):
    if "trace_axes" in sample:
        return dict(sample["trace_axes"]), {"label": "real"}
    axes = {"batch": sample["batch"], "tokens": sample["batch"] * sample["length"]}
    return axes, {"length": sample["length"]}
def make_inputs(definition, axes, make, scalars, generator, device): return {}
def cost(definition, axes, make): return 1.0, 1.0
"""

FILE = """\
[default]
cuda = "decode_f16"
[[distribution]]
definitions = ["decode_*"]
devices = ["cuda"]
samples = 6
scalars = { scale = 0.5 }
[distribution.variables]
batch = { choice = [1, 4, 16] }
length = { log_uniform = [16, 65536] }
[distribution.verification]
length = { log_uniform = [10, 15] }
[[report]]
devices = ["cuda"]
grid = { batch = [1, 64], length = [128, 1024, 8192] }
[[trace]]
devices = ["cuda"]
file = "real.jsonl"
search_share = 0.5
samples = 2
verify = 100
"""

BIG = 1 << 40


@pytest.fixture
def operator(tmp_path):
    folder = tmp_path / "kernels" / "decode"
    (folder / "definitions").mkdir(parents=True)
    (folder / "definitions" / "decode_f16.json").write_text(json.dumps(DEFINITION))
    (folder / "operator.py").write_text(OPERATOR)
    (folder / "workloads.toml").write_text(FILE)
    rows = [
        {"uuid": f"real-{i}", "axes": {"batch": 1, "tokens": 100 + i}, "scalars": {"scale": 0.25}}
        for i in range(40)
    ]
    (folder / "real.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return catalog.load_operator("decode", tmp_path)


def search(operator, epoch=0, seed=3, max_bytes=BIG, count=None):
    definition = operator.definitions["decode_f16"]
    return workloads.search_sample(operator, definition, "cuda", epoch, seed, max_bytes, count)


def verification(operator, seed=3):
    definition = operator.definitions["decode_f16"]
    return workloads.verification_sample(operator, definition, "cuda", seed, BIG)


def is_real(workload):
    return workload.source == "real.jsonl"


def test_a_sample_is_a_function_of_seed_and_epoch(operator):
    assert search(operator) == search(operator)
    assert search(operator) != search(operator, epoch=1)
    assert search(operator) != search(operator, seed=4)
    assert verification(operator) == verification(operator)


def test_the_first_variable_is_stratified(operator):
    for epoch in range(20):
        drawn = [w for w in search(operator, epoch) if not is_real(w)]
        assert [w.axes["batch"] for w in drawn] == [1, 1, 4, 4, 16, 16]
        logs = sorted(math.log(w.make["length"] / 16) / math.log(65537 / 16) for w in drawn)
        assert [int(6 * q) for q in logs] == pytest.approx(range(6), abs=1)


def test_values_and_scalars_reach_the_workload(operator):
    for w in search(operator):
        assert w.inputs["scale"] == ScalarInput(value=0.25 if is_real(w) else 0.5)
        assert w.inputs["kv"].type == "random"
        if not is_real(w):
            assert w.axes["tokens"] == w.axes["batch"] * w.make["length"]
    assert len({w.uuid for w in search(operator)}) == 8


def test_real_workloads_are_split_between_search_and_verification(operator):
    seen = {w.uuid for epoch in range(100) for w in search(operator, epoch) if is_real(w)}
    held = {w.uuid for w in verification(operator) if is_real(w)}
    assert not seen & held
    assert seen | held == {f"real-{i}" for i in range(40)}
    assert len(seen) > 8
    assert len(held) > 8


def test_verification_draws_its_own_variables(operator):
    lengths = [w.make["length"] for w in verification(operator) if not is_real(w)]
    assert lengths
    assert all(10 <= n <= 15 for n in lengths)


def test_count_is_the_whole_sample(operator):
    assert len(search(operator, count=1)) == 1
    few = search(operator, count=3)
    assert [is_real(w) for w in few] == [False, False, True]


@pytest.mark.parametrize("limit", [3_000, 100_000, 20_000_000])
def test_large_samples_are_lowered_until_they_fit(operator, limit):
    definition = operator.definitions["decode_f16"]
    for epoch in range(10):
        drawn = search(operator, epoch, max_bytes=limit)
        assert all(workloads.tensor_bytes(definition, w.axes) <= limit for w in drawn)
        unlimited = search(operator, epoch)
        fits = [w for w in unlimited if workloads.tensor_bytes(definition, w.axes) <= limit]
        assert {w.uuid for w in fits if not is_real(w)} <= {w.uuid for w in drawn}


def test_a_definition_that_never_fits_is_an_error(operator):
    with pytest.raises(CatalogError, match="smallest workload of decode_f16 needs 288 bytes"):
        search(operator, max_bytes=100)


def test_bytes_count_every_tensor(operator):
    definition = operator.definitions["decode_f16"]
    axes = {"batch": 2, "tokens": 10}
    assert workloads.input_bytes(definition, axes) == 10 * 8 * 2
    assert workloads.tensor_bytes(definition, axes) == 10 * 8 * 2 + 2 * 8 * 4


def test_equal_samples_are_merged_into_one_of_greater_weight(operator):
    path = operator.folder / "workloads.toml"
    path.write_text(FILE.replace("log_uniform = [16, 65536]", "choice = [64]"))
    drawn = [w for w in search(operator) if not is_real(w)]
    assert [(w.axes["batch"], w.weight) for w in drawn] == [(1, 2.0), (4, 2.0), (16, 2.0)]


def test_the_report_grid_is_fixed_and_can_be_cut_to_memory(operator):
    definition = operator.definitions["decode_f16"]
    grid = workloads.report_grid(operator, definition, "cuda")
    assert [(w.axes["batch"], w.make["length"]) for w in grid] == [
        (b, n) for b in (1, 64) for n in (128, 1024, 8192)
    ]
    assert {w.source for w in grid} == {"fixed"}
    small = workloads.report_grid(operator, definition, "cuda", max_bytes=1_000_000)
    assert [w.uuid for w in small] == [w.uuid for w in grid if w.axes["tokens"] < 60_000]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("samples = 6", "samples = 0", "field 'distribution.0.samples'"),
        ("samples = 6", "sample = 6", "field 'distribution.0.sample'"),
        ("log_uniform = [16, 65536]", "log_uniform = [0, 5]", "variables.length"),
        ("{ choice = [1, 4, 16] }", "{ uniform = [1, 2], choice = [1] }", "exactly one of"),
        ("[distribution.verification]\nlength", "[distribution.verification]\nsize", "'size'"),
        ('definitions = ["decode_*"]', 'definitions = ["other"]', "no distribution fits"),
        ("batch = { choice", "batches = { choice", "axes_of failed"),
        ('"real.jsonl"', '"none.jsonl"', "none.jsonl cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_one_clear_line(operator, old, new, words):
    assert old in FILE
    (operator.folder / "workloads.toml").write_text(FILE.replace(old, new))
    with pytest.raises(CatalogError) as caught:
        search(operator)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_trace_row_names_its_line(operator):
    path = operator.folder / "real.jsonl"
    path.write_text(path.read_text() + '{"uuid": "x"}\n')
    with pytest.raises(CatalogError, match=r"real\.jsonl line 41"):
        search(operator)


def test_axes_must_be_the_definitions_var_axes(operator):
    other = json.loads(json.dumps(DEFINITION))
    other["axes"]["extra"] = {"type": "var"}
    definition = catalog.Definition.model_validate(other)
    changed = replace(operator, definitions={"decode_f16": definition})
    with pytest.raises(CatalogError, match="axes_of gave axes"):
        search(changed)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_quantiles_rise_and_stay_inside(a, b):
    low, high = sorted((a, b))
    for variable, least, most in [
        (Variable(uniform=(3, 9)), 3, 9),
        (Variable(log_uniform=(1, 4096)), 1, 4096),
        (Variable(choice=(1, 2, 8), weights=(1, 0, 3)), 1, 8),
        (Variable(percentiles=((1, 10), (50, 200), (99, 5000))), 10, 5000),
    ]:
        assert least <= variable.quantile(low) <= variable.quantile(high) <= most


def test_distributions_have_the_declared_shape():
    q = (np.arange(10_000) + 0.5) / 10_000
    uniform = [Variable(uniform=(0, 3)).quantile(x) for x in q]
    assert np.bincount(uniform).tolist() == [2500] * 4
    weighted = [Variable(choice=(1, 2, 8), weights=(1, 0, 3)).quantile(x) for x in q]
    assert (weighted.count(1), weighted.count(2), weighted.count(8)) == (2500, 0, 7500)
    percentiles = Variable(percentiles=((10, 100), (50, 1000), (90, 100_000)))
    assert percentiles.quantile(0.5) == 1000
    assert percentiles.quantile(0.7) == 10_000
    log = [Variable(log_uniform=(1, 1023)).quantile(x) for x in q]
    assert np.median(log) == pytest.approx(31, abs=1)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"choice": (1,), "uniform": (1, 2)},
        {"choice": (1, 2), "weights": (1,)},
        {"choice": (1, 2), "weights": (0, 0)},
        {"uniform": (5, 4)},
        {"percentiles": ((50, 10), (10, 20))},
        {"percentiles": ((1, 0), (10, 20))},
    ],
)
def test_contradictory_variables_cannot_be_built(fields):
    with pytest.raises(ValidationError):
        Variable(**fields)
