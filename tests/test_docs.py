"""What README and docs show works: examples are taken out of the pages and used."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from evaluators import catalog, correctness, guard, workloads
from evaluators.schema import Evaluation
from evolve.authors.settings import AgentSettings
from evolve.config import RunConfig, parse
from evolve.llm.settings import LlmSettings, Model
from islands.archive import AddStatus, Archive
from islands.descriptor import describe
from islands.program import Program
from tests.islands.samples import passed, program, tunable_source

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def files(page: str) -> dict[str, str]:
    """File name -> the code block after the paragraph that starts with it."""
    text = (ROOT / page).read_text()
    found = {}
    for start in re.finditer(r"^`((?:kernels|seeds|evolve)/[^`]+)`", text, re.MULTILINE):
        block = BLOCK.search(text, start.end())
        assert block is not None
        found[start[1]] = block[2]
    return found


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A root with the operator of docs/extending.md."""
    for name, text in files("docs/extending.md").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_example_operator_is_complete(example: Path) -> None:
    operator = catalog.load_operator("silu_and_mul", example)
    definition = operator.definition(None, "cpu")
    (seed,) = catalog.seeds(operator, definition, "cpu", example)
    assert guard.check(seed, definition) == []
    (peer,) = catalog.peers(operator, definition, "cpu")
    assert guard.entry_reasons(peer.solution, definition) == []
    found = workloads.search_sample(operator, definition, "cpu", 0, 0, 1 << 30)
    assert len(found) == 3
    module = catalog.load_module(operator)
    record = definition.model_dump(mode="json")
    for workload in found:
        inputs = module.make_inputs(
            record, workload.axes, workload.make, {}, torch.Generator().manual_seed(1), "cpu"
        )
        output = module.run(*inputs.values())
        shape = definition.shape_of(definition.outputs["output"], workload.axes)
        assert tuple(output.shape) == shape
        assert min(module.cost(record, workload.axes, workload.make)) > 0
    for axes, make in module.cases(record):
        generator = torch.Generator().manual_seed(1)
        (x,) = module.make_inputs(record, axes, make, {}, generator, "cpu").values()
        exact, honest = (module.exact(x),), (module.honest(x),)
        budget = correctness.budget_of(exact, honest, definition, {})
        assert correctness.compare((module.run(x),), exact, budget, definition).fault == ""
        wrong = correctness.compare((torch.zeros_like(honest[0]),), exact, budget, definition)
        assert bool(wrong.fault) == (make["values"] != "zeros")


def test_the_example_emitter_proposes(example: Path) -> None:
    source = (example / "evolve/emitters/uniform.py").read_text()
    names: dict[str, object] = {}
    exec(compile(source, "uniform.py", "exec"), names)
    emitter, archive = names["Uniform"](), Archive()  # type: ignore[operator]
    parent = program(tunable_source({"BLOCK_M": [16, 32, 64], "NUM_WARPS": [1, 2, 4]}))
    evaluation: Evaluation = passed(1.0)
    assert archive.add(parent, evaluation, describe(parent, evaluation)) is AddStatus.NEW
    emitter.learn(parent, evaluation, AddStatus.NEW)
    proposal = emitter.propose(archive, np.random.default_rng(0))
    assert proposal.parents == (parent.id,)
    assert Program.of(proposal.solution).id != parent.id


def test_the_readme_shows_every_setting() -> None:
    """Its configuration parses, names all keys that there are, and has their defaults."""
    text = (ROOT / "README.md").read_text()
    authors, shown = (code for kind, code in BLOCK.findall(text) if kind == "toml")
    data = uncommented(shown)
    parse(data)
    assert keys(data) == fields(RunConfig) - {"llm", "agent"}
    assert parse(tomllib.loads(shown)) == parse({"operator": data["operator"]})

    data = {"operator": "matmul_bias_gelu", **uncommented(authors)}
    parse(data)
    assert keys(data["llm"]) - {"models"} == fields(LlmSettings) - {"models"}
    assert set(data["llm"]["models"][0]) == fields(Model)
    assert keys(data["agent"]) == fields(AgentSettings)
    llm = parse({"operator": "matmul_bias_gelu", **tomllib.loads(authors)}).llm
    assert llm is not None
    (model,) = llm.models
    assert llm == LlmSettings(models=(model,))
    assert model == Model(name=model.name, base_url=model.base_url)
    agent = AgentSettings.model_validate(tomllib.loads(authors)["agent"])
    assert agent == AgentSettings(command=agent.command)


def uncommented(toml: str) -> dict[str, Any]:
    """The block with its commented settings."""
    return tomllib.loads(re.sub(r"^# (?=\w+ = )", "", toml, flags=re.MULTILINE))


def keys(data: dict[str, object]) -> set[str]:
    found = set()
    for key, value in data.items():
        nested = isinstance(value, dict) and key != "emitters"
        found |= {f"{key}.{inner}" for inner in keys(value)} if nested else {key}
    return found


def fields(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {f"{name}.{inner}" for inner in fields(kind)}
        else:
            found.add(name)
    return found


def test_the_first_lines_show_the_commands() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for command in ("make run", "make test", "evolve run gqa_paged_decode", "evolve/main.py run"):
        assert command in head


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("results/published/"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
