"""Emitters by name: adding one is a file here and a line in `EMITTERS`."""

from __future__ import annotations

from evolve.emitters.crossover import Crossover
from evolve.emitters.tuner import Tuner
from islands.emitter import Emitter

EMITTERS: dict[str, type[Emitter]] = {emitter.name: emitter for emitter in (Tuner, Crossover)}

__all__ = ["EMITTERS", "Crossover", "Tuner"]
