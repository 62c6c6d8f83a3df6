"""The table of tricks in docs/evaluation.md says what the corpus says."""

import pytest

from tests.hacks import table


def test_the_page_is_up_to_date() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.page(text, table.corpus()) == text, "run: python -m tests.hacks.table"


def test_the_table_has_every_trick() -> None:
    found = table.corpus()
    rows = [line for line in table.table(found).splitlines() if line.startswith("| ")]
    assert len(rows) == len(found) + 2  # a head and a rule
    for case in found:
        assert any(case.fields["trick"].replace("|", "\\|") in row for row in rows)


def test_a_page_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="hacks: begin"):
        table.page("# A page", [])
