import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from analysis import frames, report


def over(run):
    return {(r["name"], r["label"]): r for r in frames.records(report.champion_over(run.entries))}


def test_speedup_is_the_ratio_of_speedups_over_the_anchor(run):
    cell = over(run)["library", "tokens=64"]
    assert cell["speedup"] == pytest.approx(1.5)
    half = math.hypot(0.01, 0.01)
    assert cell["speedup_low"] == pytest.approx(1.5 * math.exp(-half))
    assert cell["speedup_high"] == pytest.approx(1.5 * math.exp(half))
    assert (cell["champion_us"], cell["latency_us"]) == (500.0, 750.0)


def test_geometric_mean_has_a_narrower_interval(run):
    mean = over(run)["library", report.GEOMEAN]
    assert mean["speedup"] == pytest.approx((1.2 * 1.5 * 0.8) ** (1 / 3))
    assert mean["half_width"] == pytest.approx(math.hypot(0.01, 0.01) / math.sqrt(3))


def test_workloads_that_one_side_lacks_are_left_out(entry):
    table = frames.entries(
        [
            entry("champion", "champion", (0.5, 0.5), ("a", "b")),
            entry("library", "peer", (1.0,), ("a",)),
        ]
    )
    found = report.champion_over(table)
    assert list(found["label"]) == ["a", report.GEOMEAN]


def test_without_a_champion_there_is_nothing_to_compare(entry):
    table = frames.entries([entry("library", "peer", (1.0,), ("a",))])
    assert report.champion_over(table).empty
    assert report.latencies(table).empty
    assert report.speedups(table).empty


def test_best_peer_is_no_bound(run):
    assert report.best_peer(report.champion_over(run.entries)) == "library"


def test_tables_for_people(run):
    latencies = report.latencies(run.entries)
    assert list(latencies.columns) == [
        "workload", "champion", "seed_a", "seed_b", "library", "eager", "other job (bound)",
    ]  # fmt: skip
    assert latencies.iloc[1].to_dict()["library"] == "750"
    speedups = report.speedups(run.entries)
    assert speedups.iloc[1].to_dict()["library"] == "1.50x ±1.4%"
    assert speedups.iloc[-1].to_dict()["workload"] == report.GEOMEAN


def test_outcomes_count_everything_once(run):
    table = report.outcomes(run.evaluations).set_index("status")
    assert table.loc["PASSED", "seed"] == 2
    assert table.loc["PASSED", "remeasured"] == 1
    assert table.loc["TIMEOUT", "tuner"] == 1
    assert table.loc["total", "total"] == len(run.evaluations)


def test_niches_best_first(run):
    found = report.niches(run.evaluations)
    assert found["niche"].iloc[0] == "triton/split/t128/s4/w8/pointer"
    assert len(found) == 3


def test_text_names_what_a_person_looks_for(run):
    text = report.text(run, width=110)
    for part in ("verified on unseen", "library", "NOT_INSTALLED", "COMPILE_ERROR", "crossover"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_markdown_escapes_bars():
    table = report.markdown_table(pd.DataFrame([["a|b", "1"]], columns=["x", "y"]))
    assert table.splitlines() == ["| x | y |", "| --- | ---: |", "| a\\|b | 1 |"]


def test_the_time_of_an_evaluation_keeps_its_seconds(run, tmp_path):
    late = run.evaluations.assign(at=1_795_170_123.25)
    report.write(replace(run, evaluations=late), tmp_path)
    assert set(pd.read_csv(tmp_path / "evaluations.csv")["at"]) == {1_795_170_123.25}


def test_written_files_agree(run, tmp_path):
    paths = {path.name for path in report.write(run, tmp_path / "out")}
    assert paths == {"evaluations.csv", "comparison.csv", "report.md", "report.json"}
    table = pd.read_csv(tmp_path / "out" / "evaluations.csv")
    assert list(table.columns) == list(frames.EVALUATION_COLUMNS)
    assert len(table) == len(run.evaluations)
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["champion"]["verified"] is True
    assert summary["best_peer"] == "library"
    assert summary["evaluations"]["by_status"]["PASSED"] == 6
    means = {m["name"]: m["speedup"] for m in summary["geometric_mean"]}
    assert means["seed_a"] == pytest.approx(2.0)
    assert [f["name"] for f in summary["failed_entries"]] == ["absent"]


def test_a_run_without_report_or_evaluations(tmp_path):
    run = frames.run_of({"definition": "d", "device": {}}, [], None)
    report.write(run, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["evaluations"]["total"] == 0
    assert report.text(run) == "\n" or report.text(run) == ""
