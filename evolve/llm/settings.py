"""The `[llm]` section of a configuration: models, deadlines, budgets. No heavy imports here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from evaluators.schema import Record
from evolve.errors import UserError

OWN_SERVER = "http://127.0.0.1:0/v1"
"""Stands for a server that the run starts for itself on a free port: `evolve.local_model`."""
OURS = frozenset({"model", "messages", "stream", "stream_options", "max_tokens", "n"})
"""Request fields that the client sets itself: budgets and reading depend on them."""


class Model(Record):
    """One model behind an OpenAI-compatible endpoint.

    `name` is unique in a run; `served_as` is what the endpoint calls it (None: the same). `weight`
    is the trust before anything is known. `key_env` names the environment variable with the key,
    which is itself never stored (None: the endpoint wants none). Prices are in USD per million
    tokens.
    `output_limit` is the request field that carries `max_output_tokens`. `ask_usage` False for an
    endpoint that refuses `stream_options`. `extra` goes into the request body as it is.
    """

    name: str = Field(min_length=1)
    base_url: str
    served_as: str | None = Field(default=None, min_length=1)
    weight: float = Field(default=1.0, gt=0)
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    input_price: float = Field(default=0.0, ge=0)
    output_price: float = Field(default=0.0, ge=0)
    max_output_tokens: int = Field(default=8192, ge=1)
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: float | None = Field(default=None, ge=0, le=2)
    ask_usage: bool = True
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname)
            fits = fits and (parts.port != 0 or url == OWN_SERVER)
        except ValueError:
            fits = False
        if not fits or any(c.isspace() for c in url):
            # The value is not repeated: it may hold a password.
            raise ValueError("base_url must look like https://host[:port]/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must hold no user, password, query or fragment; see key_env")
        return url

    @field_validator("extra")
    @classmethod
    def _leaves_ours_alone(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted((OURS | {"max_completion_tokens"}) & set(extra))
        if taken:
            raise ValueError(f"extra must not set {', '.join(taken)}")
        return extra

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """USD for so many tokens."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


def key_of(model: Model, environ: Mapping[str, str]) -> str | None:
    """The model's key from `environ`, None when it wants none.

    UserError when it is missing or cannot be sent; messages name the variable only.
    """
    if model.key_env is None:
        return None
    key = environ.get(model.key_env, "").strip()
    if not key:
        raise UserError(
            f"model {model.name!r} needs its key in the environment variable {model.key_env}"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the key in {model.key_env} has characters that cannot be sent")
    return key


class LlmSettings(Record):
    """How models are asked.

    `deadline_s` bounds a call from its submission to its outcome, waiting and retries included;
    `stall_s` is the longest silence within an attempt. A call makes at most `attempts` HTTP
    requests, `backoff_s` doubling up to `backoff_max_s` apart. After `breaker_failures` failed
    requests in a row a model rests for `breaker_s`, doubled for each failed probe up to
    `breaker_max_s`.
    `max_cost` (USD) and `max_tokens` (input and output) are hard limits for the run. An answer
    longer than `max_answer_bytes` is refused while it arrives.

    Prompts are at most `prompt_tokens` long. After `patience` exchanges in a row that gave no new
    program the models are asked no more. Before every `batch` exchanges of an island a model plans
    them, and sums them up afterwards (0: neither). `evaluation_cost` is what an evaluation is worth
    in USD: the larger, the less prices decide which model and mode is used.
    """

    models: tuple[Model, ...] = Field(min_length=1)
    deadline_s: float = Field(default=300.0, gt=0)
    stall_s: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=4, ge=1)
    backoff_s: float = Field(default=1.0, gt=0)
    backoff_max_s: float = Field(default=30.0, gt=0)
    breaker_failures: int = Field(default=5, ge=1)
    breaker_s: float = Field(default=30.0, gt=0)
    breaker_max_s: float = Field(default=600.0, gt=0)
    concurrency: int = Field(default=4, ge=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    max_answer_bytes: int = Field(default=262_144, ge=1024)
    prompt_tokens: int = Field(default=12_000, ge=1000)
    patience: int = Field(default=40, ge=1)
    batch: int = Field(default=6, ge=0)
    evaluation_cost: float = Field(default=0.01, gt=0)

    @model_validator(mode="after")
    def _names_differ(self) -> LlmSettings:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models are named {twice[0]!r}")
        return self
