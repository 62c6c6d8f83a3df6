"""Static checks on a solution's source, before anything of it is compiled or imported.

`check` returns reasons with line numbers; an empty list means the source may be built. The checks
keep honest candidates honest and give an author, person or model, a precise message. They judge
text: what contains a hostile candidate is its process, and what convicts a cheating one is the
judge, who never takes its word.

`entry` looks at the entry point. `python` refuses what a kernel never needs: tables in
`python_names`, what names stand for in `scope` and `bindings`, what reaches beyond the language in
`foreign`, host functions in `hosts`, where tensors go in `tracking` and what is done with them in
`flow`. So does `cpp`: tables in `cpp_names`, tokens from `lexer`, the source's own names in
`cpp_own`, inline assembly in `cpp_assembly`, load time in `cpp_loading`, state between calls in
`cpp_state`. `library` looks once more, at what a C++ source was compiled to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from evaluators import tunables
from evaluators.guard import cpp, python
from evaluators.guard.entry import PYTHON_LANGUAGES, entry_reasons
from evaluators.guard.python_names import LOOSE_STANDARD, PACKAGES
from evaluators.schema import Definition, Solution, SourceFile

__all__ = ["check", "entry_reasons"]


def check(solution: Solution, definition: Definition) -> list[str]:
    """Reasons why `solution` must not be built for `definition`; empty when it may be."""
    reasons = entry_reasons(solution, definition)
    for source in solution.sources:
        found = _source_reasons(source, solution, definition)
        prefix = f"{source.path}: " if len(solution.sources) > 1 else ""
        for reason in dict.fromkeys(found):
            if reason not in reasons:
                reasons.append(prefix + reason)
    return reasons


def _source_reasons(
    source: SourceFile, solution: Solution, definition: Definition
) -> Iterator[str]:
    try:
        tunables.find(source.content)
    except ValueError as error:
        yield str(error)
    if solution.spec.language not in PYTHON_LANGUAGES:
        headers = {s.path for s in solution.sources}
        yield from cpp.reasons(source.content, headers)
    elif source.path.endswith(".py"):
        local = {PurePosixPath(s.path).stem for s in solution.sources if s.path.endswith(".py")}
        taken = sorted(local & (PACKAGES | LOOSE_STANDARD | sys.stdlib_module_names))
        if taken:
            yield f"line 1: a file named like the module {taken[0]!r} is not allowed: rename it"
        entry = source.path == solution.spec.entry_file
        yield from python.reasons(
            source.content, solution.spec, definition if entry else None, local.difference(taken)
        )
    else:
        yield "line 1: a kernel in Python has files in Python alone: no other is looked at"
