"""The space of a template: every assignment of values to a source's tunables."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evaluators.schema import Solution
from islands.source import cut

Assignment = tuple[str, ...]
"""Values in the order of `Space.names`."""


@dataclass(frozen=True)
class Space:
    """The tunables of one template and the text between their values.

    `key` is equal for solutions that differ in tunables' values alone. A value that is not among
    its choices (hand-written) is kept where it stands but never proposed.
    """

    key: str
    names: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    text: tuple[str, ...]  # one more than names

    def render(self, values: Assignment) -> str:
        """The source with `values` put in."""
        parts = [self.text[0]]
        for value, text in zip(values, self.text[1:], strict=True):
            parts += (value, text)
        return "".join(parts)

    def near(self, values: Assignment) -> Iterator[Assignment]:
        """All other assignments, those that differ in fewest values first."""
        varied = [i for i, c in enumerate(self.choices) if set(c) - {values[i]}]
        for count in range(1, len(varied) + 1):
            for places in itertools.combinations(varied, count):
                options = [[c for c in self.choices[i] if c != values[i]] for i in places]
                for chosen in itertools.product(*options):
                    yield replaced(values, dict(zip(places, chosen, strict=True)))


def replaced(values: Assignment, changes: Mapping[int, str]) -> Assignment:
    """`values` with the values at some places changed."""
    return tuple(changes.get(i, value) for i, value in enumerate(values))


def read(solution: Solution) -> tuple[Space, Assignment] | None:
    """The space of a solution's entry source and its present values.

    None without tunables, or with a name declared twice: nothing could be set safely.
    """
    text, found = cut(solution.entry_source)
    names = tuple(tunable.name for tunable in found)
    if not names or len(set(names)) < len(names):
        return None
    spec = solution.spec
    others = [s.content for s in solution.sources if s.path != spec.entry_file]
    parts = (solution.definition, spec.language.value, spec.entry_point, *text, *others)
    key = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
    space = Space(key, names, tuple(t.choices for t in found), tuple(text))
    return space, tuple(t.value for t in found)
