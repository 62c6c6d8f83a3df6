"""Where the work runs: Ray (embedded or a cluster), the device, paths as the user means them."""

from __future__ import annotations

import glob
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import ray

from evaluators.schema import Definition
from evaluators.settings import EvaluatorSettings
from evolve.errors import UserError
from evolve.pool import Spawn

ROOT = Path(__file__).resolve().parent.parent
_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/nvidia-uvm", "/dev/mxcd*", "/dev/dxg")
_PROBE = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def start() -> None:
    """Connect to the cluster that RAY_ADDRESS names (a Ray job has it), or start one of our own.

    A cluster is never guessed: Ray waits minutes for one whose trace is left but which is gone.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS") or "local"
    ray.init(
        address=address,
        include_dashboard=False if address == "local" else None,  # ten processes nobody looks at
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
    )


def _python_path() -> str:
    parts = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(p for p in parts if p))


def pick_device(wanted: str) -> tuple[str, int]:
    """(`cuda` or `cpu`, how many). UserError when the wanted device is absent.

    Call after `start`: a cluster's GPUs may be on other machines.
    """
    if wanted == "cpu":
        return "cpu", 1
    count = int(ray.cluster_resources().get("GPU", 0)) or _local_gpus(forced=wanted == "cuda")
    if count:
        return "cuda", count
    if wanted == "cuda":
        raise UserError("device cuda is absent: torch.cuda finds no GPU here")
    return "cpu", 1


def _local_gpus(forced: bool) -> int:
    """GPUs that torch.cuda sees; asked in a process of its own, the driver never imports torch."""
    if not forced and not any(glob.glob(pattern) for pattern in _DEVICE_FILES):
        return 0
    found = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    return int(found.stdout.strip() or 0) if found.returncode == 0 else 0


def evaluator_spawns(
    device: str, count: int, definition: Definition, operator_dir: Path, settings: EvaluatorSettings
) -> list[Spawn]:
    """One spawner per device of an evaluator actor."""
    from evaluators.worker import make_actor

    reserved = ray.cluster_resources().get("GPU", 0) >= count if device == "cuda" else False

    def spawn() -> Any:
        return make_actor(device, definition, operator_dir, settings, gpus=1 if reserved else 0)

    return [spawn] * count


def results_dir(given: Path) -> Path:
    """Absolute results directory, made if absent. UserError when it cannot be written.

    A relative path inside a copy that Ray made of a working directory means the user's own:
    TILEVOLVE_HOME if set, else the directory where `ray start` ran.
    """
    path = given
    if not given.is_absolute():
        path = _user_cwd() / given
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"results directory {path} is not writable: {error.strerror}") from None
    return path.resolve()


def _user_cwd() -> Path:
    cwd = Path.cwd()
    if "runtime_resources" not in cwd.parts:
        return cwd
    home = os.environ.get("TILEVOLVE_HOME")
    if home:
        return Path(home)
    for parent in psutil.Process().parents():
        if parent.name().startswith("raylet"):
            return Path(parent.cwd())
    return Path.home()
