"""A command on a terminal of its own, as a person runs it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "evolve" / "main.py"
CTRL_C = b"\x03"


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with no cluster in it."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | extra


def wait_for(true: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)


class Terminal:
    """`evolve ARGUMENTS` on a pseudo-terminal of its own; keys go in, the screen comes out."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, str(MAIN), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="xterm-256color"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end has closed
            while chunk := os.read(self._master, 65536):
                self._bytes += chunk

    @property
    def screen(self) -> str:
        return self._bytes.decode(errors="replace")

    def expect(self, text: str, seconds: float = 60.0) -> None:
        wait_for(
            lambda: text in self.screen or self.process.poll() is not None, seconds, repr(text)
        )
        assert text in self.screen, self.screen[-2000:]

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def family(self) -> list[psutil.Process]:
        """Every process that came of this command, itself included."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def wait(self, seconds: float) -> int:
        code = self.process.wait(timeout=seconds)
        self._reader.join(timeout=5)
        return code

    def end(self) -> None:
        """For a test that failed half way: nothing of it may live on."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in reversed(self.family()):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            self.process.wait()


def alive(family: list[psutil.Process]) -> list[str]:
    """Those that still run, for a message."""
    found = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:120] or process.name())
    return found


def assert_all_end(family: list[psutil.Process], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(family)
