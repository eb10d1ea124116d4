"""Sampling: what stops it, what it reports. No test looks at how long something took."""

from __future__ import annotations

import math
import time

import pytest

from lisabench.analysis.statistics import median_interval
from lisabench.measure import latency
from lisabench.measure.latency import Latency, Limits, measure_latency


class Scripted:
    """A sampler whose samples are written down."""

    def __init__(self, samples: list[float], pause: float = 0.0) -> None:
        self.samples, self.at, self.pause = samples, 0, pause

    def sample(self) -> list[float]:
        time.sleep(self.pause)
        self.at += 1
        return [self.samples[(self.at - 1) % len(self.samples)]]


def run(sampler: Scripted, **limits: float) -> Latency:
    return latency._sample(sampler, Limits(**limits), lambda *_: None)  # type: ignore[arg-type]


def test_steady_samples_stop_at_the_interval() -> None:
    found = run(Scripted([1.0, 1.001, 0.999]), seconds=60, at_least_seconds=0)
    assert found.stopped_by == "interval"
    assert len(found.samples) >= latency.MINIMUM_BLOCKS
    assert found.ci_high - found.ci_low <= 0.02 * found.median


def test_wide_but_settled_noise_stops_too() -> None:
    found = run(Scripted([1.0, 2.0, 3.0, 4.0], pause=1e-4), seconds=0.2, at_least_seconds=0)
    assert found.stopped_by == "noise"


def test_time_up_stops_whatever_comes_but_not_before_ten() -> None:
    found = run(Scripted([1.0, 9.0, 2.0, 7.0, 30.0], pause=0.01), seconds=0.001, at_least_seconds=0)
    assert found.stopped_by == "time"
    assert len(found.samples) == latency.MINIMUM_BLOCKS
    assert found.warnings[0].startswith("noisy: ")
    assert "--cell-seconds" in found.warnings[1]


def test_figures_come_from_the_samples() -> None:
    samples = [float(n) for n in range(1, 102)]
    found = run(Scripted(samples, pause=1e-4), seconds=0.0, at_least_seconds=0)
    assert found.samples == samples[: len(found.samples)]
    assert found.ci_low <= found.median <= found.ci_high
    assert found.p05 < found.median < found.p95
    low, high = median_interval(found.samples)
    assert (found.ci_low, found.ci_high) == (low, high)


def test_blocks_are_long_against_the_clock() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    sampler = latency._CpuSampler(call)
    estimate = sampler.warm_up(Limits(warmup_seconds=0.01))
    assert calls >= Limits().warmup_calls
    assert sampler.calls * estimate * latency.TIMER_SHARE >= latency.timer_seconds() * 0.2  # the clock's cost is noisy itself
    before = calls
    assert len(sampler.sample()) == 1
    assert calls - before == sampler.calls > 100


def test_a_slow_call_is_warmed_up_less_and_sampled_ten_times() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.02)

    found = measure_latency(call, limits=Limits(seconds=0.01, warmup_seconds=0.001, at_least_seconds=0))
    assert len(found.samples) == latency.MINIMUM_BLOCKS
    assert calls <= latency.MINIMUM_BLOCKS + 3
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
