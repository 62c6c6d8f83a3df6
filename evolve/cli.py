"""The command line: all commands in order, and what becomes of bad input and of an interrupt."""

from __future__ import annotations

import errno
import signal
import sqlite3
import sys
import warnings
from typing import Annotated, Any

import typer

from evaluators.catalog import CatalogError
from evolve.commands import compare, local_model, mailbox, replay, results, search
from evolve.errors import UserError
from evolve.openevolve import commands as openevolve

app = typer.Typer(
    name="evolve",
    help="Evolve LLM-inference kernels: search, verify, export.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from evolve.verification.environment import version

        print(f"tilevolve {version() or 'of this folder, not installed'}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Evolve LLM-inference kernels: search, verify, export."""


for group in (search, results, compare, mailbox, replay, local_model, openevolve):
    app.add_typer(group.commands)

BAD_INPUT = 2
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""Of typer's own copy of click, or of click: versions differ."""


def main() -> None:
    """Entry point: bad input is one line on stderr and exit code 2."""
    from evaluators.devices import DeviceError
    from evolve.export import ExportError

    # Programs' sources are parsed here: what Python has against them is the guard's affair.
    warnings.simplefilter("ignore", SyntaxWarning)
    command = typer.main.get_command(app)
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = command.main(args=arguments, prog_name="evolve", standalone_mode=False)
    except (UserError, CatalogError, DeviceError, ExportError) as error:
        _say_and_exit(str(error))
    except UsageError as error:
        _say_and_exit(error.format_message())
    except (sqlite3.OperationalError, OSError) as error:
        if not _is_of_the_disk(error):
            raise
        _say_and_exit(f"cannot write: {error}; what was recorded before is kept")
    except (typer.Abort, KeyboardInterrupt):
        print("evolve: stopped", file=sys.stderr)
        code = INTERRUPTED
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once more would break off the cleaning up
    sys.exit(code if isinstance(code, int) else 0)


def _is_of_the_disk(error: sqlite3.OperationalError | OSError) -> bool:
    """Whether the disk is full or may not be written to: nobody's fault but the machine's."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    return error.sqlite_errorcode in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}


def _say_and_exit(message: str) -> None:
    print("evolve: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(BAD_INPUT)
