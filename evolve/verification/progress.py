"""Shows that a verification works: a spinner with a clock on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 15.0


class Watch:
    """Context manager. `say` prints a line that stays; `doing` names what takes the time now."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._doing, self._since = "", time.monotonic()
        self._ended = threading.Event()
        self._lines: threading.Thread | None = None
        self._live: Progress | None = None

    def __enter__(self) -> Watch:
        if self._quiet:
            return self
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.start()
        else:
            self._lines = threading.Thread(target=self._remind, daemon=True)
            self._lines.start()
        self.doing("starting the evaluator")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._live:
            self._live.stop()
        if self._lines:
            self._lines.join()

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def doing(self, text: str) -> None:
        self._doing, self._since = text, time.monotonic()
        if self._live:
            for task in self._live.task_ids:
                self._live.remove_task(task)
            self._live.add_task(text, total=None)
        else:
            self.say(f"{text} ...")

    def _remind(self) -> None:
        """A line now and then, so that a log shows what a long step is."""
        while not self._ended.wait(LINE_EVERY_S):
            self.say(f"{self._doing}: {time.monotonic() - self._since:.0f} s")
