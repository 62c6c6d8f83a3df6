#!/usr/bin/env python3
"""Command line; also `python evolve/main.py ...`, `ray job submit ... evolve/main.py ...`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: `evolve/` itself must not be on the path
    _here = Path(__file__).resolve().parent
    sys.path[:] = [str(_here.parent), *(p for p in sys.path if Path(p or ".").resolve() != _here)]

from evolve.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
