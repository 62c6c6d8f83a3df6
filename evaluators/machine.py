"""The machine that evaluations ran on: what records say of it, and what it cannot exceed."""

from __future__ import annotations

from typing import Any

from evaluators import devices, plausible
from evaluators.builders import toolchains
from evaluators.plausible import Ceiling
from evaluators.schema import Definition, Language, Solution

FLOATS = {"float32", "float16", "bfloat16"}
"""Dtypes whose matrix product is measured as a ceiling."""

PACKAGES = {
    Language.TRITON: "triton",
    Language.TILELANG: "tilelang",
    Language.CPP: "apache-tvm-ffi",
    Language.CUDA: "apache-tvm-ffi",
}
"""The package whose version an evaluation of the language records, beside torch's."""


class Machine:
    """Device and software of one evaluator. Ceilings are measured once, when first asked for."""

    def __init__(self, device: devices.DeviceKind, definition: Definition) -> None:
        self._device = device
        self._dtypes: set[str] = {spec.dtype for spec in definition.inputs.values()}
        self._known = devices.facts(device)
        self._ceilings: dict[str, Any] | None = None
        self.versions = devices.versions() | toolchains.versions()

    def facts(self) -> dict[str, Any]:
        """Name, sizes and ceilings of the device. Needs the device the first time."""
        if self._ceilings is None:
            dtypes = self._dtypes & FLOATS
            if self._device != "cpu":
                dtypes.add("bfloat16")  # what products of wider types can be made of
            self._ceilings = devices.ceilings(self._device, tuple(sorted(dtypes)))
        return {**self._known, "ceilings": self._ceilings}

    def ceiling(self) -> Ceiling:
        """What no candidate can exceed. On CUDA it is measured: needs the device the first time."""
        facts = self._known if self._device == "cpu" else self.facts()
        return plausible.ceiling(facts, self._dtypes)

    def environment(self, solution: Solution) -> dict[str, str]:
        """What an evaluation's record names: the device, and versions of what built the kernel."""
        found = {"device": str(self._known["name"])}
        for package in ("torch", PACKAGES.get(solution.spec.language)):
            if package in self.versions:
                found[package] = self.versions[package]
        return found
