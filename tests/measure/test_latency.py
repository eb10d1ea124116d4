"""Sampling: what stops it, what it reports. No test looks at how long something took."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest

from lisabench.analysis.statistics import median_interval
from lisabench.measure.latency import KEPT_SAMPLES, MINIMUM_SAMPLES, ROUNDS, Limits, Rounds, measure_latency, paired_ratio
from lisabench.measure.samplers import TIMER_SHARE, CpuSampler, timer_seconds


def rounds_of(values: Sequence[Sequence[float]], *, seconds_a_round: float = 0.1, **limits: float) -> Rounds:
    """Rounds with these samples, as many as are wanted of them, over and over."""
    found = Rounds(Limits(**limits))
    while not found.stopped_by():
        found.add(values[len(found.rounds) % len(values)], seconds_a_round)
    return found


def test_steady_rounds_stop_at_the_interval() -> None:
    found = rounds_of([[1.0, 1.001, 0.999, 1.0]], seconds=60).latency()
    assert found.stopped_by == "interval"
    assert len(found.rounds) == ROUNDS
    assert found.count == 4 * ROUNDS >= MINIMUM_SAMPLES
    assert found.ci_high - found.ci_low <= 0.02 * found.median


def test_wide_but_settled_noise_stops_too() -> None:
    assert rounds_of([[1.0, 2.0, 3.0, 4.0] * 10], seconds=2.0).stopped_by() == "noise"


def test_time_up_stops_whatever_comes_but_not_before_six_rounds() -> None:
    found = rounds_of([[1.0, 9.0], [2.0, 7.0], [30.0, 4.0]], seconds=0.001).latency()
    assert found.stopped_by == "time"
    assert found.count == MINIMUM_SAMPLES
    assert found.warnings[0].startswith("noisy: ")
    assert "--cell-seconds" in found.warnings[1]


def test_the_shortest_rounds_come_first_and_the_rest_of_the_time_after() -> None:
    found = Rounds(Limits(seconds=1.0, at_least_seconds=0.12))
    lengths = []
    while not found.stopped_by():
        lengths.append(found.slice_seconds())
        found.add([1.0, 3.0], lengths[-1])
    assert lengths[:ROUNDS] == pytest.approx([0.02] * ROUNDS)
    assert sum(lengths) == pytest.approx(1.0)


def test_rounds_that_disagree_widen_the_interval() -> None:
    """Many samples make the interval of the median narrow, but not when each round has its own truth."""
    agreeing = rounds_of([[1.0, 1.1] * 100], seconds=0.5)
    drifting = rounds_of([[1.0] * 200, [1.1] * 200], seconds=0.5)
    low, high = median_interval(drifting.samples)
    assert (low, high) == (1.0, 1.1)
    drifting = rounds_of([[1.0] * 300, [1.05] * 10, [1.0] * 300], seconds=0.5)
    assert median_interval(drifting.samples) == (1.0, 1.0)
    assert drifting.latency().ci_high == pytest.approx(1.05)
    assert agreeing.latency().ci_high <= 1.1


def test_figures_come_from_the_samples() -> None:
    values = [[float(6 * k + n) for k in range(1, 41)] for n in range(ROUNDS)]
    rounds = rounds_of(values, seconds=0.0)
    found = rounds.latency()
    assert found.count == 40 * ROUNDS
    assert len(found.samples) == KEPT_SAMPLES
    assert (found.samples[0], found.samples[-1]) == (rounds.samples[0], rounds.samples[-1])
    assert set(found.samples) <= set(rounds.samples)
    assert found.median == pytest.approx(np.median(rounds.samples))
    assert found.rounds == [pytest.approx(np.median(one)) for one in values]
    low, high = median_interval(rounds.samples)
    assert found.ci_low <= low <= found.median <= high <= found.ci_high
    assert found.p05 < found.median < found.p95


def test_a_ratio_is_taken_within_rounds() -> None:
    """The machine slows down by half in the middle: both operators do, and their ratio does not."""
    speed = [1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5]
    ratio = paired_ratio([2.0 * s for s in speed], [1.0 * s for s in speed[:ROUNDS]])
    assert ratio is not None
    assert (ratio.ci_low, ratio.median, ratio.ci_high) == (2.0, 2.0, 2.0)
    assert ratio.rounds == ROUNDS
    noisy = paired_ratio([2.0, 2.2, 1.8, 2.0, 2.1, 1.9], [1.0] * 6)
    assert noisy is not None
    assert (noisy.ci_low, noisy.ci_high) == (1.8, 2.2)
    assert paired_ratio([1.0] * (ROUNDS - 1), [1.0] * 99) is None


def test_blocks_are_long_against_the_clock() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    sampler = CpuSampler(call)
    estimate = sampler.warm_up(seconds=0.01, calls=3)
    assert calls >= 3
    assert sampler.calls * estimate * TIMER_SHARE >= timer_seconds() * 0.2  # the clock's cost is noisy itself
    before = calls
    assert len(sampler.sample()) == 1
    assert calls - before == sampler.calls > 100


def test_a_slow_call_is_warmed_up_less_and_sampled_twice_a_round() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.02)

    found = measure_latency(call, limits=Limits(seconds=0.01, warmup_seconds=0.001, at_least_seconds=0))
    assert found.count == MINIMUM_SAMPLES
    assert calls <= MINIMUM_SAMPLES + 3
    assert found.median >= 0.02


def test_progress_is_told_phases_and_estimates() -> None:
    told: list[tuple[str, float | None]] = []
    measure_latency(lambda: time.sleep(0.005), limits=Limits(seconds=0.3, precision=1e-9), progress=lambda *words: told.append(words))
    assert told[0] == ("warming up", None)
    assert told[-1][0] == "timing"
    assert told[-1][1] is not None
    assert math.isfinite(told[-1][1])


def test_what_a_call_raises_comes_through_and_collection_is_on_again() -> None:
    import gc

    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("call_s", "within", "between"),
    [(1e-3, 0.05, 0.0), (1e-3, 0.02, 0.03), (1e-4, 0.02, 0.01), (0.3, 0.02, 0.0)],
    ids=["independent samples", "rounds that differ", "fast call", "slow call"],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(call_s: float, within: float, between: float) -> None:
    """Under the stop rule, which ends when the interval is narrow: simulated samples, spread within and between rounds."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        found = Rounds(Limits(seconds=1.0))
        while not found.stopped_by():
            seconds = found.slice_seconds()
            count = max(2, int(seconds / call_s))
            mood = between * random.standard_normal()
            found.add(list(call_s * np.exp(mood + within * random.standard_normal(count))), max(seconds, 2 * call_s))
        latency = found.latency()
        held += latency.ci_low <= call_s <= latency.ci_high
    assert held / 150 >= 0.93  # 0.95 less what 150 draws leave open
