"""Builders: source of one solution -> something that can be called; one language a file."""

from __future__ import annotations

from evaluators.builders.base import Builder, BuildError, Built
from evaluators.builders.cpp import CppBuilder
from evaluators.builders.cuda import CudaBuilder
from evaluators.builders.python import PythonBuilder
from evaluators.builders.tilelang import TileLangBuilder
from evaluators.builders.triton import TritonBuilder
from evaluators.schema import Language

REGISTRY: dict[Language, Builder] = {
    builder.language: builder
    for builder in (
        CppBuilder(), CudaBuilder(), PythonBuilder(), TileLangBuilder(), TritonBuilder()
    )
}  # fmt: skip


def builder_for(language: Language) -> Builder:
    """The builder of a language."""
    return REGISTRY[language]


__all__ = ["REGISTRY", "BuildError", "Builder", "Built", "builder_for"]
