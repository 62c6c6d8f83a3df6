import dataclasses

import pytest

from analysis import comparison, frames, gains, style

SEEDS = {f"{0:032x}": "seed_anchor", f"{1:032x}": "seed_a"}


def course(name, rows, entries=()):
    table = gains.course(frames.evaluations(rows))
    table = table.assign(maker=table["emitter"])
    return comparison.Course(name, table, SEEDS, frames.entries(entries))


def rows(row, factor, emitter="tuner"):
    """The seed is program 1 in both epochs; the second epoch's workloads suit everybody better."""
    again = row(1, 1.3, epoch=1, kind="remeasure", emitter="seed")
    return [
        row(1, 1.0, kind="seed", emitter="seed"),
        row(2, 1.2 * factor, emitter=emitter),
        row(3, 1.1),
        type(again)(**{**vars(again), "seq": 4}),
        row(5, 1.3 * 1.2 * factor, epoch=1, kind="remeasure"),
        row(6, 1.3 * 1.5 * factor, epoch=1, emitter=emitter),
    ]


def test_heights_are_over_the_seed_of_the_epoch(row):
    made = [course("run", rows(row, 1.1)), course("base", rows(row, 1.0))]
    seed = comparison.common_seed(made)
    assert seed == f"{1:032x}"
    run, base = comparison.over_seed([c.table for c in made], seed, pooled=False)
    assert list(base["best"]) == pytest.approx([1.0, 1.2, 1.2, 1.2, 1.2, 1.5])
    assert list(run["best"]) == pytest.approx([1.0, 1.32, 1.32, 1.32, 1.32, 1.65])


def test_pooled_heights_keep_the_ratio_of_the_scores(row):
    other = [r if r.seq != 1 else row(1, 1.1, kind="seed", emitter="seed") for r in rows(row, 1.0)]
    made = [course("run", rows(row, 1.0)), course("base", other)]
    tables = comparison.over_seed([c.table for c in made], f"{1:032x}", pooled=True)
    assert tables[0]["score"][1] == pytest.approx(tables[1]["score"][1])
    apart = comparison.over_seed([c.table for c in made], f"{1:032x}", pooled=False)
    assert apart[0]["score"][1] == pytest.approx(1.1 * apart[1]["score"][1])


def test_without_a_common_seed_heights_are_over_the_anchor(row):
    lone = course("run", rows(row, 1.0)[:3] + rows(row, 1.0)[4:])
    assert comparison.common_seed([lone, course("base", rows(row, 1.0))]) == ""
    (table,) = comparison.over_seed([lone.table], "", pooled=True)
    assert table is lone.table


def test_over_an_anchor_that_is_the_best_seed_heights_are_the_scores(row):
    made = [course(name, rows(row, 1.0)) for name in ("run", "base")]
    anchored = [dataclasses.replace(c, seeds={f"{1:032x}": "seed_a"}) for c in made]
    assert comparison.common_seed(made) == f"{1:032x}"
    assert comparison.common_seed(anchored) == ""


def test_an_authors_gains_are_seen(row, tmp_path, share):
    base = course("base", rows(row, 1.0))
    with_author, without = tmp_path / "a.png", tmp_path / "b.png"
    comparison.draw([course("run", rows(row, 1.2, "llm")), base], with_author, title="t")
    comparison.draw([course("run", rows(row, 1.2)), base], without, title="t")
    for path in (with_author, without):
        assert share(path, style.CHAMPION) > 1e-3
        assert share(path, comparison.COLORS[1]) > 1e-3
        assert share(path, style.SEED) > 1e-4
    assert share(with_author, comparison.AUTHORED) > 1e-4
    assert share(without, comparison.AUTHORED) == 0


@pytest.mark.parametrize("scores", [[None], [1.0], [None, 1.0]])
def test_draws_whatever_there_is(row, tmp_path, scores):
    made = [course(name, [row(i, s) for i, s in enumerate(scores, 1)]) for name in ("a", "b")]
    comparison.draw(made, tmp_path / "t.png", title="t")
    assert (tmp_path / "t.png").stat().st_size > 5000


def test_the_champion_is_told_over_the_same_seed(row, entry):
    entries = [
        entry("champion", "champion", (0.5, 0.5), ("a", "b")),
        entry("seed_a", "seed", (0.8, 0.8), ("a", "b")),
    ]
    closed = course("run", rows(row, 1.0), entries)
    assert comparison.closing(closed, f"{1:032x}") == pytest.approx(1.6)
    assert comparison.closing(closed, "") == pytest.approx(2.0)
    assert comparison.closing(course("run", rows(row, 1.0)), "") is None
