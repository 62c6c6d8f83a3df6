"""A program's identity: definition, language, entry point and normalised sources."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evaluators.schema import Language, SourceFile
from islands.program import Program, program_id
from tests.islands.samples import solution

SOURCE = "BLOCK = 64  # tune: 16 64\n\ndef run(x, y):\n    y.copy_(x)\n"


def test_layout_and_names_do_not_change_the_id() -> None:
    one = solution(SOURCE)
    other = solution('"""Doc."""\n' + SOURCE.replace("\n\n", "\n# why\n"))
    other = other.model_copy(update={"name": "other", "author": "else"})
    assert program_id(one) == program_id(other)


def test_what_runs_changes_the_id() -> None:
    one = solution(SOURCE)
    spec = one.spec.model_copy(update={"entry_point": "kernel.py::go"})
    rivals = [
        solution(SOURCE.replace("64 ", "16 ")),
        one.model_copy(update={"definition": "other"}),
        one.model_copy(update={"spec": spec}),
        solution(SOURCE, Language.TILELANG),
        one.model_copy(
            update={"sources": (*one.sources, SourceFile(path="b.py", content="x = 1"))}
        ),
    ]
    assert len({program_id(s) for s in [one, *rivals]}) == len(rivals) + 1


def test_the_order_of_files_does_not_matter() -> None:
    extra = SourceFile(path="a.h", content="int x;")
    one = solution(SOURCE)
    first = one.model_copy(update={"sources": (extra, *one.sources)})
    last = one.model_copy(update={"sources": (*one.sources, extra)})
    assert program_id(first) == program_id(last)


def test_a_program_travels_as_json() -> None:
    program = Program.of(solution(SOURCE), parents=("0" * 32,), island=2, emitter="t", ordinal=7)
    assert Program.model_validate_json(program.model_dump_json()) == program
    assert len(program.id) == 32


def test_an_id_must_be_one() -> None:
    with pytest.raises(ValidationError):
        Program(id="nonsense", solution=solution(SOURCE))
