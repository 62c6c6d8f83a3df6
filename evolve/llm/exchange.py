"""An exchange with a model: the prompt, and its outcome as a typed record."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from evaluators.schema import Record


class Prompt(Record):
    """What a model is asked. Characters that have no UTF-8 form are replaced."""

    user: str = Field(min_length=1)
    system: str = ""

    @field_validator("user", "system", mode="before")
    @classmethod
    def _encodable(cls, text: object) -> object:
        return clean(text) if isinstance(text, str) else text

    @property
    def most_tokens(self) -> int:
        """Upper bound of its length in tokens: no tokeniser gives more than one a byte.

        The chat template that an endpoint puts around the messages is allowed 256.
        """
        return len(self.user.encode()) + len(self.system.encode()) + 256


class Usage(Record):
    """Tokens and USD of a call, all its attempts together.

    `estimated`: the endpoint did not say, so an upper bound was charged.
    """

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    cost: float = Field(default=0.0, ge=0)
    estimated: bool = False

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost=self.cost + other.cost,
            estimated=self.estimated or other.estimated,
        )


class Reason(StrEnum):
    """Why there is no answer."""

    BUDGET = "BUDGET"  # the call's worst case no longer fits max_cost or max_tokens
    OUTAGE = "OUTAGE"  # the model rests after failures; nothing was sent
    DEADLINE = "DEADLINE"  # the call's deadline passed
    TIMEOUT = "TIMEOUT"  # the endpoint fell silent
    CONNECTION = "CONNECTION"
    RATE_LIMITED = "RATE_LIMITED"
    SERVER_ERROR = "SERVER_ERROR"
    WRONG_KEY = "WRONG_KEY"
    BAD_REQUEST = "BAD_REQUEST"  # the endpoint refuses this request, or the account has no quota
    MALFORMED = "MALFORMED"  # not the JSON that the interface promises, or cut short
    WRONG_ROLE = "WRONG_ROLE"
    EMPTY = "EMPTY"
    TOO_LARGE = "TOO_LARGE"
    CLOSED = "CLOSED"  # the client was closed

    @property
    def of_service(self) -> bool:
        """Whether the service failed (so asking should pause), rather than what the model said."""
        return self not in {
            Reason.BUDGET, Reason.WRONG_ROLE, Reason.EMPTY, Reason.TOO_LARGE, Reason.CLOSED,
        }  # fmt: skip


class Answer(Record):
    """A model's text. `finish` is why it stopped: `length` means that it was cut off."""

    kind: Literal["answer"] = "answer"
    model: str
    text: str = Field(min_length=1)
    finish: str = "stop"
    usage: Usage = Usage()
    attempts: int = Field(ge=1)
    seconds: float = Field(ge=0)

    @property
    def cut(self) -> bool:
        return self.finish == "length"


class Refused(Record):
    """No answer, and why. `attempts` counts HTTP requests; their usage is charged all the same."""

    kind: Literal["refused"] = "refused"
    model: str
    reason: Reason
    detail: str = ""
    usage: Usage = Usage()
    attempts: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)


Outcome = Annotated[Answer | Refused, Field(discriminator="kind")]
"""For `pydantic.TypeAdapter`: a stored outcome reads back as what it was."""


def clean(text: str) -> str:
    """`text` with lone surrogates replaced: no file and no hash can take them."""
    # By way of UTF-16, so that a pair whose halves came in two pieces is joined.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
