"""Phrases that several commands and logs use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def counted(counts: Mapping[str, int]) -> str:
    """`PASSED 7, TIMEOUT 2`: names with their counts, the most frequent first."""
    return ", ".join(f"{k} {v}" for k, v in sorted(counts.items(), key=lambda kv: -kv[1]))


def gist(log: str, limit: int = 400) -> str:
    """Beginning and end of a log on one line of at most `limit` characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    text = " | ".join(lines[:1] + lines[1:][-4:]) or "no log"
    return text if len(text) <= limit else f"{text[:100]} ... {text[-(limit - 105) :]}"


def waiting_line(waiting: int, done: int, budget: int, run: Path) -> str:
    """How many programs wait, and the command that evaluates them.

    `done` of `budget` evaluations are made; the command asks for more where that is too few.
    """
    if not waiting:
        return "nothing pending"
    need = f" --evaluations {done + waiting}" if done + waiting > budget else ""
    return f"{waiting} pending; evaluate with: evolve resume {run}{need}"
