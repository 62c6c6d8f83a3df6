import pandas as pd
import pytest

from analysis import frames, style, trajectory


def best(rows):
    return list(trajectory.best_so_far(frames.evaluations(rows)))


def test_best_so_far_rises_and_ignores_failures(row):
    found = best([row(1, None), row(2, 1.0), row(3, 0.5), row(4, None), row(5, 2.0)])
    assert pd.isna(found[0])
    assert found[1:] == pytest.approx([1.0, 1.0, 1.0, 2.0])


def test_best_so_far_starts_anew_from_the_elites_measured_again(row):
    rows = [
        row(1, 3.0),
        row(2, 0.7, epoch=1, kind="remeasure"),
        row(3, 1.5, epoch=1, kind="remeasure"),
        row(4, 1.0, epoch=1),
        row(5, 1.6, epoch=1),
    ]
    assert best(rows) == pytest.approx([3.0, 1.5, 1.5, 1.5, 1.6])


def test_draws_line_dots_and_peers(run, tmp_path, share):
    with_peers, alone = tmp_path / "a.png", tmp_path / "b.png"
    trajectory.draw(run.evaluations, run.entries, with_peers, title=run.title)
    trajectory.draw(run.evaluations, run.entries.head(0), alone, title=run.title)
    for path in (with_peers, alone):
        assert share(path, style.CHAMPION) > 1e-3
        assert share(path, style.SEED) > 1e-5
    assert share(with_peers, style.PEERS[0]) > 10 * max(share(alone, style.PEERS[0]), 1e-5)


def test_draws_a_wide_range_of_scores(row, tmp_path, share):
    table = frames.evaluations([row(i, 0.01 * 3**i) for i in range(1, 6)])
    trajectory.draw(table, frames.entries([]), tmp_path / "t.png")
    assert share(tmp_path / "t.png", style.CHAMPION) > 1e-3


@pytest.mark.parametrize("scores", [[], [None, None], [1.0]])
def test_draws_whatever_there_is(row, tmp_path, scores):
    table = frames.evaluations([row(i, s) for i, s in enumerate(scores)])
    trajectory.draw(table, frames.entries([]), tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 5000
