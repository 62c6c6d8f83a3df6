"""What a person sees while a run works: a live panel on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evolve.progress import Progress

LINE_EVERY_S = 5.0


def duration(seconds: float | None) -> str:
    """`75.2` -> `1m15s`; `-` for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _gain(progress: Progress) -> str:
    if not progress.best:
        return "nothing measured yet"
    gain = progress.best / progress.seed_best if progress.seed_best else 1.0
    return f"{progress.best:.3f}x anchor ({gain:.3f}x best seed)"


def _failures(progress: Progress) -> str:
    failed = {k: v for k, v in progress.statuses.items() if k != "PASSED"}
    return ", ".join(f"{k} {v}" for k, v in sorted(failed.items())) or "none"


def _left(progress: Progress) -> float | None:
    """Seconds left: of the time budget, or of the evaluations at the present rate, the smaller."""
    by_rate = (progress.budget - progress.done) / progress.rate if progress.rate else None
    known = [s for s in (progress.time_left_s, by_rate) if s is not None]
    return min(known) if known else None


class Display:
    """Context manager; call it with a Progress."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._title = title
        self._quiet = quiet
        self._last = 0.0
        self._live = (
            Live(console=self._console, refresh_per_second=4, transient=True)
            if self._console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> Display:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.__exit__(kind, value, trace)

    def __call__(self, progress: Progress) -> None:
        if self._quiet:
            return
        if self._live:
            self._live.update(self._panel(progress))
        elif time.monotonic() - self._last >= LINE_EVERY_S or progress.note:
            self._last = time.monotonic()
            print(self._line(progress), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _line(self, p: Progress) -> str:
        if p.note:
            return p.note
        return (
            f"{p.done}/{p.budget} evaluations, {p.rate:.2f}/s, best {_gain(p)}, "
            f"{p.niches} niches, failures: {_failures(p)}, left {duration(_left(p))}"
            + (f", {p.authors}" if p.authors else "")
        )

    def _panel(self, p: Progress) -> Group:
        table = Table.grid(padding=(0, 2))
        rows = [
            ("evaluations", f"{p.done}/{p.budget}  {p.rate:.2f}/s  {p.in_flight} in flight"),
            ("best", _gain(p)),
            ("niches", f"{p.niches} filled, epoch {p.epoch}"),
            ("failures", _failures(p)),
            *([("authors", p.authors)] if p.authors else []),
            ("time", f"{duration(p.elapsed_s)} spent, {duration(_left(p))} left"),
        ]
        for name, value in rows:
            table.add_row(Text(name, style="dim"), value)
        heading = Text(self._title, style="bold")
        bar = ProgressBar(total=max(1, p.budget), completed=p.done, width=60)
        return Group(heading, bar, table, Text(p.note, style="italic"))
