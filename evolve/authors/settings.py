"""The `[agent]` section of a configuration. No heavy imports here."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from evaluators.schema import Record
from evolve.errors import UserError


class AgentSettings(Record):
    """A command that reads a prompt on stdin and answers on stdout.

    `command`: a list, or one line in shell quoting; no shell runs it. Each call has `deadline_s`,
    after which all that it started is killed; `concurrency` run at once, each in an empty
    folder of its own. The command has the environment that `evolve` was started with, without the
    variables that hold keys of `[llm]` unless `keep_env` names them. Prompts are at most
    `prompt_tokens` long, answers at most `max_answer_bytes`. After `patience` exchanges in a row
    that gave no new program the agent is asked no more.
    """

    command: tuple[str, ...] = Field(min_length=1)
    deadline_s: float = Field(default=900.0, gt=0)
    concurrency: int = Field(default=2, ge=1, le=64)
    prompt_tokens: int = Field(default=12_000, ge=1000)
    max_answer_bytes: int = Field(default=1 << 20, ge=1024)
    patience: int = Field(default=20, ge=1)
    keep_env: tuple[str, ...] = ()

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, command: Any) -> Any:
        if isinstance(command, str):
            try:
                return tuple(shlex.split(command))
            except ValueError as error:
                raise ValueError(f"command is not quoted well: {error}") from None
        return command


def command_of(settings: AgentSettings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The command with its program found, as the user means it. UserError when there is none."""
    program, *arguments = settings.command
    found = shutil.which(program, path=environ.get("PATH"))
    if found is None:
        raise UserError(f"[agent] command {program!r} is not found")
    return (os.path.abspath(found), *arguments)
