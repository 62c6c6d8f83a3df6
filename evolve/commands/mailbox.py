"""Prompts out, answers in: `ask`, `tell`, `prompt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evolve.commands.options import Json, RunDir, find_run, positive
from evolve.commands.printing import print_json
from evolve.errors import UserError

commands = typer.Typer()

PromptMode = Annotated[
    str | None,
    typer.Option("--mode", help="diff, rewrite, crossover, translate, repair or simplify."),
]
Tokens = Annotated[int, typer.Option(help="Most tokens of a prompt (four characters each).")]


@commands.command(epilog="Example: evolve ask results/my-run -n 8 --out mail")
def ask(
    run: RunDir,
    out: Annotated[Path, typer.Option(help="Folder for the prompts and their answers.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many prompts.")] = 4,
    mode: PromptMode = None,
    tokens: Tokens = 12_000,
    as_json: Json = False,
) -> None:
    """Write prompts for a model or an agent: what to improve, what is known, how to answer."""
    from evolve import mailbox

    wanted = _mode(mode)
    positive(count, "-n")
    asked = mailbox.ask(find_run(run), count, out, wanted, _tokens(tokens))
    if as_json:
        print_json({"asked": asked})
    else:
        print("\n".join(f"{facts['file']}  about {facts['tokens']} tokens" for facts in asked))


@commands.command(epilog="Example: evolve tell results/my-run mail")
def tell(
    run: RunDir,
    folder: Annotated[Path, typer.Argument(help="Folder with the answers to `ask`.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge the answers and keep nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read answers, queue their programs for `resume`, show what became of each so far."""
    from evolve import mailbox

    run_dir = find_run(run)
    report = mailbox.tell(run_dir, folder, dry_run)
    if as_json:
        print_json(report)
    else:
        print("\n".join(mailbox.report_lines(report, run_dir)))


@commands.command(epilog="Example: evolve prompt results/my-run --mode rewrite")
def prompt(
    run: RunDir, mode: PromptMode = None, tokens: Tokens = 12_000, as_json: Json = False
) -> None:
    """Print the prompt that `ask` would write next; stores nothing."""
    from evolve import mailbox

    facts = mailbox.preview(find_run(run), _mode(mode), _tokens(tokens))
    if as_json:
        print_json(facts)
    else:
        print(facts["prompt"], end="")


def _mode(name: str | None) -> Any:
    """The mode of that name; UserError lists those that there are."""
    from evolve.exchanges import Mode

    if name is not None and name not in list(Mode):
        raise UserError(f"unknown mode {name!r}, known: {', '.join(Mode)}")
    return None if name is None else Mode(name)


def _tokens(tokens: int) -> int:
    positive(tokens, "--tokens")
    return tokens
