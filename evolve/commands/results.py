"""What a run came to: `status`, `list`, `export`, `plot`, `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import Json, Quiet, RunDir, find_run
from evolve.commands.printing import print_json
from evolve.errors import UserError

commands = typer.Typer()


@commands.command(epilog="Example: evolve status results/my-run --json")
def status(run: RunDir, as_json: Json = False) -> None:
    """Where a run stands: evaluations, best score, niches, failures; works while it runs."""
    from evolve.summary import summarise, summary_lines

    facts = summarise(find_run(run))
    if as_json:
        print_json(facts)
    else:
        print("\n".join(summary_lines(facts)))


@commands.command("list", epilog="Example: evolve list")
def list_(as_json: Json = False) -> None:
    """Operators with their definitions, seeds and peers."""
    from evolve.summary import catalogue, catalogue_lines

    facts = catalogue()
    if as_json:
        print_json(facts)
    else:
        print("\n".join(catalogue_lines(facts)))


@commands.command(epilog="Example: evolve export results/my-run --out results/published/h200/my-op")
def export(
    run: RunDir,
    out: Annotated[Path, typer.Option(help="Directory to write to.")],
    as_json: Json = False,
) -> None:
    """Write a finished run's champion, tables and plots to a directory of their own."""
    from evolve import output
    from evolve.store import Store

    store = Store.open(find_run(run), readonly=True)
    written = output.write(store, out)
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))


@commands.command(epilog="Example: evolve plot results/my-run")
def plot(
    run: RunDir,
    out: Annotated[Path | None, typer.Option(help="Directory; the run's own by default.")] = None,
    as_json: Json = False,
) -> None:
    """Draw trajectory, archive and latency curves of a run, finished or not."""
    from evolve import output
    from evolve.store import Store

    run_dir = find_run(run)
    drawn = output.plots(Store.open(run_dir, readonly=True), out or run_dir)
    if as_json:
        print_json({"drawn": [str(path) for path in drawn]})
    else:
        print("\n".join(str(path) for path in drawn))


@commands.command(epilog="Example: evolve verify results/my-run/champion")
def verify(
    path: Annotated[Path, typer.Argument(help="Run, exported folder or solution.json.")],
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; default: verification/DEVICE beside PATH."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the unseen workloads.")] = 1,
    peers: Annotated[bool, typer.Option(help="Measure peers too.")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole battery on a solution, with a report; exit 0 only when everything holds."""
    from evolve import verification
    from evolve.verification import page

    report, folder = verification.verify(path, device, seed, peers, quiet or as_json, out)
    if as_json:
        print_json(report.document())
    else:
        print(page.text(report, folder))
    if report.verdict == "UNDECIDED":
        raise UserError(report.reason)
    if not report.passed:
        raise typer.Exit(1)
