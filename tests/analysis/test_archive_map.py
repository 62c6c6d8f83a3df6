import matplotlib.image
import pytest

from analysis import archive_map, frames, style
from islands.niche import AXES


def test_axes_are_those_of_the_niches():
    assert tuple(AXES) == archive_map.AXES


def test_a_cell_shows_its_last_epoch_and_counts_programs(row):
    a, b = "triton/split/t64/s3/w4/pointer", "cpp/tiled/t8/other/w1/pointer"
    table = frames.evaluations(
        [
            row(1, 3.0, niche=a),
            row(2, 2.0, niche=b),
            row(3, None),
            row(4, 1.0, niche=a, epoch=1),
            row(5, 1.5, niche=a, epoch=1),
        ]
    )
    found = {c["niche"]: c for c in frames.records(archive_map.cells(table))}
    assert set(found) == {a, b}
    assert (found[a]["score"], found[a]["count"]) == (pytest.approx(1.5), 3)
    assert (found[b]["score"], found[b]["stages"]) == (pytest.approx(2.0), "other")


def test_a_short_key_falls_into_other():
    assert archive_map.split("triton/tiled")["memory"] == "other"


def test_values_are_in_the_order_of_the_axes():
    for values in AXES.values():
        if values[0][1:].isdigit():
            assert sorted(set(values), key=archive_map._order) == list(values)


def test_draws_filled_cells_and_outlines_the_best(run, tmp_path, share):
    archive_map.draw(run.evaluations, tmp_path / "a.png", title=run.title)
    assert share(tmp_path / "a.png", style.SEED) > 1e-4


def test_nothing_is_cut_at_the_edge(row, tmp_path):
    niches = [f"cpp/tiled/t{tile}/other/other/pointer" for tile in (8, 16, 32, 64, 128, 256)]
    scores = (0.700667, 1.19, 1.562, 1.32, 1.13, 1.28)
    rows = [row(i, s, niche=n) for i, (s, n) in enumerate(zip(scores, niches, strict=True), 1)]
    archive_map.draw(frames.evaluations(rows), tmp_path / "a.png", title="silu_f32 on AMD EPYC")
    pixels = matplotlib.image.imread(tmp_path / "a.png")[:, :, :3]
    assert (pixels[:, -1] == 1).all()
    assert (pixels[:, 0] == 1).all()


def test_draws_an_empty_archive(row, tmp_path):
    archive_map.draw(frames.evaluations([row(1, None)]), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_draws_a_single_niche(row, tmp_path):
    archive_map.draw(frames.evaluations([row(1, 1.0)]), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
