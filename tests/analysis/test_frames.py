import math

import pytest

from analysis import frames
from evaluators.schema import BuildSpec, Language, Solution, SourceFile
from evolve.store import Store
from islands.program import Program


def test_one_row_per_evaluation_in_order(row):
    table = frames.evaluations([row(2, None), row(1, 1.5, kind="seed")])
    assert list(table.columns) == list(frames.EVALUATION_COLUMNS)
    assert list(table["seq"]) == [1, 2]
    first, second = frames.records(table)
    assert first["score"] == pytest.approx(1.5)
    assert first["score_low"] < 1.5 < first["score_high"]
    assert (first["shared_bytes"], first["num_stages"]) == (4096, 3)
    assert (first["build_s"], first["latency_s"]) == (1.5, 0.25)
    assert math.isnan(second["score"])
    assert second["reason"] == "error: no such tile"


def test_no_evaluations_and_no_report():
    run = frames.run_of({"definition": "d", "device": {}}, [], None)
    assert run.evaluations.empty
    assert run.entries.empty
    assert run.title == "d on unknown device"


def test_entries_are_long_and_a_failed_one_keeps_its_reason(run):
    assert len(run.entries) == 6 * 3 + 1
    absent = frames.records(run.entries[run.entries["name"] == "absent"])[0]
    assert (absent["status"], absent["reason"]) == ("NOT_INSTALLED", "needs absent")
    champion = run.entries[run.entries["role"] == "champion"]
    assert list(champion["latency_us"]) == [500.0] * 3


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("B16 L1024", {"batch_size": 16, "seq_len": 1024}),
        ("B1 L128K +-50%", {"batch_size": 1, "seq_len": 131072}),
        ("batch_size=4 seq_len=2k", {"batch_size": 4, "seq_len": 2048}),
        ("tokens=32", {"tokens": 32}),
        ("trace e2142798", {}),
    ],
)
def test_coordinates(label, found):
    assert frames.coordinates(label) == found


def test_means_are_geometric(entry):
    table = frames.entries([entry("x", "peer", (0.5, 2.0), ("a", "b"))])
    assert frames.records(frames.means(table)) == [
        {"name": "x", "role": "peer", "score": pytest.approx(1.0)}
    ]


def test_leading_keeps_the_best_seed_and_everything_else(run):
    kept = set(frames.leading(run.entries)["name"])
    assert kept == {"champion", "seed_a", "library", "eager", "other job", "absent"}


def test_load_reads_a_store(tmp_path, row):
    solution = Solution(
        name="s",
        definition="d",
        author="a",
        spec=BuildSpec(
            language=Language.PYTHON, target_hardware=("cpu",), entry_point="kernel.py::run"
        ),
        sources=(SourceFile(path="kernel.py", content="def run(): ...\n"),),
    )
    store = Store.create(tmp_path, {"definition": "d", "device": {"name": "A CPU"}})
    program = Program.of(solution, emitter="seed")
    store.propose(program)
    seq = store.record(program.id, "seed", row(1, 1.25).evaluation)
    store.set_outcome(seq, "cpp/tiled/t64/s1/w1/pointer", "NEW")
    store.close()
    run = frames.load(tmp_path)
    assert run.title == "d on A CPU"
    (found,) = frames.records(run.evaluations)
    assert found["program"] == program.id
    assert (found["niche"], found["archive"]) == ("cpp/tiled/t64/s1/w1/pointer", "NEW")
    assert found["score"] == pytest.approx(1.25)
