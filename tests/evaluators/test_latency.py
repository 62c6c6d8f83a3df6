"""Paired latency: the sums, the plan, and a real kernel that does twice the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluators.child import CandidateFailed
from evaluators.latency import BATCH_LIMIT, ROUNDS, checked, measure, ratio, schedule
from evaluators.schema import Language, Status
from evaluators.settings import EvaluatorSettings
from evaluators.stopwatch import Estimate, HostStopwatch
from tests.evaluators.bench import CPP, WORKLOADS, evaluator, solution

WORK = """
volatile float sink = 0;
for (int k = 0; k < %d; ++k) {
  float s = 0;
  for (int64_t i = 0; i < n; ++i) s += a[i] * k;
  sink = s;
}
"""


def rng():
    return np.random.default_rng(0)


def test_the_ratio_is_the_median_of_pairs_with_its_interval():
    draw = rng()
    bottom = np.exp(draw.normal(0.0, 0.05, (10, 8)))
    found = ratio(2 * bottom * np.exp(draw.normal(0.0, 0.05, (10, 8))), bottom, draw)
    assert found.low < 2 < found.high
    assert found.low <= found.value <= found.high
    assert found.high / found.low < 1.2


def test_drift_that_hits_both_sides_cancels():
    drift = np.geomspace(1, 8, 12)[:, None] * np.ones((12, 4))
    found = ratio(3 * drift, drift, rng())
    assert found.value == pytest.approx(3)
    assert found.high - found.low < 1e-9


def test_outliers_of_one_side_do_not_move_the_ratio():
    top, bottom = np.full((10, 10), 1.5), np.ones((10, 10))
    bottom[0] = 100.0
    found = ratio(top, bottom, rng())
    assert found.value == pytest.approx(1.5)
    assert found.low > 1.4


def test_the_interval_covers_the_truth():
    """At least 90% of 200 intervals hold the true ratio, rounds having offsets of their own."""
    draw, hits = np.random.default_rng(1), 0
    for _ in range(200):
        offsets = draw.normal(0, 0.05, (12, 1))
        top = np.exp(offsets + draw.normal(0, 0.05, (12, 6)))
        bottom = np.exp(draw.normal(0, 0.05, (12, 6)))
        found = ratio(1.25 * top, bottom, draw)
        hits += found.low <= 1.25 <= found.high
    assert hits >= 180


@pytest.mark.parametrize("milliseconds", [0.002, 0.05, 1.0, 10.0, 500.0])
@pytest.mark.parametrize("budget", [50.0, 300.0])
def test_the_plan_fits_the_budget(milliseconds, budget):
    estimate = Estimate(milliseconds, overhead_ms=0.06)
    rounds, batch = schedule(estimate, estimate, budget, 20, 1.0)
    assert ROUNDS[0] <= rounds <= ROUNDS[1]
    assert rounds % 2 == 0
    assert 1 <= batch <= BATCH_LIMIT
    least = 2 * ROUNDS[0] * (milliseconds + 0.06)
    assert 2 * rounds * batch * (milliseconds + 0.06) <= max(2.5 * budget, 1.2 * least)


def test_more_samples_on_request_and_fewest_for_the_hopeless():
    fast, slow = Estimate(1.0), Estimate(10.0)
    once, batch = schedule(fast, fast, 100, 20, 1.0)
    twice, same = schedule(fast, fast, 100, 20, 2.0)
    assert abs(twice - 2 * once) <= 2
    assert same == batch
    assert schedule(slow, fast, 1000, 20, 1.0)[0] == ROUNDS[0]


@pytest.mark.parametrize(
    "values",
    [None, [], [1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, True], ["1", 1.0], [0.0, 1.0]],
)
def test_impossible_latencies_are_refused(values):
    with pytest.raises(CandidateFailed) as caught:
        checked(values, 2)
    assert caught.value.status is Status.RUNTIME_ERROR
    assert checked([1, 2.0], 2) == [1.0, 2.0]


def test_batches_alternate_and_pairs_keep_their_order():
    calls: list[str] = []

    class Side:
        def __init__(self, name: str, latency: float) -> None:
            self.name, self.latency = name, latency

        def prepare(self, workload):
            return Estimate(self.latency)

        def time(self, workload, mode, samples):
            calls.append(self.name)
            return [self.latency] * samples

    found = measure(Side("candidate", 2.0), Side("anchor", 6.0), 0, 200.0, 8, 1.0)
    assert calls[:8] == ["anchor", "candidate", "candidate", "anchor"] * 2
    assert found.speedup(rng()).value == pytest.approx(3)
    assert found.candidate.median_ms == 2.0


def test_short_calls_are_repeated_until_they_can_be_timed():
    calls = 0

    def call():
        nonlocal calls
        calls += 1

    watch = HostStopwatch(call, min_time_ms=1.0)
    estimate = watch.prepare()
    before = calls
    samples = watch.time("eager", 3)
    assert (calls - before) > 3 * 100
    assert all(0 < s < 0.1 for s in samples)
    assert estimate.overhead_ms > 0.3


def test_twice_the_work_takes_twice_as_long(tmp_path: Path):
    settings = EvaluatorSettings(latency_s=0.6, min_time_ms=1.0)
    with evaluator(tmp_path, settings) as judge:
        judge.open_epoch(0, WORKLOADS[1:], solution(CPP % (WORK % 20), Language.CPP))
        found = judge.evaluate(solution(CPP % (WORK % 40), Language.CPP))
        more = judge.evaluate(solution(CPP % (WORK % 20), Language.CPP), samples_factor=2.0)
    assert found.status is Status.PASSED, found.log
    (result,) = found.results
    assert 1.6 < 1 / result.speedup < 2.4
    assert result.speedup_high < 1
    assert result.latency_ms > result.anchor_ms
    assert 0.7 < more.score < 1.4
