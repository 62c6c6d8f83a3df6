"""What is a secret, and how it is cut out of texts that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SECRET_LENGTH = 8
"""Shorter values are placeholders, such as `none`, and occur in ordinary text."""
_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def named_secret(variable: str) -> bool:
    """Whether an environment variable of that name looks like one that holds a secret."""
    return _NAME.search(variable) is not None


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of variables that look like secrets, in the order in which to cut them out."""
    return in_order(value for name, value in environ.items() if named_secret(name))


def in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Those long enough to be secrets, the longest first: one may be a part of another."""
    found = {value for value in values if len(value) >= SECRET_LENGTH}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact(text: str, values: tuple[str, ...]) -> str:
    """`text` without these secrets."""
    for value in values:
        text = text.replace(value, "[key]")
    return text
