"""`python -m evaluators.nursery FD`: a warm process that forks candidates.

It imports torch and the compilers once and never touches the device, so that a fork of it is a
candidate process within milliseconds. It runs with a scrubbed environment and ends when the judge
closes the socket `FD`. Each request brings two sockets: the candidate's and its keeper's.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import shutil
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from evaluators import candidate, installation, keeper, processes
from evaluators.channel import Channel, ChannelClosed

WARM = {
    "triton": ("torch", "triton", "triton.language", "triton.compiler"),
    "tilelang": ("torch", "tvm_ffi", "tilelang", "tilelang.language"),
    "cuda": ("torch", "tvm_ffi", "tvm_ffi.cpp"),
    "cpp": ("torch", "tvm_ffi", "tvm_ffi.cpp"),
    "python": ("torch",),
}
"""What each language's candidates import anyway; loaded at the first candidate of the language."""


class Nursery:
    """Serves fork requests from one judge until it is gone."""

    def __init__(self, judge: Channel) -> None:
        self._judge = judge
        self._keepers: dict[int, Path] = {}
        self._warm: set[str] = set()

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._judge], [], [], 0.5)
            self._bury()
            if ready:
                try:
                    request, fds = self._judge.receive_fds(2)
                except ChannelClosed:
                    return
                self._judge.send(self._answer(request, fds))

    def close(self) -> None:
        """Kill all candidates, and remove folders: the judge, whose task that was, may be dead."""
        processes.kill_descendants(os.getpid())
        for folder in self._keepers.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._warm_up(request["language"])
        installation.readable(Path(request["folder"]).parent)  # found once, before the fork
        pid = os.fork()
        if pid == 0:
            self._judge.close()
            mine, keepers = (socket.socket(fileno=fd) for fd in fds)
            limits = request["file_bytes"], request["address_bytes"]
            live = partial(candidate.live, mine, Path(request["folder"]), *limits)
            keeper.keep(live, mine, keepers, request["memory_bytes"])
        for fd in fds:
            os.close(fd)
        self._keepers[pid] = Path(request["folder"])
        return {"keeper": pid}

    def _warm_up(self, language: str) -> None:
        missing = [m for m in WARM.get(language, ()) if m not in self._warm]
        for module in missing:
            self._warm.add(module)
            try:
                importlib.import_module(module)
            except Exception as error:
                # Not ours to judge: a candidate that needs it fails to build and says why.
                print(f"{module} cannot be imported: {error}", file=sys.stderr)
        if missing:
            gc.collect()
            gc.freeze()

    def _bury(self) -> None:
        """Reap keepers. What a keeper that was killed left behind is now ours, and is killed."""
        ended = processes.reap()
        for pid in ended:
            self._keepers.pop(pid, None)
        if any(os.WIFSIGNALED(status) for status in ended.values()):
            kept = {p for k in self._keepers for p in (k, *processes.descendants(k))}
            for pid in set(processes.descendants(os.getpid())) - kept:
                os.kill(pid, 9)


def main() -> None:
    processes.become_subreaper()
    nursery = Nursery(Channel(socket.socket(fileno=int(sys.argv[1]))))
    nursery.serve()
    nursery.close()


if __name__ == "__main__":
    main()
