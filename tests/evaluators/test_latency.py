"""Paired latency: the sums, the plan, and a real kernel that does twice the work."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from evaluators import plausible, rungs
from evaluators.child import CandidateFailed
from evaluators.latency import ROUNDS, Batch, Paired, Series, checked, ratio
from evaluators.latency import Side as LatencySide
from evaluators.schema import Language, Status
from evaluators.settings import EvaluatorSettings
from evaluators.stopwatch import Estimate, HostStopwatch
from evaluators.trial import Clock
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


class Side:
    """A process that takes `latency` ms a call, and does not claim `beside` ms, of which it works
    the share `busy` (NaN: nobody knows), and `after` ms of work behind its back."""

    def __init__(
        self,
        name: str,
        latency: float,
        calls: list[str],
        beside: float = 0.0,
        after: float = 0.0,
        late: float = 0.0,
        queued: float = 0.0,
        busy: float = 1.0,
    ) -> None:
        self.name, self.latency, self.beside, self.calls = name, latency, beside, calls
        self.after = after
        self.late, self.queued, self.busy = late, queued, busy

    def prepare(self, workload):
        return Estimate(self.latency)

    def time(self, workload, mode, samples):
        self.calls.append(self.name)
        wall = samples * (self.latency + self.beside) + 0.1
        spent = samples * (self.latency + self.busy * self.beside) + 0.2
        return Batch([self.latency] * samples, wall, spent, self.after, self.late, self.queued)


class Paper:
    """A desk that notes what it is asked to do."""

    def __init__(self, calls: list[str], slots: int = 0) -> None:
        self.calls, self.slots = calls, slots

    def open(self):
        self.calls.append("open")

    def lay(self, calls):
        self.calls.append(f"lay {calls}")

    def take(self):
        self.calls.append("take")

    def look(self):
        self.calls.append("look")


def series(
    candidate_ms: float,
    anchor_ms: float,
    *,
    slots: int = 0,
    beside: float = 0.0,
    after: float = 0.0,
    late: float = 0.0,
    queued: tuple[float, float] = (0.0, 0.0),
    busy: float = 1.0,
):
    calls: list[str] = []
    ours = Side("candidate", candidate_ms, calls, beside, after, late, queued[0], busy)
    sides = ours, Side("anchor", anchor_ms, calls, queued=queued[1])
    return Series(*sides, Paper(calls, slots), 0), calls


def test_rounds_get_new_values_and_both_sides_begin_in_turn():
    made, calls = series(2.0, 6.0)
    made.fewest()
    assert calls[0] == "open"
    first, second = ["anchor", "candidate", "take"], ["candidate", "take", "anchor"]
    assert calls[1:] == [*["lay 1", *first, "look", "lay 1", *second, "look"] * 2]
    found = made.paired()
    assert found.speedup(rng()).value == pytest.approx(3)
    assert found.candidate.median_ms == 2.0


def test_short_calls_share_a_round_where_there_is_a_ring():
    made, calls = series(0.02, 0.03, slots=16)
    made.fewest()
    assert calls.count("lay 16") == ROUNDS[0]
    assert made.paired().candidate.samples.shape == (ROUNDS[0], 16)
    alone, calls = series(0.02, 3.0, slots=16)
    alone.fewest()
    assert "lay 1" in calls


def test_what_it_is_worth_to_come_second_cancels():
    even, odd = [[2.0], [1.0]], [[1.0], [2.0]]  # whoever is second is twice as fast
    walls = np.ones(8)
    sides = [
        LatencySide(Estimate(1.0), "eager", np.asarray(samples * 4), *[walls] * 5)
        for samples in (even, odd)
    ]
    found = Paired(*sides).speedup(rng())
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))


def test_more_samples_on_request_and_fewest_for_the_hopeless():
    calls = []
    for factor, slower in ((1.0, 1.0), (2.0, 1.0), (1.0, 10.0)):
        made, _ = series(slower, 1.0)
        made.extend(budget_ms=0.0, samples=20, factor=factor)
        made.extend(budget_ms=5.0, samples=3, factor=factor)
        calls.append(len(made.paired().candidate.samples))
    assert calls[0] > calls[2] == ROUNDS[0]
    assert calls[1] > 1.5 * calls[0]
    assert max(calls) <= 2 * ROUNDS[1]
    assert all(number % 2 == 0 for number in calls)


def test_time_beside_what_is_claimed_is_implausible():
    honest, _ = series(1.0, 1.0, beside=0.1)
    honest.fewest()
    assert plausible.hidden(honest.paired(), "cpu", 2) == ""
    thief, _ = series(0.1, 1.0, beside=2.0)
    thief.fewest()
    assert "2 ms more" in plausible.hidden(thief.paired(), "cpu", 2)
    liar, _ = series(1.0, 1.0, beside=-0.5)
    liar.fewest()
    assert "exceeds" in plausible.hidden(liar.paired(), "cpu", 2)
    thief.more(8)
    assert "2 ms more" in plausible.hidden(thief.paired(), "cpu", 2)


def test_waiting_for_a_processor_that_others_use_is_no_work():
    waits, _ = series(0.1, 1.0, beside=2.0, busy=0.1)
    waits.fewest()
    assert plausible.hidden(waits.paired(), "cpu", 2) == ""
    works, _ = series(0.1, 1.0, beside=2.0, busy=0.9)
    works.fewest()
    assert "the judge's clock" in plausible.hidden(works.paired(), "cpu", 2)


def test_on_a_gpu_waiting_is_forgiven_that_the_anchor_knows_too():
    unknown = math.nan
    late, _ = series(1.0, 1.0, beside=2.0, late=1.9, busy=unknown)
    late.fewest()
    assert plausible.hidden(late.paired(), "cuda", 2) == ""
    crowded, _ = series(1.0, 1.0, beside=2.0, queued=(1.9, 0.6), busy=unknown)
    crowded.fewest()
    assert plausible.hidden(crowded.paired(), "cuda", 2) == ""
    crowds, _ = series(1.0, 1.0, beside=2.0, queued=(1.9, 0.1), busy=unknown)
    crowds.fewest()  # its own threads are in its way
    assert "the judge's clock" in plausible.hidden(crowds.paired(), "cuda", 2)


def test_work_after_the_call_has_returned_is_implausible():
    thief, _ = series(0.1, 1.0, after=5.0)
    thief.fewest()
    assert "processor time" in plausible.hidden(thief.paired(), "cpu", 2)
    serial, _ = series(0.4, 2.0, after=0.1)  # the anchor leaves a core unused, and that is no norm
    serial.fewest()
    assert plausible.hidden(serial.paired(), "cpu", 2) == ""
    slow, _ = series(10.0, 1.0, after=0.1)
    slow.fewest()
    assert plausible.hidden(slow.paired(), "cpu", 2) == ""


def test_nothing_is_faster_than_the_device():
    facts = {"kind": "cuda", "l2_bytes": 50 << 20}
    facts["ceilings"] = {"copy_gbps": 4000.0, "tflops": {"bfloat16": 600.0}}
    device = plausible.ceiling(facts, {"bfloat16"})
    cost = (1e9, 10e9)  # 2 ms at 5 TB/s
    assert 1.5 < device.floor_ms(cost) < 2.0
    assert plausible.below_floor(2.2, cost, device) == ""
    assert "less than this device can take" in plausible.below_floor(1.0, cost, device)
    assert plausible.below_floor(0.01, (1e9, 60e6), device) == ""  # may be in the cache
    narrow = plausible.ceiling(facts, {"float8_e4m3fn"})
    assert narrow.floor_ms((1e15, 1e9)) == pytest.approx(device.floor_ms((1e15, 1e9)) / 2)


def test_the_screen_takes_a_third_spread_over_the_cost():
    assert rungs.screened([5]) == [5]
    assert rungs.screened([0, 1, 2, 3]) == [2]
    for count in range(2, 20):
        chosen = rungs.screened(list(range(count)))
        assert len(chosen) == len(set(chosen)) == max(1, round(count / 3))


@pytest.mark.parametrize(
    "values",
    [None, [], [1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, True], ["1", 1.0], [0.0, 1.0]],
)
def test_impossible_latencies_are_refused(values):
    with pytest.raises(CandidateFailed) as caught:
        checked(values, 2)
    assert caught.value.status is Status.RUNTIME_ERROR
    assert checked([1, 2.0], 2) == [1.0, 2.0]


def test_every_call_is_timed_alone():
    calls = 0

    def call():
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    watch = HostStopwatch(call)
    assert 1.9 < watch.prepare().eager_ms < 100
    before = calls
    assert all(s > 1.9 for s in watch.time("eager", 3))
    assert calls - before == 3


def test_twice_the_work_takes_twice_as_long(tmp_path: Path):
    settings = EvaluatorSettings(latency_s=0.6)
    with evaluator(tmp_path, settings) as judge:
        judge.open_epoch(0, WORKLOADS[1:], solution(CPP % (WORK % 8), Language.CPP))
        found = judge.evaluate(solution(CPP % (WORK % 16), Language.CPP))
        more = judge.evaluate(solution(CPP % (WORK % 8), Language.CPP), samples_factor=2.0)
    assert found.status is Status.PASSED, found.log
    (result,) = found.results
    assert 1.6 < 1 / result.speedup < 2.4
    assert result.speedup_high < 1
    assert result.latency_ms > result.anchor_ms
    assert 0.7 < more.score < 1.4


def test_a_stage_inside_another_counts_alone():
    clock = Clock()
    with clock.stage("latency"):
        with clock.stage("contest"):
            time.sleep(0.1)
        time.sleep(0.01)
    with clock.stage("contest"):
        pass
    assert clock.seconds["contest"] >= 0.1
    assert 0.01 <= clock.seconds["latency"] < 0.1
