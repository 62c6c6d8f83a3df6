"""Applying answers: the match and nothing but the match changes, and a refusal says why."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluators.schema import SourceFile
from evolve.llm.answer import Problem, Rejected
from evolve.llm.answering import again, note_of
from evolve.llm.diff import Applied, apply
from evolve.llm.insights import told

SOURCE = """\
import triton

BLOCK = 64  # tune: 32 64 128


def first(x):
    total = 0
    for i in range(4):
        total += x[i]
    return total


def second(x):
    total = 0
    for i in range(8):
        total += x[i]
    return total
"""


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def file(content: str = SOURCE, path: str = "kernel.py") -> SourceFile:
    return SourceFile(path=path, content=content)


def applied(answer: str, *sources: SourceFile) -> list[str]:
    result = apply(answer, sources or (file(),))
    assert isinstance(result, Applied), result
    return [source.content for source in result.sources]


def rejected(answer: str, *sources: SourceFile, problem: Problem) -> str:
    result = apply(answer, sources or (file(),))
    assert isinstance(result, Rejected), result
    assert result.problem is problem, result
    return result.reason


def test_a_unique_match_is_replaced() -> None:
    answer = "I would unroll.\n\n" + block("    for i in range(8):\n", "    for i in range(16):\n")
    assert applied(answer) == [SOURCE.replace("range(8)", "range(16)")]


def test_several_blocks_apply_to_the_source_as_given() -> None:
    answer = block("BLOCK = 64  # tune: 32 64 128\n", "BLOCK = 128  # tune: 32 64 128\n") + block(
        "def second(x):\n    total = 0\n", "def second(x):\n    total = 1\n"
    )
    expected = SOURCE.replace("BLOCK = 64", "BLOCK = 128")
    at = expected.index("def second")
    expected = expected[:at] + expected[at:].replace("total = 0", "total = 1")
    assert applied(answer) == [expected]


def test_a_block_given_twice_counts_once() -> None:
    one = block("    for i in range(8):\n", "    for i in range(9):\n")
    assert applied(one + "So, again:\n" + one) == [SOURCE.replace("range(8)", "range(9)")]


def test_an_empty_replacement_deletes() -> None:
    assert applied(block("import triton\n\n", "")) == [SOURCE.removeprefix("import triton\n\n")]


@pytest.mark.parametrize(
    "answer",
    [
        "```python\n" + block("import triton\n", "import torch\n") + "```\n",
        block("```python\nimport triton\n```\n", "```python\nimport torch\n```\n"),
        block("import triton\n", "```python\nimport torch\n```\n"),
        block("import triton\n", "import torch\n").replace("\n", "\r\n"),
        "1. Like this:\n   " + block("import triton\n", "import torch\n"),
        block("import triton  \n", "import torch\n"),
        "<<<<<<<< SEARCH\nimport triton\n========\nimport torch\n>>>>>>>> REPLACE",
        "<<<<<<< SEARCH kernel.py\nimport triton\n=======\nimport torch\n>>>>>>> REPLACE",
        "**kernel.py**\n" + block("import triton\n", "import torch\n"),
        "### File: `kernel.py`:\n\n```python\n" + block("import triton\n", "import torch\n"),
        "```python kernel.py\n" + block("import triton\n", "import torch\n"),
        "```\nkernel.py\n" + block("import triton\n", "import torch\n"),
    ],
)  # fmt: skip
def test_layout_around_and_within_blocks_is_forgiven(answer: str) -> None:
    assert applied(answer) == [SOURCE.replace("import triton", "import torch")]


@pytest.mark.parametrize("shift", ["", "    ", "\t", "        "])
def test_a_common_indentation_is_repaired(shift: str) -> None:
    source = file("def f():\n    if x:\n        a()\n\n        b()\n    return 1\n")
    lines = ["if x:", "    a()", "", "    b()"]
    new = ["if y:", "    a()", "", "    c()"]
    indented = ["".join(f"{shift}{line}\n" if line else "\n" for line in ls) for ls in (lines, new)]
    result = apply(block(*indented), [source])
    assert isinstance(result, Applied)
    text = result.sources[0].content
    assert text == "def f():\n    if y:\n        a()\n\n        c()\n    return 1\n"
    assert result.repaired == (shift != "    ")


def test_indentation_that_cannot_be_mended_is_a_miss() -> None:
    source = file("a\n  b\n")
    answer = block("    a\n      b\n", "    a\n  c\n")
    assert "indentation" in rejected(answer, source, problem=Problem.MISS)
    # Not one shift for all lines: Python would mean something else.
    rejected(block("  a\n  b\n", "x\n"), source, problem=Problem.MISS)


def test_a_duplicate_is_refused_and_all_places_are_named() -> None:
    answer = block("    total = 0\n", "    total = 1\n")
    reason = rejected(answer, problem=Problem.DUPLICATE)
    assert "line 7" in reason
    assert "line 14" in reason


def test_a_duplicate_that_differs_in_indentation_alone_is_refused() -> None:
    source = file("if a:\n    x = 1\nif b:\n        x = 1\n")
    reason = rejected(block("x = 1\n", "x = 2\n"), source, problem=Problem.DUPLICATE)
    assert "line 2" in reason
    assert "line 4" in reason


@pytest.mark.parametrize("blanks", ["", "  "])
def test_a_match_in_place_outdoes_one_with_other_indentation(blanks: str) -> None:
    source = file("x = 1\nif b:\n    x = 1\n")
    answer = block(f"x = 1{blanks}\n", "x = 2\n")
    assert applied(answer, source) == ["x = 2\nif b:\n    x = 1\n"]


@pytest.mark.parametrize("search", ["", "\n", "   \n\n"])
def test_an_empty_search_is_refused(search: str) -> None:
    rejected(block(search, "import os\n"), problem=Problem.EMPTY_SEARCH)


def test_a_miss_names_the_nearest_lines() -> None:
    answer = block("def second(x):\n    total = 0\n    for j in range(8):\n", "pass\n")
    reason = rejected(answer, problem=Problem.MISS)
    assert "lines 13-15 of kernel.py" in reason
    assert "   15 |     for i in range(8):" in reason
    assert "for j in range(8):" in reason


def test_part_of_a_line_is_no_match() -> None:
    rejected(block("BLOCK = 64\n", "BLOCK = 128\n"), problem=Problem.MISS)


def test_all_faulty_blocks_are_reported_at_once() -> None:
    answer = block("nowhere\n", "x\n") + block("", "x\n") + block("import triton\n", "x\n")
    reason = rejected(answer, problem=Problem.MISS)
    assert "Block 1" in reason
    assert "Block 2" in reason
    assert "Block 3" not in reason


UNDERLINED = 'DOC = """\nTitle\n=======\nText\n"""\nx = 1\n'


@pytest.mark.parametrize(
    ("search", "replace", "expected"),
    [
        ("Title\n=======\nText\n", "Head\n=======\nText\n", UNDERLINED.replace("Title", "Head")),
        ("Title\n=======\nText\n", "Text\n", UNDERLINED.replace("Title\n=======\n", "")),
        (
            "x = 1\n",
            "y = '''\n=======\n'''\n",
            UNDERLINED.replace("x = 1", "y = '''\n=======\n'''"),
        ),
        ("=======\nText\n", "-------\nText\n", UNDERLINED.replace("=======", "-------")),
    ],
)
def test_a_line_that_looks_like_the_divider_may_stand_on_either_side(
    search: str, replace: str, expected: str
) -> None:
    assert applied(block(search, replace), file(UNDERLINED)) == [expected]


@pytest.mark.parametrize(
    "answer",
    [
        "I see nothing to improve.",
        "<<<<<<< SEARCH\nimport triton\n=======\nimport torch\n",
        "<<<<<<< SEARCH\nimport triton\n>>>>>>> REPLACE\n",
        "<<<<<<< SEARCH\nimport triton\n=======\n" + block("BLOCK\n", "x\n"),
        "```python\nimport triton\n",
        "```python\na = 1\n```\nor\n```python\na = 2\n```\n",
        "```bash\nrm -r x\n```\n",
        "",
    ],
)
def test_an_answer_without_a_whole_block_is_refused(answer: str) -> None:
    assert rejected(answer, problem=Problem.FORMAT)


def test_blocks_that_change_the_same_lines_are_refused() -> None:
    answer = block("import triton\n\nBLOCK = 64  # tune: 32 64 128\n", "x\n") + block(
        "import triton\n", "import torch\n"
    )
    assert "Blocks 1 and 2" in rejected(answer, problem=Problem.OVERLAP)


def test_blocks_may_share_context_lines() -> None:
    source = file("a\nb\nc\n")
    answer = block("a\nb\n", "A\nb\n") + block("b\nc\n", "b\nC\n")
    assert applied(answer, source) == ["A\nb\nC\n"]


def test_nothing_may_remain_empty() -> None:
    rejected(block("a\n", ""), file("a\n"), problem=Problem.EMPTY_RESULT)
    rejected("```python\n\n```", problem=Problem.EMPTY_RESULT)


FILES = (file("a = 1\nsame = 0\n", "run.py"), file("b = 1\nsame = 0\n", "parts/b.py"))


def test_a_file_is_found_by_its_only_match_or_by_its_path() -> None:
    assert applied(block("b = 1\n", "b = 2\n"), *FILES)[1].startswith("b = 2")
    answer = "run.py\n" + block("same = 0\n", "same = 1\n")
    answer += "\nparts/b.py\n```python\n" + block("same = 0\n", "same = 2\n") + "```\n"
    assert applied(answer, *FILES) == ["a = 1\nsame = 1\n", "b = 1\nsame = 2\n"]


def test_a_match_in_two_files_is_a_duplicate() -> None:
    reason = rejected(block("same = 0\n", "x\n"), *FILES, problem=Problem.DUPLICATE)
    assert "run.py line 2" in reason
    assert "parts/b.py line 2" in reason


def test_an_unknown_file_is_named_with_the_known_ones() -> None:
    reason = rejected("c.py\n" + block("a = 1\n", "x\n"), *FILES, problem=Problem.UNKNOWN_FILE)
    assert "c.py" in reason
    assert "run.py, parts/b.py" in reason


REGION = """\
import triton
# EVOLVE-BLOCK-START
x = 1
y = 2
# EVOLVE-BLOCK-END
x = 1
"""


def test_changes_within_a_region_apply_even_with_its_markers_as_context() -> None:
    expected = [REGION.replace("y = 2", "y = 3")]
    assert applied(block("y = 2\n", "y = 3\n"), file(REGION)) == expected
    end = "# EVOLVE-BLOCK-END\n"
    assert applied(block("y = 2\n" + end, "y = 3\n" + end), file(REGION)) == expected


def test_of_two_places_only_one_within_a_region_counts() -> None:
    assert applied(block("x = 1\n", "x = 9\n"), file(REGION)) == [
        REGION.replace("x = 1", "x = 9", 1)
    ]


@pytest.mark.parametrize(
    ("search", "replace"),
    [
        ("import triton\n", "import os\n"),
        ("# EVOLVE-BLOCK-END\nx = 1\n", "# EVOLVE-BLOCK-END\nz = 0\nx = 1\n"),
        ("y = 2\n# EVOLVE-BLOCK-END\n", "y = 3\n"),
        ("y = 2\n", "y = 2\n# EVOLVE-BLOCK-END\n"),
        (
            "import triton\n# EVOLVE-BLOCK-START\nx = 1\n",
            "import os\n# EVOLVE-BLOCK-START\nx = 2\n",
        ),
    ],
)
def test_changes_outside_the_regions_are_refused(search: str, replace: str) -> None:
    assert "lines 3-4" in rejected(block(search, replace), file(REGION), problem=Problem.REGION)


def test_markers_are_neither_added_nor_left_broken() -> None:
    answer = block("import triton\n", "# EVOLVE-BLOCK-START\nimport triton\n# EVOLVE-BLOCK-END\n")
    rejected(answer, problem=Problem.REGION)
    broken = file(REGION.replace("# EVOLVE-BLOCK-END\n", ""))
    rejected(block("y = 2\n", "y = 3\n"), broken, problem=Problem.REGION)


def test_a_rewrite_replaces_the_whole_file() -> None:
    answer = (
        "Here:\n```python\nimport torch\n\nx = 1\n```\nIt is faster. Run:\n```bash\npython x\n```"
    )
    assert applied(answer) == ["import torch\n\nx = 1\n"]
    assert applied(answer, file("a\r\nb\r\n")) == ["import torch\r\n\r\nx = 1\r\n"]
    assert applied(answer, file("a\nb")) == ["import torch\n\nx = 1"]


def test_code_that_an_agent_showed_on_its_way_is_not_its_answer() -> None:
    sources = [SourceFile(path="kernel.py", content=SOURCE)]
    thought = "I try this first:\n\n```python\nprint(1)\n```\n\n"
    final = "```python\nimport triton\n# CHANGE: less\n```\n"
    applied = apply(thought + "CHANGE: less code\n\n" + final, sources)
    assert isinstance(applied, Applied)
    assert applied.sources[0].content == "import triton\n# CHANGE: less\n"
    # Without the line nobody can tell them apart, and a line within the code is none.
    assert isinstance(apply(thought + final, sources), Rejected)
    # A file that is named is meant, wherever it stands, and so is a block before a late line.
    named = apply("`kernel.py`:\n\n" + final + "CHANGE: less code\n\n" + final, sources)
    assert isinstance(named, Rejected)
    assert isinstance(apply(final + "CHANGE: less code\n", sources), Applied)


def test_a_rewrite_of_several_files_keeps_those_not_given() -> None:
    answer = "**parts/b.py**\n\n````python\nb = '''\n```\n'''\n````\n"
    assert applied(answer, *FILES) == [FILES[0].content, "b = '''\n```\n'''\n"]
    rejected("```python\nb = 2\n```", *FILES, problem=Problem.FORMAT)


def test_a_rewrite_may_change_regions_only() -> None:
    new = REGION.replace("y = 2", "y = 3\nz = 4")
    assert applied(f"```python\n{new}```", file(REGION)) == [new]
    for outside in (
        new.replace("import triton", "import os"),
        new.replace("# EVOLVE-BLOCK-END\nx = 1\n", "# EVOLVE-BLOCK-END\n"),
        "y = 3\n",
    ):
        rejected(f"```python\n{outside}```", file(REGION), problem=Problem.REGION)


def test_the_wanted_form_can_be_fixed() -> None:
    answer = "```python\nx = 1\n```"
    result = apply(answer, [file()], form="edits")
    assert isinstance(result, Rejected)
    assert result.problem is Problem.FORMAT


# A line of code-like characters; nothing that is itself part of the answer's grammar.
LINE = st.text(alphabet="ab =()#\t\x0c\u2028\r'", max_size=8).filter(lambda s: not s.endswith("\r"))
SOURCES = st.lists(LINE, min_size=1, max_size=12).filter(lambda ls: any(s.strip() for s in ls))
ENDING = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=300, deadline=None)
@given(st.data(), SOURCES, st.lists(LINE, max_size=5), ENDING, ENDING, st.booleans())
def test_nothing_but_the_match_changes(
    data: st.DataObject, lines: list[str], new: list[str], ours: str, theirs: str, closed: bool
) -> None:
    start = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(start + 1, len(lines)))
    window = lines[start:end]
    assume(any(line.strip() for line in window))
    text = ours.join(lines) + (ours if closed else "")
    assume(text.strip() and (closed or lines[-1]))
    answer = theirs.join(["<<<<<<< SEARCH", *window, "=======", *new, ">>>>>>> REPLACE"])
    places = sum(lines[i : i + len(window)] == window for i in range(len(lines)))
    result = apply(answer, [file(text)])
    expected = [*lines[:start], *new, *lines[end:]]
    if places > 1:
        assert isinstance(result, Rejected)
        assert result.problem is Problem.DUPLICATE
    elif not any(line.strip() for line in expected):
        assert isinstance(result, Rejected)
        assert result.problem is Problem.EMPTY_RESULT
    else:
        assert isinstance(result, Applied), result
        whole = ours.join(expected) + (ours if closed else "")
        # A file of one line without ending shows no ending of its own.
        assert result.sources[0].content == (whole if ours in text else whole.replace(ours, "\n"))
        assert apply(answer, [file(text)]) == result


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), SOURCES)
def test_any_answer_is_applied_or_rejected_with_a_reason(answer: str, lines: list[str]) -> None:
    source = file("\n".join(lines) + "\n")
    for text in (
        answer,
        block(answer, "x\n"),
        f"```python\n{answer}\n```",
        f"<<<<<<< SEARCH{answer}",
    ):
        result = apply(text, [source])
        assert isinstance(result, Applied) or result.reason


MIXED = st.lists(st.tuples(LINE, ENDING), min_size=2, max_size=10)


@settings(max_examples=200, deadline=None)
@given(MIXED, st.integers(0, 9))
def test_mixed_endings_of_other_lines_are_kept(pairs: list[tuple[str, str]], at: int) -> None:
    at %= len(pairs)
    lines = [line for line, _ in pairs]
    assume(lines[at].strip() and lines.count(lines[at]) == 1)
    text = "".join(line + ending for line, ending in pairs)
    result = apply(block(lines[at] + "\n", "new\n"), [file(text)])
    assert isinstance(result, Applied)
    before = "".join(line + ending for line, ending in pairs[:at])
    after = "".join(line + ending for line, ending in pairs[at + 1 :])
    content = result.sources[0].content
    assert content.startswith(before + "new")
    assert content.endswith(after)
    assert content[len(before) + 3 : len(content) - len(after)] in ("\n", "\r\n")


@settings(max_examples=100, deadline=None)
@given(SOURCES, ENDING)
def test_a_rewrite_round_trips(lines: list[str], ending: str) -> None:
    assume(lines[-1].strip())
    text = ending.join(lines) + ending
    assert applied(f"```python\n{text}```\n", file("x" + ending)) == [text]
    same = block("".join(f"{line}\n" for line in lines), "".join(f"{line}\n" for line in lines))
    assert applied(same, file(text)) == [text]


def test_a_long_source_and_a_long_miss_stay_quick() -> None:
    source = file("".join(f"    value_{i} = compute({i})\n" for i in range(4000)))
    answer = block("".join(f"    value_{i} = compete({i})\n" for i in range(1000, 1100)), "x\n")
    assert "lines 1001-1100" in rejected(answer, source, problem=Problem.MISS)


JUNK = 60_000
"""Characters of an answer that a looping model gives without effort."""


@pytest.mark.parametrize(
    "answer",
    [
        "\n" * JUNK,
        "-\n" * (JUNK // 2),
        "```py\n" * (JUNK // 6),
        "```" + " " * JUNK + "`\n```\n",
        ":" * JUNK + "x\n```\nfoo\n```\n",
        " " * JUNK + "x\n```\nfoo\n```\n",
        "INSIGHT" + " " * JUNK,
        "CHANGE:" + "\n" * JUNK,
        "<<<<<<< SEARCH\n" * (JUNK // 15),
        "<<<<<<< SEARCH\n" + "=======\n" * (JUNK // 8) + ">>>>>>> REPLACE\n",
        "".join(block(f"int a{i} = {i};\n", "int b;\n") for i in range(JUNK // 80)),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_junk_is_read_quickly(answer: str) -> None:
    started = time.process_time()
    found = apply(answer, [file(SOURCE * 60)])
    note_of(answer)
    told(answer)
    assert time.process_time() - started < 1.5
    reason = found.reason if isinstance(found, Rejected) else ""
    assert len(again("The prompt.", answer, reason, 4_000)) < 20_000


def test_what_an_answer_says_in_code_is_not_told() -> None:
    said = "INSIGHT: a point about the cache"
    kept = "INSIGHT 1: two stages are enough here"
    for code in (f"```py\n{said}\n```", block(f"{said}\n", "x\n"), f"````\n```\n{said}\n````"):
        assert told(f"{code}\n{kept}\n") == ["two stages are enough here"]
    assert told(f"{kept}\n```py\n{said}\n") == ["two stages are enough here"]
