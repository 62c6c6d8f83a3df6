"""The corpus as a table of docs/evaluation.md: each trick, and what catches it.

`python -m tests.hacks.table` writes it into the page, between the two marks. It repeats what the
files' headers say; `test_hacks.py` shows that they are true.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.hacks import cases
from tests.hacks.cases import Case

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
BEGIN, END = "<!-- hacks: begin -->", "<!-- hacks: end -->"
LANGUAGES = {"cpp": "C++", "cuda": "CUDA C++", "triton": "Triton", "tilelang": "TileLang"}


def corpus() -> list[Case]:
    return cases.read(Path(__file__).parent / "corpus")


def table(found: list[Case]) -> str:
    """Counts, then one row per case, by the stage that catches it and by trick."""
    stages = Counter(case.fields["caught by"] for case in found)
    counted = ", ".join(f"{stages[stage]} by {stage}" for stage in cases.STAGES if stages[stage])
    lines = [
        f"{len(found)} tricks: {counted}.",
        "",
        "| trick | language | caught by | status | without the guard |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_row, sorted(found, key=_rank))]) + "\n"


def page(text: str, found: list[Case]) -> str:
    """`text` of the page with the table as the corpus has it now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(found)}{END}{after}"


def _rank(case: Case) -> tuple[int, str, str]:
    return cases.STAGES.index(case.fields["caught by"]), case.fields["trick"].lower(), case.name


def _row(case: Case) -> str:
    trick = case.fields["trick"].replace("|", "\\|")
    if "at most" in case.fields:
        trick += f" (passes, with a score of at most {case.fields['at most']})"
    stage = case.fields["caught by"]
    if "pending" in case.fields:
        stage = f"not yet caught: needs {case.fields['pending']}"
    language = LANGUAGES[case.fields["language"]]
    unguarded = case.fields.get("without the guard", "")
    return f"| {trick} | {language} | {stage} | {case.fields['expected']} | {unguarded} |"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), corpus()), encoding="utf-8")


if __name__ == "__main__":
    main()
