"""Tunable parameters declared in plain source.

A line such as `BLOCK_N = 64  # tune: 16 32 64 128` (Python) or
`constexpr int BLOCK_N = 64;  // tune: 16 32 64 128` (C++, CUDA; also
`#define BLOCK_N 64  // tune: ...`)
declares a parameter, its present value and the values it may take. The source stays a complete
kernel that needs nothing of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"""^(?P<head>[^\S\n]*(?:\#\s*define\s+(?P<macro>\w+)[^\S\n]+
          |(?:[\w:<>]*[\w>][^\S\n]+)*(?P<name>[A-Za-z_]\w*)[^\S\n]*(?::[^=\n]+)?=[^\S\n]*))
        (?P<value>[^\s;#/]+)
        (?P<mid>;?[^\S\n]*(?:\#|//)[^\S\n]*tune:[^\S\n]*)
        (?P<choices>[^\n]*?)[^\S\n]*$""",
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True)
class Tunable:
    """One declared parameter. `choices` keep their textual form, in declared order."""

    name: str
    value: str
    choices: tuple[str, ...]


def find(source: str) -> dict[str, Tunable]:
    """All tunables of `source` by name. ValueError: a name declared twice or without choices."""
    found: dict[str, Tunable] = {}
    for match in _LINE.finditer(source):
        name = match["macro"] or match["name"]
        if name in found:
            raise ValueError(f"tunable {name!r} is declared twice")
        choices = tuple(dict.fromkeys(match["choices"].split()))
        if not choices:
            raise ValueError(f"tunable {name!r} has no choices")
        found[name] = Tunable(name, match["value"], choices)
    return found


def assign(source: str, values: dict[str, str]) -> str:
    """`source` with the named tunables set. KeyError for a name that is not declared."""
    missing = set(values) - set(find(source))
    if missing:
        raise KeyError(f"no such tunable: {', '.join(sorted(missing))}")

    def put(match: re.Match[str]) -> str:
        value = values.get(match["macro"] or match["name"], match["value"])
        return f"{match['head']}{value}{match['mid']}{match['choices']}"

    return _LINE.sub(put, source)


def template(source: str) -> str:
    """`source` with tunables' values blanked: equal where programs differ in tunables only."""
    return _LINE.sub(lambda m: f"{m['head']}?{m['mid']}{m['choices']}", source)
