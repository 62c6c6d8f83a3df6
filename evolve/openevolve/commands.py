"""The commands for OpenEvolve's users. Thin: each calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evolve.commands.options import Json, find_run, positive
from evolve.commands.printing import print_json

commands = typer.Typer()

Entry = Annotated[str, typer.Option(help="Function that is called.")]
Returns = Annotated[
    bool, typer.Option("--returns", help="It takes the inputs alone and returns the outputs.")
]
Language = Annotated[
    str | None, typer.Option(help="triton, tilelang, cuda or cpp; as the source tells by default.")
]


@commands.command(
    "import-openevolve",
    epilog="Example: evolve import-openevolve openevolve_output --run results/my-run -n 20",
)
def import_openevolve(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint, or the output folder that holds checkpoints.")
    ],
    run: Annotated[Path, typer.Option(help="Run directory, or a run's name under results/.")],
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Most programs to queue; all by default.")
    ] = None,
    language: Language = None,
    entry: Entry = "run",
    returns: Returns = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge the programs and keep nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Queue the best programs of an OpenEvolve checkpoint in a run; `resume` evaluates them."""
    from evolve.openevolve.importing import How, import_checkpoint, report_lines

    run_dir = find_run(run)
    how = How(_language(language), entry, returns)
    report = import_checkpoint(run_dir, checkpoint, how, positive(count, "-n"), dry_run)
    if as_json:
        print_json(report)
    else:
        print("\n".join(report_lines(report, run_dir)))


@commands.command(
    "openevolve-score", epilog="Example: evolve openevolve-score evaluator.py results/my-run"
)
def openevolve_score(
    evaluator: Annotated[Path, typer.Argument(help="OpenEvolve's evaluator file.")],
    programs: Annotated[
        list[Path],
        typer.Argument(help="Source files, exported folders, solution.json, or finished runs."),
    ],
    deadline: Annotated[float, typer.Option(help="Seconds per program.")] = 300.0,
    cascade: Annotated[
        list[float] | None,
        typer.Option(help="A cascade threshold (repeatable): run the evaluator's stages."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Interpreter that has what the evaluator imports.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score programs with an OpenEvolve evaluator, each in its own process; exit 1 if one fails."""
    from evolve.openevolve.scoring import score, score_lines

    facts = score(evaluator, programs, deadline, tuple(cascade or ()), python)
    if as_json:
        print_json(facts)
    else:
        print("\n".join(score_lines(facts)))
    if any(fact["outcome"] != "SCORED" for fact in facts):
        raise typer.Exit(1)


@commands.command(
    "openevolve-evaluator",
    epilog="Example: evolve openevolve-evaluator matmul_bias_gelu --device cpu --out mine",
)
def openevolve_evaluator(
    operator: Annotated[str, typer.Argument(help="Operator, such as gqa_paged_decode.")],
    out: Annotated[Path, typer.Option(help="Folder to write the files to.")],
    definition: Annotated[str | None, typer.Option(help="One definition of the operator.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    seed: Annotated[str | None, typer.Option(help="Seed to begin with; the first one.")] = None,
    as_json: Json = False,
) -> None:
    """Write what OpenEvolve needs to evolve an operator with our evaluator."""
    from evolve.openevolve.project import write

    written = write(operator, definition, device, seed, out)
    if as_json:
        print_json(written)
    else:
        print("\n".join([*written["written"], f"then: {written['command']}"]))


def _language(name: str | None) -> Any:
    from evaluators.schema import Language as Known
    from evolve.errors import UserError

    known = [k for k in Known if k is not Known.PYTHON]
    if name is not None and name not in known:
        raise UserError(f"unknown language {name!r}, known: {', '.join(known)}")
    return None if name is None else Known(name)
