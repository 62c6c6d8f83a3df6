"""`evolve compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import Json, Quiet, RunDir, find_run
from evolve.commands.printing import print_json

commands = typer.Typer()


@commands.command(epilog="Example: evolve compare results/with-model results/control --out ab")
def compare(
    run: RunDir,
    base: Annotated[Path, typer.Argument(help="The run to compare it with, such as a control.")],
    out: Annotated[Path, typer.Option(help="Directory to write to.")],
    device: Annotated[str, typer.Option(help="auto (what the runs are of), cuda or cpu.")] = "auto",
    measure: Annotated[
        bool, typer.Option(help="Measure the champions here; else only what the runs hold.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Two runs side by side: champions timed in pairs, gain per emitter, both trajectories."""
    from evolve import comparison
    from evolve.comparison import page

    found, written = comparison.compare(
        find_run(run), find_run(base), out, device, measure, quiet or as_json
    )
    if as_json:
        print_json({**found.document(), "written": [str(path) for path in written]})
    else:
        print(page.text(found, written))
    if found.verdict == "FAILED":
        raise typer.Exit(1)
