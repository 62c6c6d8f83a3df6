"""JSON messages over a Unix stream socket, with deadlines, a size limit and file descriptors.

The side that trusts the other less never unpickles anything: a message is a JSON object of at most
`limit` bytes, or the channel is broken.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

MESSAGE_LIMIT = 16 << 20
"""Most bytes of one message unless the receiver says less."""

_HEADER = struct.Struct("!I")


class ChannelError(Exception):
    """Base of what can go wrong on a channel."""


class ChannelClosed(ChannelError):
    """The other side is gone."""


class ChannelGarbage(ChannelError):
    """The other side sent something that is no message."""


class ChannelDeadline(ChannelError):
    """The deadline passed before a whole message went through."""


class Channel:
    """One end of a socket. Not thread-safe: one owner at a time."""

    def __init__(self, sock: socket.socket, limit: int = MESSAGE_LIMIT) -> None:
        self.socket = sock
        self._limit = limit

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(
        self, message: dict[str, Any], fds: Sequence[int] = (), timeout_s: float | None = None
    ) -> None:
        """Send one message, with open file descriptors beside it. Raises ChannelError."""
        payload = json.dumps(message).encode()
        self.socket.settimeout(timeout_s)
        try:
            socket.send_fds(self.socket, [_HEADER.pack(len(payload))], list(fds))
            self.socket.sendall(payload)
        except TimeoutError as error:
            raise ChannelDeadline("the other side does not read") from error
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next message; descriptors sent with it are dropped. Raises ChannelError."""
        return self.receive_fds(0, timeout_s)[0]

    def receive_fds(
        self, most: int, timeout_s: float | None = None
    ) -> tuple[dict[str, Any], list[int]]:
        """The next message and at most `most` descriptors sent with it. Raises ChannelError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        header, fds = self._header(most, deadline)
        try:
            size = _HEADER.unpack(header)[0]
            if size > self._limit:
                raise ChannelGarbage(f"a message of {size} bytes is larger than {self._limit}")
            message = json.loads(self._exactly(size, deadline))
            if not isinstance(message, dict):
                raise ChannelGarbage("a message is not a JSON object")
        except (ValueError, RecursionError) as error:
            _close(fds)
            raise ChannelGarbage(f"a message is not JSON: {error}") from error
        except ChannelError:
            _close(fds)
            raise
        return message, fds

    def close(self) -> None:
        self.socket.close()

    def _header(self, most: int, deadline: float | None) -> tuple[bytes, list[int]]:
        fds: list[int] = []
        if most:
            self._arm(deadline)
            try:
                header, fds, _, _ = socket.recv_fds(self.socket, _HEADER.size, most)
            except TimeoutError as error:
                raise ChannelDeadline("no message in time") from error
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not header:
                raise ChannelClosed("end of stream")
        else:
            header = b""
        try:
            return header + self._exactly(_HEADER.size - len(header), deadline), fds
        except ChannelError:
            _close(fds)
            raise

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._arm(deadline)
            try:
                part = self.socket.recv(min(size - len(parts), 1 << 20))
            except TimeoutError as error:
                raise ChannelDeadline("no whole message in time") from error
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not part:
                raise ChannelClosed("end of stream")
            parts += part
        return bytes(parts)

    def _arm(self, deadline: float | None) -> None:
        if deadline is None:
            self.socket.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise ChannelDeadline("no message in time")
        self.socket.settimeout(left)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
