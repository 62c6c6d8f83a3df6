"""Options that several commands take, and the checks of what is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Results = Annotated[Path, typer.Option("--results", help="Directory that holds runs.")]
RunDir = Annotated[Path, typer.Argument(help="Run directory, or a run's name under results/.")]


def positive(value: int | None, option: str) -> int | None:
    if value is not None and value <= 0:
        raise UserError(f"{option} must be greater than 0, got {value}")
    return value


def find_run(given: Path) -> Path:
    """A run directory as given, or by name under results/."""
    from evolve.store import FILE

    for path in (given, Path("results") / given):
        if (path / FILE).is_file():
            return path
    raise UserError(f"no run at {given} (looked for {FILE} there and under results/)")
