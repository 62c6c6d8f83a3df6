"""`evolve replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import Json, Quiet, Results, RunDir, find_run, positive
from evolve.commands.printing import finish

commands = typer.Typer()


@commands.command(epilog="Example: evolve replay results/my-run --require 0.9")
def replay(
    run: RunDir,
    out: Annotated[str | None, typer.Option(help="Name of the new run's directory.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Budget; enough for every program by default.")
    ] = None,
    exchanges_only: Annotated[
        bool, typer.Option("--exchanges-only", help="Only programs that came from answers.")
    ] = False,
    require: Annotated[
        float | None, typer.Option(help="Exit 1 below this share of the claim, such as 0.9.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Measure peers at the end.")] = False,
    results: Results = Path("results"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run's proposals without a model; how much of its champion's speed is reached."""
    from evolve import replay as again

    again.check_share(require)
    positive(evaluations, "--evaluations")
    outcome = again.replay(
        find_run(run), results, out, evaluations, peers, exchanges_only, quiet or as_json, require
    )
    facts = again.conclusion(outcome.run_dir)
    finish(outcome, as_json)
    if facts is not None and not again.holds(facts, require):
        raise typer.Exit(1)
