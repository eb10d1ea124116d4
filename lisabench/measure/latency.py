"""How long a call takes: samples in rounds, until their median is known well enough.

A round is a slice of samples. The operators of one workload take their rounds in turns, so that what drifts on a machine
drifts for all of them and their ratios are taken within rounds. The interval is the wider of two, both by order statistics:
that of the median over all samples, and that over the medians of the rounds, which holds where the samples of one round
are not independent of each other.

Source: NVIDIA/nvbench stdrel_criterion.cxx (settled noise); David and Nagaraja, Order Statistics (the interval).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lisabench.analysis.statistics import median_interval
from lisabench.measure.samplers import Sampler, sampler_for

ROUNDS = 6  # the fewest of which a median has a 95% interval
SAMPLES_A_ROUND = 2  # at the least, however slow the call
KEPT_SAMPLES = 100
SETTLED_CHECKS, SETTLED_WITHIN = 12, 0.05
MINIMUM_SAMPLES = ROUNDS * SAMPLES_A_ROUND
Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When sampling ends, in seconds and shares of the median."""

    seconds: float = 1.0
    at_least_seconds: float = 0.1
    warmup_seconds: float = 0.1
    warmup_calls: int = 3
    precision: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds a call: the median with its 95% interval, quantiles, and the samples they come from.

    `samples`: at most KEPT_SAMPLES of the `count` that were taken in `seconds`, evenly picked in their order. `rounds`: the
    median of each round. `kind`: "warm" (calls back to back) or "cold" (caches flushed before each).
    """

    median: float
    ci_low: float
    ci_high: float
    p05: float
    p95: float
    samples: list[float]
    count: int
    seconds: float
    rounds: list[float]
    kind: str
    stopped_by: str
    warnings: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long as the baseline's a call takes: the median over common rounds, with its 95% interval."""

    median: float
    ci_low: float
    ci_high: float
    rounds: int


def paired_ratio(rounds: Sequence[float], baseline: Sequence[float]) -> Ratio | None:
    """The ratio within rounds that both took part in; None where these are too few for an interval."""
    common = min(len(rounds), len(baseline))
    if common < ROUNDS:
        return None
    ratios = np.array(rounds[:common]) / np.array(baseline[:common])
    low, high = median_interval(ratios)
    return Ratio(median=float(np.median(ratios)), ci_low=low, ci_high=high, rounds=common)


class Rounds:
    """The samples of one call as they come, round by round, and when there are enough of them."""

    def __init__(self, limits: Limits, *, kind: str = "warm") -> None:
        self.limits, self.kind = limits, kind
        self.rounds: list[list[float]] = []
        self.seconds = 0.0
        self.cut_short = False
        self._noise: list[float] = []
        self._check_at = float(MINIMUM_SAMPLES)

    @property
    def samples(self) -> list[float]:
        return [sample for one in self.rounds for sample in one]

    @property
    def medians(self) -> list[float]:
        """The median of each round."""
        return [float(np.median(one)) for one in self.rounds]

    def slice_seconds(self) -> float:
        """How long the next round should sample: the shortest that may suffice at first, then what is left in as many rounds again."""
        if len(self.rounds) < ROUNDS:
            return min(self.limits.at_least_seconds, self.limits.seconds) / ROUNDS
        return max(self.limits.seconds - self.limits.at_least_seconds, 0.0) / ROUNDS

    def add(self, samples: Sequence[float], seconds: float) -> None:
        """Takes in a round, which lasted so many seconds."""
        self.rounds.append(list(samples))
        self.seconds += seconds
        everything = np.array(self.samples)
        while self._check_at <= len(everything):
            so_far = everything[: int(self._check_at)]
            self._noise.append(float(np.std(so_far) / np.mean(so_far)))
            self._check_at = max(self._check_at + 1, self._check_at * 1.1)

    def stopped_by(self) -> str:
        """What ends the sampling: "interval" reached, "noise" settled, "time" up, or "" to go on."""
        if self.cut_short:
            return "time"
        if len(self.rounds) < ROUNDS:
            return ""
        if self.seconds >= self.limits.at_least_seconds:
            median, low, high = self._interval()
            if high - low <= 2 * self.limits.precision * median:
                return "interval"
            recent = self._noise[-SETTLED_CHECKS:]
            settled = len(recent) == SETTLED_CHECKS and max(recent) - min(recent) <= SETTLED_WITHIN * float(np.mean(recent))
            if self.seconds >= self.limits.seconds / 2 and settled:
                return "noise"
        return "time" if self.seconds >= self.limits.seconds else ""

    def _interval(self) -> tuple[float, float, float]:
        """Median of all samples, and the wider of its two intervals."""
        samples = self.samples
        median = float(np.median(samples))
        intervals = [median_interval(samples), median_interval(self.medians)]
        return median, min(median, *(low for low, _ in intervals)), max(median, *(high for _, high in intervals))

    def latency(self) -> Latency:
        """What the samples so far say."""
        samples = self.samples
        median, low, high = self._interval()
        p05, p95 = (float(q) for q in np.quantile(samples, (0.05, 0.95)))
        picked = np.linspace(0, len(samples) - 1, min(len(samples), KEPT_SAMPLES)).round().astype(int)
        latency = Latency(
            median=median,
            ci_low=low,
            ci_high=high,
            p05=p05,
            p95=p95,
            samples=[_rounded(samples[place]) for place in picked],
            count=len(samples),
            seconds=_rounded(self.seconds),
            rounds=[_rounded(median) for median in self.medians],
            kind=self.kind,
            stopped_by=self.stopped_by() or "time",
        )
        latency.warnings.extend(_warnings(latency))
        return latency


def measure_latency(
    call: Callable[[], Any], *, device: str = "cpu", limits: Limits | None = None, progress: Progress = lambda *_: None
) -> Latency:
    """Times `call` on `device`, alone; `progress(phase, seconds a call so far)` is told before each round."""
    limits = limits or Limits()
    sampler = sampler_for(call, device)
    rounds = Rounds(limits, kind=sampler.kind)
    progress("warming up", None)
    with no_collection():
        estimate = sampler.warm_up(seconds=limits.warmup_seconds, calls=limits.warmup_calls)
        while not rounds.stopped_by():
            progress("timing", estimate)
            rounds.add(*sample_round(sampler, rounds.slice_seconds()))
    return rounds.latency()


def sample_round(sampler: Sampler, seconds: float) -> tuple[list[float], float]:
    """Samples for so many seconds, SAMPLES_A_ROUND at the least; the samples and how long they took."""
    samples: list[float] = []
    started = sampler.now()
    while len(samples) < SAMPLES_A_ROUND or sampler.now() - started < seconds:
        samples.extend(sampler.sample())
    return samples, sampler.now() - started


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _warnings(latency: Latency) -> list[str]:
    found = []
    if latency.p95 > 1.5 * latency.p05:
        ratio = latency.p95 / latency.p05
        found.append(f"noisy: the slowest 5% of samples take {ratio:.1f} times the fastest 5%; close other programs or try --threads 1")
    width = (latency.ci_high - latency.ci_low) / 2 / latency.median
    if width > 0.05:
        found.append(f"wide: the interval is ±{100 * width:.0f}%; a larger --cell-seconds narrows it")
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector, which would run inside some samples, stays off."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
