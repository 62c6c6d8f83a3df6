import pytest

from analysis import frames, latency_curves, style

GRID = [f"B{b} L{n}" for b in (1, 16, 64) for n in (1024, 16384, 131072)]


def test_batches_become_columns(entry):
    table = frames.entries([entry("champion", "champion", [0.1] * 9, GRID)])
    assert latency_curves.arrange(table) == latency_curves.Layout(
        "seq_len", "batch_size", (1, 16, 64)
    )


def test_tokens_run_along_one_panel(run):
    layout = latency_curves.arrange(run.entries[run.entries["latency_us"].notna()])
    assert layout == latency_curves.Layout("tokens", None, (None,))


def test_unnamed_workloads_run_along_whatever_varies(entry):
    table = frames.entries([entry("champion", "champion", [0.1, 0.2], ["x", "y"])])
    assert latency_curves.arrange(table).size == "n"


def test_share_of_bandwidth_and_floor(entry):
    table = frames.entries([entry("champion", "champion", [0.5], ["tokens=1"])])
    curves = latency_curves._curves(table, latency_curves.arrange(table), copy=400.0, peak=2.0)
    (curve,) = frames.records(curves)
    assert curve["fraction"] == pytest.approx(0.5)  # 100 MB in 0.5 ms is 200 of 400 GB/s
    assert curve["floor_us"] == pytest.approx(500.0)  # 1 GFLOP at 2 TFLOP/s, above 250 us to copy
    assert curve["floor_fraction"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("tflops", "title", "peak"),
    [
        ({"float32": 4.0}, "any", 4.0),
        ({"float32": 4.0}, "matmul_bf16 on X", 0.0),
        ({"bfloat16": 700.0, "float32": 50.0}, "matmul_f32 on X", 50.0),
        ({"bfloat16": 700.0, "float32": 50.0}, "matmul_bf16 on X", 700.0),
        ({"bfloat16": 700.0, "float32": 50.0}, "unnamed", 0.0),
        (3.0, "any", 3.0),
        (None, "any", 0.0),
    ],
)
def test_peak_is_the_definitions(tflops, title, peak):
    assert latency_curves._peak({"tflops": tflops}, title) == peak


@pytest.mark.parametrize("ceilings", [{}, {"copy_gbps": 400.0, "tflops": {"float32": 2.0}}])
def test_draws_both_operators(run, entry, tmp_path, share, ceilings):
    champion = entry("champion", "champion", [0.1 * i for i in range(1, 10)], GRID)
    peer = entry("library", "peer", [0.2 * i for i in range(1, 10)], GRID)
    for name, table in (("m", run.entries), ("g", frames.entries([champion, peer]))):
        path = tmp_path / f"{name}.png"
        latency_curves.draw(table, ceilings, path, title=run.title)
        assert share(path, style.CHAMPION) > 1e-3
        assert share(path, style.PEERS[0]) > 2e-4
        assert (share(path, style.FLOOR) > 2e-3) == bool(ceilings)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no entry"):
        latency_curves.draw(frames.entries([]), {}, tmp_path / "l.png")
