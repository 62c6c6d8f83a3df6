"""What computes it: the sources of a kernel and how they are built."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, field_validator, model_validator

from evaluators.schema.record import Record


class Language(StrEnum):
    TRITON = "triton"
    TILELANG = "tilelang"
    CUDA = "cuda"
    CPP = "cpp"
    PYTHON = "python"  # peers only: plain torch or a library call


class SourceFile(Record):
    path: str = Field(min_length=1)
    content: str = Field(min_length=1)

    @field_validator("path")
    @classmethod
    def _relative(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"source path must be relative without '..': {path}")
        return path


class BuildSpec(Record):
    """How a solution is built. `entry_point` is `file::function`."""

    language: Language
    target_hardware: tuple[str, ...] = Field(min_length=1)
    entry_point: str
    dependencies: tuple[str, ...] = ()
    destination_passing_style: bool = True
    binding: Literal["tvm-ffi", "torch"] | None = None

    @field_validator("entry_point")
    @classmethod
    def _file_and_function(cls, entry: str) -> str:
        file, _, function = entry.partition("::")
        if not file or not function.isidentifier():
            raise ValueError(f"entry_point must be '<file>::<function>', got {entry!r}")
        return entry

    @property
    def entry_file(self) -> str:
        return self.entry_point.partition("::")[0]

    @property
    def entry_function(self) -> str:
        return self.entry_point.partition("::")[2]


class Solution(Record):
    """Source files and build spec of one kernel; valid as a FlashInfer-Bench solution."""

    name: str = Field(min_length=1)
    definition: str = Field(min_length=1)
    author: str = Field(min_length=1)
    spec: BuildSpec
    sources: tuple[SourceFile, ...] = Field(min_length=1)
    description: str | None = None

    @model_validator(mode="after")
    def _entry_file_present_once(self) -> Solution:
        paths = [s.path for s in self.sources]
        if len(set(paths)) != len(paths):
            raise ValueError("two sources have the same path")
        if self.spec.entry_file not in paths:
            raise ValueError(f"entry file {self.spec.entry_file!r} is not among the sources")
        return self

    @property
    def entry_source(self) -> str:
        """Text of the file that holds the entry point."""
        return next(s.content for s in self.sources if s.path == self.spec.entry_file)

    def with_entry_source(self, content: str) -> Solution:
        """Copy with the entry file's text replaced."""
        sources = tuple(
            SourceFile(path=s.path, content=content) if s.path == self.spec.entry_file else s
            for s in self.sources
        )
        return self.model_copy(update={"sources": sources})

    def digest(self) -> str:
        """Hex SHA-256 over language, entry point and exact sources (32 characters)."""
        h = hashlib.sha256()
        for part in (self.definition, self.spec.language.value, self.spec.entry_point):
            h.update(part.encode() + b"\0")
        for source in self.sources:
            h.update(source.path.encode() + b"\0" + source.content.encode() + b"\0")
        return h.hexdigest()[:32]
