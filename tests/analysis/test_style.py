import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import style


@given(st.lists(st.floats(-0.5, 1.5), max_size=15))
def test_labels_keep_apart_in_order_and_inside(positions):
    placed = style.spread(positions, 0.05, 0.0, 1.0)
    ranked = [placed[i] for i in sorted(range(len(positions)), key=lambda i: positions[i])]
    assert all(b - a > 0.05 - 1e-9 for a, b in itertools.pairwise(ranked))
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in placed)


def test_labels_that_have_room_stay():
    assert style.spread([0.8, 0.1, 0.5], 0.05, 0.0, 1.0) == [0.8, 0.1, 0.5]


def test_crowded_labels_spread_about_their_mean():
    assert style.spread([0.5, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.45, 0.55])


def test_each_entry_looks_different():
    names = [("champion", "champion"), ("s", "seed"), *((f"p{i}", "peer") for i in range(5))]
    looks = style.looks([*names, ("b", "bound")])
    assert len({(x.color, x.dash) for x in looks.values()}) == 8
    assert looks["champion"].width == max(x.width for x in looks.values())


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1000, "1000"), (1024, "1K"), (131072, "128K"), (1 << 20, "1M")]
)
def test_quantity(value, text):
    assert style.quantity(value) == text


def test_a_figure_that_fails_writes_nothing(tmp_path):
    def draw():
        with style.figure(tmp_path / "x.png", 1.0):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        draw()
    assert not (tmp_path / "x.png").exists()
