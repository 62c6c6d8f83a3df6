"""One writer a run: a search, or the mailbox for a moment. Readers need no lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evolve.errors import UserError


@contextmanager
def sole_writer(run_dir: Path) -> Iterator[None]:
    """Holds the run directory for this process; UserError when another process holds it.

    An advisory lock on the directory itself: it leaves no file, and ends with the process.
    """
    try:
        handle = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"no run at {run_dir}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is working on {run_dir}: wait for its end, or stop it with Ctrl-C"
            ) from None
        except OSError:
            pass  # a file system without locks: one writer is then the user's own affair
        yield
    finally:
        os.close(handle)
