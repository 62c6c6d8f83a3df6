"""The candidate's process: builds one solution and serves the judge's commands.

Commands and replies are JSON. `attach` (layout and shared blocks), `build`, `warm` (first call, on
base inputs and private outputs: JIT languages compile here), `run` (one judged call on live
inputs), `launches` (one under the profiler), `prepare` and `time` (latency), `memory`, `compile`
(for a device that is absent). A reply is `{"ok": true, ...}` or
`{"ok": false, "status": ..., "log": ...}`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from evaluators import arena, cage, confinement, freed, launches
from evaluators.builders import builder_for
from evaluators.builders.base import BuildError, Built, describe
from evaluators.channel import Channel, ChannelClosed
from evaluators.correctness import poison
from evaluators.schema import Solution, Status
from evaluators.stopwatch import CudaStopwatch, HostStopwatch, Mode, l2_flush

_COMPILERS = ("triton.", "tilelang.", "tvm.", "tvm_ffi.")
_COMPILING = ("build", "warm", "compile")


class WrongReturn(Exception):
    """The entry point returned something that does not fit the definition."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def live(own: socket.socket, folder: Path, file_bytes: int, address_bytes: int | None) -> None:
    """Serve commands on `own` until the judge closes it. Runs confined to `folder`."""
    confinement.enter(folder, file_bytes, address_bytes)
    network = confinement.leave_network()
    shut = cage.shut(folder)
    server = Server(Channel(own), folder, network and shut.network, shut.files)
    try:
        server.serve()
    except ChannelClosed:
        # Skip destructors: they would only return what the system takes back anyway.
        os._exit(0)


class Server:
    """One solution and its commands. Everything a command raises becomes its reply."""

    def __init__(self, judge: Channel, folder: Path, network: str, files: str) -> None:
        self._judge = judge
        self._folder = folder
        self._network = network
        self._files = files
        self._device = "cpu"
        self._built: Built | None = None
        self._solution: Solution | None = None
        self._calls: tuple[arena.Call, ...] = ()
        self._inputs: Any = None
        self._outputs: Any = None
        self._flush: Any = None
        self._prepared: tuple[int, Callable[[], Any]] | None = None
        self._watches: dict[int, HostStopwatch | CudaStopwatch] = {}

    def serve(self) -> None:
        while True:
            message, fds = self._judge.receive_fds(2)
            try:
                reply = {"ok": True, **self._command(message, fds)}
            except BaseException as error:
                # SystemExit and KeyboardInterrupt too: the candidate's code must not end the loop.
                status = _status(error, message)
                reply = {"ok": False, "status": status.value, "log": self._log(error)}
            # The log is read by the judge; a candidate may have closed or replaced its streams.
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            self._judge.send(reply)

    def _command(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        name = message["command"]
        if name == "attach":
            return self._attach(message, fds)
        if name == "build":
            return self._build(message)
        if name == "compile":
            return self._compile(message)
        if name == "memory":
            return dict(freed.held(self._device))
        if name == "facts":
            assert self._built is not None
            return {"facts": self._built.facts().model_dump(mode="json")}
        workload = message["workload"]
        if name == "warm":
            return self._warm(workload)
        if name == "settle":
            return self._settle()
        if name == "launches":
            return {"launches": launches.recorded(self._call(workload))}
        if name == "run":
            return self._run(workload)
        if name == "prepare":
            return asdict(self._watch(workload).prepare())
        return self._time(workload, message["mode"], message["samples"])

    def _attach(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._device = message["device"]
        self._calls = tuple(arena.Call.model_validate(c) for c in message["calls"])
        self._inputs = arena.attach(message["inputs"], fds)
        self._outputs = arena.attach(message["outputs"], fds)
        return {"network": self._network, "files": self._files}

    def _build(self, message: dict[str, Any]) -> dict[str, Any]:
        self._solution = Solution.model_validate(message["solution"])
        builder = builder_for(self._solution.spec.language)
        builder.guarded = message["guarded"]
        self._built = builder.build(self._solution, self._folder, self._device)
        return {"planned": self._built.prepare is not None}

    def _compile(self, message: dict[str, Any]) -> dict[str, Any]:
        solution = Solution.model_validate(message["solution"])
        inputs, outputs = self._arguments(0, live=False)
        builder = builder_for(solution.spec.language)
        facts = builder.compile_only(solution, [*inputs, *outputs], self._folder, message["target"])
        return {"facts": facts.model_dump(mode="json")}

    def _warm(self, workload: int) -> dict[str, Any]:
        """Call once on base inputs and outputs of our own: others may be timed meanwhile.

        Does not wait for the device: what is compiled here may take long, what runs may not.
        """
        import torch

        inputs, outputs = self._arguments(workload, live=False)
        self._bind(inputs, tuple(torch.empty_like(o) for o in outputs))()
        return {}

    def _settle(self) -> dict[str, Any]:
        """Wait for the device to finish what `warm` launched."""
        self._wait()
        return {}

    def _run(self, workload: int) -> dict[str, Any]:
        """One call in which memory that was freed before holds nothing of use."""
        call = self._call(workload)
        with freed.poisoned(self._device):
            call()
            self._wait()
        return {}

    def _time(self, workload: int, mode: Mode, samples: int) -> dict[str, Any]:
        if workload not in self._watches:  # its plan was dropped meanwhile
            self._watch(workload).prepare()
        return {"samples": self._watches[workload].time(mode, samples)}

    def _watch(self, workload: int) -> HostStopwatch | CudaStopwatch:
        if workload not in self._watches:
            call = self._call(workload)
            if self._device == "cpu":
                self._watches[workload] = HostStopwatch(call)
            else:
                if self._flush is None:
                    self._flush = l2_flush()
                ring = Slots(self._inputs, self._outputs, self._calls[workload])
                self._watches[workload] = CudaStopwatch(call, self._flush, ring)
        return self._watches[workload]

    def _call(self, workload: int) -> Callable[[], Any]:
        """The call of a workload on the shared outputs, prepared at most once in a row."""
        assert self._built is not None
        if self._prepared is None or self._prepared[0] != workload:
            if self._built.prepare is not None:
                # A plan may hold gigabytes: the last one goes before the next is made.
                self._prepared = None
                self._watches.clear()
            self._prepared = (workload, self._bind(*self._arguments(workload, live=True)))
        return self._prepared[1]

    def _arguments(self, workload: int, live: bool) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        call = self._calls[workload]
        inputs = tuple(arena.view(self._inputs, e) for e in (call.live if live else call.base))
        return inputs, tuple(arena.view(self._outputs, e) for e in call.outputs)

    def _bind(self, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Callable[[], Any]:
        assert self._built is not None
        assert self._solution is not None
        if self._built.prepare is not None:
            return partial(_checked, self._built.prepare(*inputs, *outputs), outputs, True)
        if self._solution.spec.destination_passing_style:
            return partial(_checked, partial(self._built.call, *inputs, *outputs), outputs, True)
        return partial(_checked, partial(self._built.call, *inputs), outputs, False)

    def _wait(self) -> None:
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()

    def _log(self, error: BaseException) -> str:
        if isinstance(error, BuildError | WrongReturn):
            return str(error)[-8000:]
        return describe(error, self._folder)[-8000:]


class Slots:
    """The ring of one workload, see `evaluators.stopwatch.Ring`."""

    def __init__(self, inputs: Any, outputs: Any, call: arena.Call) -> None:
        self._live = inputs[call.live_start : call.live_start + (1 + call.slots) * call.span]
        self._results = outputs[: (1 + call.slots) * call.reach]
        self._outputs = tuple(arena.view(outputs, e) for e in call.outputs)
        self._span, self._reach = call.span, call.reach

    def load(self, slot: int) -> None:
        span = self._span
        self._live[:span].copy_(self._live[slot * span : (slot + 1) * span])
        poison(self._outputs)

    def keep(self, slot: int) -> None:
        reach = self._reach
        self._results[slot * reach : (slot + 1) * reach].copy_(self._results[:reach])


def _checked(call: Callable[[], Any], outputs: tuple[Any, ...], passing: bool) -> None:
    """Call; compare what it returns with the outputs, and copy it there unless it wrote them."""
    returned = call()
    if returned is None and passing:
        return
    values = returned if isinstance(returned, tuple | list) else (returned,)
    if len(values) != len(outputs):
        message = f"run returned {len(values)} values, the definition has {len(outputs)} outputs"
        raise WrongReturn(Status.INCORRECT_SHAPE, message)
    for value, output in zip(values, outputs, strict=True):
        _fits(value, output)
        if not passing:
            output.copy_(value)


def _fits(value: Any, output: Any) -> None:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or tuple(shape) != tuple(output.shape):
        was = type(value).__name__ if shape is None else f"shape {tuple(shape)}"
        message = f"run returned {was}, the definition says shape {tuple(output.shape)}"
        raise WrongReturn(Status.INCORRECT_SHAPE, message)
    if dtype != output.dtype:
        message = f"run returned {dtype}, the definition says {output.dtype}"
        raise WrongReturn(Status.INCORRECT_DTYPE, message)


def _status(error: BaseException, message: dict[str, Any]) -> Status:
    """What an exception means: the compiler's, out of memory, or the candidate's own fault."""
    if isinstance(error, WrongReturn):
        return error.status
    name = f"{type(error).__module__}.{type(error).__name__}"
    text = str(error)
    if isinstance(error, MemoryError) or "OutOfMemoryError" in name:
        return Status.OUT_OF_MEMORY
    if any(s in text for s in ("bad_alloc", "can't allocate memory", "CUDA out of memory")):
        return Status.OUT_OF_MEMORY
    if isinstance(error, BuildError):
        return Status.COMPILE_ERROR
    if message["command"] in _COMPILING and name.startswith(_COMPILERS):
        return Status.COMPILE_ERROR
    return Status.RUNTIME_ERROR
