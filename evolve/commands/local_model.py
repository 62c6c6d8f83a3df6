"""`evolve serve-local-model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import Json

commands = typer.Typer()


@commands.command("serve-local-model", epilog="Example: evolve serve-local-model --port 8080")
def serve_local_model(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 0,
    model: Annotated[Path | None, typer.Option(help="Another GGUF file than SmolLM2's.")] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Serve a small language model on 127.0.0.1: no account, no network; until Ctrl-C."""
    from evolve import local_model

    def say(base_url: str) -> None:
        name = model.stem if model else local_model.NAME
        config = local_model.config_text(base_url, name)
        if as_json:
            print(json.dumps({"base_url": base_url, "config": config}), flush=True)
        else:
            print(f"serving {name} at {base_url}; Ctrl-C ends it\n\n{config}", flush=True)

    local_model.serve(model, port, say, with_parent)
