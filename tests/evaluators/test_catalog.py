"""The catalog: operators, seeds and peers found by path; each mistake is one clear line."""

import json

import pytest

from evaluators import catalog
from evaluators.catalog import CatalogError
from evaluators.schema import Language

DEFINITION = {
    "name": "scale_f32",
    "op_type": "scale",
    "axes": {"n": {"type": "var"}},
    "inputs": {"x": {"shape": ["n"], "dtype": "float32"}},
    "outputs": {"y": {"shape": ["n"], "dtype": "float32"}},
}

OPERATOR = """\
def exact(x): return 2 * x
def honest(x): return 2 * x
def run(x): return 2 * x
def axes_of(definition, sample): return {"n": sample["n"]}, {}
def make_inputs(definition, axes, make, scalars, generator, device): return {}
def cost(definition, axes, make): return 1.0, 1.0
"""

SEEDS = """\
[[seed]]
file = "triton_tiled.py"
language = "triton"
devices = ["cuda"]
definitions = ["*"]
[[seed]]
file = "plain.cpp"
language = "cpp"
devices = ["cpu"]
definitions = ["*_f32"]
description = "One loop."
[[seed]]
file = "second.cpp"
language = "cpp"
devices = ["cpu", "cuda"]
definitions = ["*_f32"]
"""

CPP = "void Run(int x, int y) {\n}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);\n"

PEERS = """\
PEERS = [
    {"name": "torch", "requires": ["json"], "devices": ["cpu", "cuda"], "definitions": ["*"],
     "source": "def run(x, y):\\n    y.copy_(2 * x)\\n"},
    {"name": "planned", "requires": ["no_such_module"], "devices": ["cpu"], "bound": True,
     "definitions": ["*_f32"], "source": "def prepare(x, y):\\n    return lambda: None\\n"},
    {"name": "elsewhere", "devices": ["cuda"], "definitions": ["*"], "source": "def run(*a): pass"},
]
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    kernels, seeds = tmp_path / "kernels" / "scale", tmp_path / "seeds" / "scale"
    write(kernels / "definitions" / "scale_f32.json", json.dumps(DEFINITION))
    write(kernels / "operator.py", OPERATOR)
    write(kernels / "peers.py", PEERS)
    write(kernels / "workloads.toml", '[default]\ncpu = "scale_f32"\n')
    write(seeds / "seeds.toml", SEEDS)
    write(seeds / "triton_tiled.py", "def run(x, y):\n    pass\n")
    write(seeds / "plain.cpp", CPP)
    write(seeds / "second.cpp", CPP)
    return tmp_path


def test_finds_and_loads_operators(root):
    assert catalog.list_operators(root) == ["scale"]
    operator = catalog.load_operator("scale", root)
    definition = operator.definition(None, "cpu")
    assert definition.name == "scale_f32"
    assert operator.definition("scale_f32", "cuda") == definition
    assert catalog.load_module(operator).run(3) == 6
    assert catalog.load_module(operator) is catalog.load_module(operator)


def test_unknown_names_come_with_the_nearest(root):
    with pytest.raises(CatalogError, match=r"unknown operator 'scal'; did you mean: scale\?"):
        catalog.load_operator("scal", root)
    operator = catalog.load_operator("scale", root)
    with pytest.raises(CatalogError, match=r"'scale_f23'; did you mean: scale_f32\?"):
        operator.definition("scale_f23", "cpu")
    with pytest.raises(CatalogError, match="no default definition for cuda"):
        operator.definition(None, "cuda")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"axes": {"n": {"type": "const"}}}, "field 'axes.n': a const axis needs a value"),
        ({"inputs": {"x": {"shape": ["n"], "dtype": "float31"}}}, "field 'inputs.x.dtype'"),
        ({"outputs": {"y": {"shape": ["m"], "dtype": "float32"}}}, "axis 'm'"),
        ({"colour": "red"}, "field 'colour'"),
        ({"name": "other"}, "field 'name'"),
    ],
)
def test_a_malformed_definition_names_file_and_field(root, change, words):
    path = root / "kernels/scale/definitions/scale_f32.json"
    path.write_text(json.dumps({**DEFINITION, **change}))
    with pytest.raises(CatalogError) as caught:
        catalog.load_operator("scale", root)
    message = str(caught.value)
    assert "scale/scale_f32.json" in message
    assert words in message
    assert "\n" not in message


def test_a_definition_that_is_not_json(root):
    (root / "kernels/scale/definitions/scale_f32.json").write_text("{")
    with pytest.raises(CatalogError, match=r"scale_f32\.json is not valid JSON"):
        catalog.load_operator("scale", root)


def test_an_incomplete_operator_module(root):
    write(root / "kernels/scale/operator.py", "def run(x): return x\n")
    with pytest.raises(CatalogError, match="define exact, honest, axes_of, make_inputs, cost"):
        catalog.load_module(catalog.load_operator("scale", root))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ALLOWANCE = {'y': (4.0, 8.0), 'float32': (2, 3)}", ""),
        ("ALLOWANCE = {'y': 4.0}", "ALLOWANCE: field 'y'"),
        ("ALLOWANCE = {'y': (0.5, 8.0)}", "ALLOWANCE: field 'y.0'"),
        ("ALLOWANCE = [1]", "ALLOWANCE: Input should be a valid dictionary"),
        ("cases = []", "cases is not a function"),
        ("honest = 3", "does not define honest"),
    ],
)
def test_optional_parts_of_an_operator_are_checked(root, line, words):
    write(root / "kernels/scale/operator.py", f"{OPERATOR}{line}\n")
    operator = catalog.load_operator("scale", root)
    if not words:
        catalog.load_module(operator)
        return
    with pytest.raises(CatalogError) as caught:
        catalog.load_module(operator)
    assert words in str(caught.value)
    assert "scale/operator.py" in str(caught.value)


def load_seeds(root, device="cpu"):
    operator = catalog.load_operator("scale", root)
    return catalog.seeds(operator, operator.definitions["scale_f32"], device, root)


def test_seeds_that_fit_in_declared_order(root):
    found = load_seeds(root)
    assert [s.name for s in found] == ["seed_plain", "seed_second"]
    assert found[0].spec.language is Language.CPP
    assert found[0].spec.binding == "tvm-ffi"
    assert found[0].spec.entry_point == "kernel.cpp::run"
    assert found[0].entry_source == CPP
    assert found[0].description == "One loop."
    assert [s.name for s in load_seeds(root, "cuda")] == ["seed_triton_tiled", "seed_second"]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("plain.cpp", None, "plain.cpp cannot be read"),
        ("plain.cpp", "void Run(int x, int y) {}\n", "'run' is not exported"),
        ("plain.cpp", CPP.replace("int x, ", ""), "Run takes 1 parameters"),
        ("plain.cpp", " \n", "is empty"),
        ("seeds.toml", None, "has no seeds"),
        ("seeds.toml", "[[seed]\n", "not valid TOML"),
        ("seeds.toml", '[[seed]]\nfile = "plain.cpp"\nlanguage = "rust"\n', "seed 1: field 'lang"),
        ("seeds.toml", SEEDS.replace("f32", "f16").replace('"*"', '"no"'), "no seed of scale fits"),
    ],
)
def test_seed_mistakes(root, file, text, words):
    path = root / "seeds/scale" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        load_seeds(root)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_peers_that_fit(root):
    operator = catalog.load_operator("scale", root)
    found = catalog.peers(operator, operator.definitions["scale_f32"], "cpu")
    assert [p.solution.name for p in found] == ["torch", "planned"]
    assert [p.missing for p in found] == [(), ("no_such_module",)]
    assert [p.bound for p in found] == [False, True]
    assert [p.solution.spec.entry_function for p in found] == ["run", "prepare"]


def test_a_malformed_peer_names_the_field(root):
    write(root / "kernels/scale/peers.py", 'PEERS = [{"name": "torch"}]\n')
    operator = catalog.load_operator("scale", root)
    with pytest.raises(CatalogError, match="peer 1: field 'source'"):
        catalog.peers(operator, operator.definitions["scale_f32"], "cpu")


@pytest.mark.parametrize("name", catalog.list_operators())
def test_the_projects_own_operators_load(name):
    operator = catalog.load_operator(name)
    for device, default in operator.defaults.items():
        definition = operator.definition(default, device)
        assert catalog.seeds(operator, definition, device)
        catalog.peers(operator, definition, device)
