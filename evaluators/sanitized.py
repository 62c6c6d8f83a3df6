"""The process that a memory or race checker watches: builds one kernel and calls it.

`python -m evaluators.sanitized FOLDER`, where FOLDER holds what `evaluators.sanitizer` wrote.
One byte is added to FOLDER/calls for every call that came back.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from evaluators import cage, confinement
from evaluators.builders import builder_for, native
from evaluators.builders.base import BuildError, Built, write_sources
from evaluators.builders.cpp import SUFFIXES
from evaluators.sanitizer import UNBUILT
from evaluators.schema import BuildFacts, Solution

FLAGS = (
    "-std=c++17", "-O1", "-g", "-march=native", "-fopenmp", "-fPIC", "-shared",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
)  # fmt: skip


def main(folder: Path) -> int:
    # Inherited, the checker's runtime would be loaded into the compiler too.
    os.environ.pop("LD_PRELOAD", None)
    request = json.loads((folder / "request.json").read_text())
    solution = Solution.model_validate(request["solution"])
    device = str(request["device"])
    confinement.enter(folder, confinement.TRUSTED_FILE_BYTES, None)
    if device == "cpu":
        confinement.leave_network()
        cage.shut(folder)
    else:
        # The checker talks to its front end over sockets, which it has opened once CUDA runs. The
        # cage would be in its way.
        import torch

        torch.cuda.init()
        confinement.leave_network()
    try:
        built = _build(solution, folder, device)
    except BuildError as error:
        print(error, flush=True)
        return UNBUILT
    done = os.open(folder / "calls", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for call in request["calls"]:
        _call(built, solution, folder, device, call)
        os.write(done, b".")
    return 0


def _build(solution: Solution, folder: Path, device: str) -> Built:
    if device != "cpu":
        return builder_for(solution.spec.language).build(solution, folder, device)
    write_sources(solution, folder)
    command = [os.environ.get("CXX") or "g++", *FLAGS, *native.include_flags(folder)]
    command += [*native.sources(solution, folder, SUFFIXES), *native.link_flags()]
    compiled = native.compile_library(command, folder)
    return Built(call=native.load(compiled, solution), facts=BuildFacts)


def _call(built: Built, solution: Solution, folder: Path, device: str, call: Any) -> None:
    import torch

    from evaluators.correctness import poison

    inputs = torch.load(folder / call["inputs"], weights_only=True)
    inputs = [i.to(device) if isinstance(i, torch.Tensor) else i for i in inputs]
    outputs = tuple(
        torch.empty(o["shape"], dtype=getattr(torch, o["dtype"]), device=device)
        for o in call["outputs"]
    )
    poison(outputs)
    built.call(*inputs, *(outputs if solution.spec.destination_passing_style else ()))
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
