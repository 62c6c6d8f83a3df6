"""Whose turn it is: evaluations inside an epoch, and the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from evaluators.trial import Clock


class Gate:
    """Many may be inside, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class DeviceLock:
    """The device is one evaluation's at a time; keeps account of busy and idle seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._born = time.monotonic()
        self._busy = 0.0

    @contextmanager
    def held(self, clock: Clock | None = None) -> Iterator[None]:
        """Hold the device; the waiting counts as `wait` on `clock`."""
        with clock.stage("wait") if clock else nullcontext():
            self._lock.acquire()
        start = time.monotonic()
        try:
            yield
        finally:
            self._busy += time.monotonic() - start
            self._lock.release()

    def accounting(self) -> dict[str, float]:
        alive = time.monotonic() - self._born
        return {"busy_s": round(self._busy, 3), "idle_s": round(alive - self._busy, 3)}
