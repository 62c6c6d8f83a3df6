"""The engine benchmark runs a real search and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_archive_and_whole_run() -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "engine.py"), "--json",
        "--evaluations", "60", "--islands", "2", "--in-flight", "2", "--sizes", "200", "400",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["settings"]["evaluations"] == 60
    figures = {figure["name"]: figure for figure in document["figures"]}
    for size in (200, 400):
        assert 0 < figures[f"elite sampling at {size} programs"]["value"] < 1000
        assert 0 < figures[f"archive add at {size} programs"]["value"] < 1000
    assert figures["whole run"]["value"] > 1
    # A closed store holds its tables and nothing else: 60 programs take at most 4 kB each.
    assert 0 < figures["disk once closed"]["value"] < 4
    early, late = (figures[f"driver memory at {share}%"] for share in (25, 100))
    assert late["value"] > 0.5 * early["value"] > 0
    for figure in figures.values():
        if figure["least"] is not None:
            assert figure["met"] is (figure["value"] >= figure["least"])
        elif figure["most"] is not None:
            assert figure["met"] is (figure["value"] <= figure["most"])
        else:
            assert figure["met"] is None
