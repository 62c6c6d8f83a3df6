"""Bad input is one clear line on stderr and exit code 2, never a stack trace."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from evaluators import catalog
from evolve import cli
from evolve.store import FILE, VERSION, Store
from tests.cli.conftest import Called, Evolve

OPERATOR = "matmul_bias_gelu"


def refused(called: Called, *parts: str) -> None:
    assert called.code == 2, called
    assert called.out == ""
    assert called.err.startswith("evolve: ")
    assert called.err.count("\n") == 1, called.err
    missing = [part for part in parts if part not in called.err]
    assert not missing, called.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run"], ["name an operator", "evolve list"]),
        (["run", "matmul_bias_gelo"], ["'matmul_bias_gelo'", "did you mean: matmul_bias_gelu?"]),
        (["run", "zzz"], ["unknown operator 'zzz'", "gqa_paged_decode", "matmul_bias_gelu"]),
        (
            ["run", OPERATOR, "--definition", "matmul_bias_gelu_f32_k512"],
            ["unknown definition", "did you mean: matmul_bias_gelu_f32_k512_n512"],
        ),
        (["run", OPERATOR, "--device", "tpu"], ["'device'", "'cuda'", "'cpu'"]),
        (["run", OPERATOR, "--evaluations", "0"], ["--evaluations", "greater than 0"]),
        (["run", OPERATOR, "--evaluations", "-3"], ["--evaluations", "greater than 0", "-3"]),
        (["run", OPERATOR, "--evaluations", "many"], ["--evaluations"]),
        (["run", OPERATOR, "--time", "0"], ["--time must be greater than 0"]),
        (["run", OPERATOR, "--time", "-5m"], ["--time must be greater than 0"]),
        (["run", OPERATOR, "--time", "soon"], ["--time takes seconds", "'soon'"]),
        (["run", OPERATOR, "--time", "nan"], ["--time must be greater than 0"]),
        (["run", OPERATOR, "--time", "inf"], ["--time must be greater than 0"]),
        (["run", OPERATOR, "--islands", "0"], ["--islands"]),
        (["run", OPERATOR, "--in-flight", "0"], ["--in-flight"]),
        (["run", OPERATOR, "--language", "fortran"], ["languages", "'cpp'"]),
        (["run", OPERATOR, "--max-cost", "2"], ["section [llm]", "limits of cost and tokens"]),
        (["run", OPERATOR, "--config", "absent.toml"], ["cannot read config absent.toml"]),
        (["run", OPERATOR, "--compile-only", "hopper"], ["sm_90a", "'hopper'"]),
        (["run", OPERATOR, "--recall", "absent"], ["--recall", "'absent'", "does not exist"]),
        (["run", OPERATOR, "surplus"], ["surplus"]),
        (["run", OPERATOR, "--frobnicate"], ["--frobnicate"]),
        (["frobnicate"], ["frobnicate"]),
        (["resume"], ["'run'"]),
        (["resume", "absent"], ["no run at absent"]),
        (["status", "absent"], ["no run at absent"]),
        (["plot", "absent"], ["no run at absent"]),
        (["export", "absent", "--out", "x"], ["no run at absent"]),
        (["export", "absent"], ["--out"]),
        (["verify", "absent"], ["no solution at absent"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_arguments(
    evolve: Evolve,
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(evolve(*arguments), *parts)
    assert not list(tmp_path.iterdir()), "refused input leaves nothing behind"


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("evaluatons = 3\n", ["unknown config key 'evaluatons'"]),
        ("[budget]\nevaluation = 3\n", ["unknown config key 'budget.evaluation'"]),
        ("[budget]\nevaluations = 0\n", ["'budget.evaluations'", "greater than 0"]),
        ("[budget]\ntime_s = 'long'\n", ["'budget.time_s'"]),
        ("[islands.emitters]\nllama = 1.0\n", ["unknown emitter 'llama'", "tuner"]),
        ("[evaluator]\nsamples = 1\n", ["'evaluator.samples'"]),
        ("budget = 3\n", ["'budget'"]),
        ("languages = 'cpp'\n", ["'languages'", "valid list"]),
        (
            "[islands.emitters]\ntuner = 1\n[agent]\ncommand = 'cat'\n",
            ["evolve: section [agent] needs a share"],
        ),
        ("operator = \n", ["settings.toml is not valid TOML"]),
    ],
    ids=lambda value: value.strip().replace("\n", " ") if isinstance(value, str) else None,
)
def test_settings(evolve: Evolve, toml: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(toml)
    refused(evolve("run", OPERATOR, "--config", tmp_path / "settings.toml"), *parts)


def test_settings_that_are_not_text(evolve: Evolve, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_bytes(b"\xff\xfe\x00")
    refused(evolve("run", OPERATOR, "--config", tmp_path / "settings.toml"), "settings.toml")
    refused(evolve("run", OPERATOR, "--config", tmp_path), "cannot read config")


def test_results_not_writable(evolve: Evolve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = tmp_path / "file" / "results"
    refused(evolve("run", OPERATOR, "--results", results), "not writable", str(results))


def test_device_absent(evolve: Evolve, tmp_path: Path) -> None:
    called = evolve("run", OPERATOR, "--device", "cuda", "--results", tmp_path)
    refused(called, "device cuda is absent")
    assert not list(tmp_path.iterdir())


def test_language_without_a_seed(evolve: Evolve, tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--language", "triton", "--results", tmp_path)
    refused(evolve("run", OPERATOR, *arguments), "no seed in triton", "there are: cpp, tilelang")


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "..", "file"])
def test_name_that_no_run_can_have(evolve: Evolve, tmp_path: Path, name: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "file").write_text("")
    arguments = ("--device", "cpu", "--results", tmp_path / "results", "--name", name)
    refused(evolve("run", OPERATOR, *arguments), "name", name)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


# -- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that has just begun."""
    meta = {
        "operator": OPERATOR,
        "definition": "matmul_bias_gelu_f32_k512_n512",
        "device": {"name": "a cpu", "type": "cpu"},
        "config": {"operator": OPERATOR, "device": "cpu", "budget": {"evaluations": 5}},
    }
    Store.create(tmp_path / "run", meta).close()
    return tmp_path / "run"


COMMANDS = [["resume"], ["status"], ["plot"], ["export", "--out", "x"], ["verify"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_run_of_a_newer_version(evolve: Evolve, run_dir: Path, command: list[str]) -> None:
    db = sqlite3.connect(run_dir / FILE)
    db.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(VERSION + 1),))
    db.commit()
    db.close()
    refused(evolve(command[0], run_dir, *command[1:]), "newer version", str(VERSION + 1))


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "ü ☃"])
def test_run_whose_name_has_odd_characters(evolve: Evolve, run_dir: Path, name: str) -> None:
    called = evolve("status", run_dir.rename(run_dir.parent / name))
    assert called.code == 0, called
    assert [path.name for path in run_dir.parent.iterdir()] == [name]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at", b""])
def test_run_that_is_no_run(
    evolve: Evolve, tmp_path: Path, command: list[str], content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    refused(evolve(command[0], tmp_path, *command[1:]), "not a readable run")


def test_run_without_an_evaluation_or_champion(
    evolve: Evolve, run_dir: Path, tmp_path: Path
) -> None:
    refused(evolve("plot", run_dir), "no evaluation to draw yet")
    refused(evolve("export", run_dir, "--out", tmp_path / "out"), "no champion yet")
    refused(evolve("verify", run_dir), "no champion yet")
    assert evolve("status", run_dir).code == 0


def test_name_that_is_taken(evolve: Evolve, run_dir: Path) -> None:
    arguments = ("--device", "cpu", "--results", run_dir.parent, "--name", run_dir.name)
    refused(evolve("run", OPERATOR, *arguments), "already holds a run")


@pytest.mark.parametrize("budget", ["--evaluations=0", "--time=-1s"])
def test_resume_with_no_budget(evolve: Evolve, run_dir: Path, budget: str) -> None:
    refused(evolve("resume", run_dir, budget), "must be greater than 0")


# -- solutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [("{", "not JSON"), ('{"name": "x"}', "field 'definition'"), ("[]", "solution.json")],
)
def test_malformed_solution(evolve: Evolve, tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "solution.json").write_text(content)
    refused(evolve("verify", tmp_path), part)


# -- operators and seeds --------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the operator and its seeds that a test may break."""
    for kind in ("kernels", "seeds"):
        shutil.copytree(catalog.ROOT / kind / OPERATOR, tmp_path / kind / OPERATOR)
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    return tmp_path


def run_in(house: Path, evolve: Evolve) -> Called:
    """A run of the C++ seed alone, short of effort."""
    settings = house / "settings.toml"
    settings.write_text("[evaluator]\nsamples = 3\nlatency_s = 0.2\n[epochs]\nworkloads = 1\n")
    arguments = ("--config", settings, "--results", house / "results", "--name", "run", "--quiet")
    return evolve("run", OPERATOR, "--device", "cpu", "--language", "cpp", *arguments)


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("axes", {"num_tokens": {"type": "sometimes"}}, "field 'axes.num_tokens.type'"),
        ("outputs", {}, "field 'outputs'"),
        ("inputs", {"x": {"shape": ["absent"], "dtype": "float32"}}, "absent"),
        ("surprise", 1, "field 'surprise'"),
    ],
)
def test_malformed_definition(
    evolve: Evolve, house: Path, field: str, value: object, part: str
) -> None:
    file = house / "kernels" / OPERATOR / "definitions" / "matmul_bias_gelu_f32_k512_n512.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    refused(run_in(house, evolve), f"{OPERATOR}/{file.name}", part)


def test_definition_that_is_not_json(evolve: Evolve, house: Path) -> None:
    file = house / "kernels" / OPERATOR / "definitions" / "matmul_bias_gelu_f32_k512_n512.json"
    file.write_text(file.read_text()[:-20])
    refused(run_in(house, evolve), file.name, "not valid JSON")


def test_seed_without_entry_point(evolve: Evolve, house: Path) -> None:
    file = house / "seeds" / OPERATOR / "cpp.cpp"
    file.write_text(file.read_text().replace("run", "walk"))
    refused(run_in(house, evolve), f"seed {OPERATOR}/cpp.cpp", "run")


def test_seed_that_fails_stops_the_run_before_anything_is_spent(
    evolve: Evolve, house: Path
) -> None:
    file = house / "seeds" / OPERATOR / "cpp.cpp"
    assert "0.044715f" in file.read_text()
    file.write_text(file.read_text().replace("0.044715f", "absent_constant"))
    refused(run_in(house, evolve), "seed_cpp", "COMPILE_ERROR", "absent_constant")
    store = Store.open(house / "results" / "run", readonly=True)
    assert list(store.evaluations()) == []
    store.close()


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_program() -> None:
    with sqlite3.connect(":memory:") as full:
        full.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as refused:
            full.execute("CREATE TABLE wide (column)")
    assert cli._is_of_the_disk(refused.value)
    assert cli._is_of_the_disk(OSError(errno.ENOSPC, "no space"))
    assert not cli._is_of_the_disk(OSError(errno.ENOENT, "absent"))
    with pytest.raises(sqlite3.OperationalError) as wrong:
        sqlite3.connect(":memory:").execute("SELECT nothing FROM nowhere")
    assert not cli._is_of_the_disk(wrong.value)


def test_the_version_is_printed(evolve: Evolve) -> None:
    called = evolve("--version")
    assert called.code == 0
    assert called.out.startswith("tilevolve ")
