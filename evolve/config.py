"""Run configuration: frozen, nested, unknown keys refused. From TOML, overridden by options."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluators.schema import Language
from evaluators.settings import EvaluatorSettings
from evolve.authors.settings import AgentSettings
from evolve.emitters import EMITTERS
from evolve.errors import UserError
from evolve.llm.settings import LlmSettings

AUTHORS = ("llm", "agent")
"""Emitters that write programs from prompts; each has a section of its own name."""
RETIRED = (("evaluator", "min_time_ms"),)
"""Keys that runs of earlier versions may have stored: refused in files, left out of stores."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(Section):
    """When a run stops: after `evaluations` (search and re-measured elites) or `time_s` seconds."""

    evaluations: int = Field(default=150, gt=0)
    time_s: float | None = Field(default=None, gt=0)


class Islands(Section):
    """How many islands, which emitters with which shares, and how often elites migrate.

    After every `migration_interval` search evaluations each island sends its `migrants` best
    elites to the next island of the ring. The shares of `llm` and `agent` are of the exchanges with
    them against the other emitters' proposals; unless shares are given, those that have a section
    get half together.
    """

    count: int = Field(default=3, ge=1, le=64)
    migration_interval: int = Field(default=20, ge=1)
    migrants: int = Field(default=2, ge=0)
    emitters: dict[str, float] = Field(default_factory=lambda: {"tuner": 0.7, "crossover": 0.3})

    @model_validator(mode="after")
    def _known_emitters(self) -> Islands:
        for name, share in self.emitters.items():
            if name not in (*EMITTERS, *AUTHORS):
                known = ", ".join((*EMITTERS, *AUTHORS))
                raise ValueError(f"unknown emitter {name!r}, known: {known}")
            if share <= 0:
                raise ValueError(f"emitter {name!r} needs a positive share")
        if not self.emitters:
            raise ValueError("at least one emitter is needed")
        return self


class Epochs(Section):
    """Workloads are redrawn after `evaluations` search evaluations; elites are measured again.

    An epoch lasts longer when it had many elites to measure again (three searches for each).
    `workloads` is how many an epoch has; None takes the operator's declared number.
    """

    evaluations: int = Field(default=50, ge=1)
    workloads: int | None = Field(default=None, ge=1)


class RunConfig(Section):
    """Everything that decides a run. `definition` None: the operator's default for the device."""

    operator: str
    definition: str | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    seed: int = Field(default=0, ge=0)
    languages: tuple[Language, ...] = ()
    peers: bool = True
    in_flight: int | None = Field(default=None, ge=1)
    budget: Budget = Budget()
    islands: Islands = Islands()
    epochs: Epochs = Epochs()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    llm: LlmSettings | None = None
    agent: AgentSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _authors_take_part(cls, data: Any) -> Any:
        """Shares for `[llm]` and `[agent]` where the configuration leaves shares open."""
        authors = [name for name in AUTHORS if isinstance(data, dict) and data.get(name)]
        islands = data.get("islands", {}) if authors else None
        if not isinstance(islands, dict) or "emitters" in islands:
            return data
        shares = {"tuner": 0.35, "crossover": 0.15, **{a: 0.5 / len(authors) for a in authors}}
        return {**data, "islands": {**islands, "emitters": shares}}

    @model_validator(mode="after")
    def _authors_have_sections(self) -> RunConfig:
        for name in AUTHORS:
            share, section = name in self.islands.emitters, getattr(self, name) is not None
            if share and not section:
                raise ValueError(f"emitter {name!r} needs a section [{name}]")
            if section and not share:
                raise ValueError(f"section [{name}] needs a share in islands.emitters")
        return self


def load(path: Path | None, overrides: dict[str, Any]) -> RunConfig:
    """Configuration from a TOML file (or none) with `overrides` (dotted keys, None = not given).

    Raises UserError naming the key when it is unknown or its value is out of range.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text())
        except OSError as error:
            raise UserError(f"cannot read config {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"config {path} is not valid TOML: {error}") from None
    for key, value in overrides.items():
        if value is not None:
            _put(data, key.split("."), value)
    return parse(data)


def current(data: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration without the keys that earlier versions had."""
    found = dict(data)
    for name, key in RETIRED:
        if isinstance(section := found.get(name), dict):
            found[name] = {k: v for k, v in section.items() if k != key}
    return found


def parse(data: dict[str, Any]) -> RunConfig:
    """RunConfig from plain data; UserError names the first bad key."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        if first["type"] == "extra_forbidden":
            raise UserError(f"unknown config key {key!r}") from None
        if first["type"] == "missing" and key == "llm.models":
            raise UserError(
                "section [llm] needs a [[llm.models]]; limits of cost and tokens are limits of it"
            ) from None
        if key == "operator" and first["type"] == "missing":
            raise UserError("name an operator; `evolve list` shows them") from None
        message = first["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        where = f"config key {key!r}: " if first["loc"] else ""
        raise UserError(where + message) from None


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UserError(f"config key {key!r} must be a table")
    data[keys[-1]] = value
