"""How long a call takes: samples until their median is known well enough.

CPU: blocks of calls, so long that reading the clock costs under 1e-4 of a block. GPU: one call a sample between two
CUDA events, behind a write of the device's whole L2 cache (cold, as NVIDIA/nvbench measures). In both the median is
reported with its distribution-free interval, and what ended the sampling.

Source: NVIDIA/nvbench measure_cold.cu and stdrel_criterion.cxx (order of a cold sample, settled noise).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lisabench.analysis.statistics import median_interval

TIMER_SHARE = 1e-4
MINIMUM_BLOCKS = 10
GPU_BATCH, SLOW_SECONDS = 10, 0.1
SETTLED_CHECKS, SETTLED_WITHIN = 12, 0.05
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
    """Seconds a call: the median with its 95% interval, quantiles, and the samples they come from."""

    median: float
    ci_low: float
    ci_high: float
    p05: float
    p95: float
    samples: list[float]
    stopped_by: str
    warnings: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def measure_latency(
    call: Callable[[], Any], *, device: str = "cpu", limits: Limits | None = None, progress: Progress = lambda *_: None
) -> Latency:
    """Times `call` on `device`; `progress(phase, seconds a call so far)` is told about every tenth of a second."""
    limits = limits or Limits()
    sampler = _GpuSampler(call, device) if device.startswith("cuda") else _CpuSampler(call)
    with _no_collection():
        progress("warming up", None)
        estimate = sampler.warm_up(limits)
        progress("timing", estimate)
        return _sample(sampler, limits, progress)


def _sample(sampler: _CpuSampler | _GpuSampler, limits: Limits, progress: Progress) -> Latency:
    samples: list[float] = []
    noise: list[float] = []
    started = told = time.perf_counter()
    check_at, stopped_by = MINIMUM_BLOCKS, ""
    while not stopped_by:
        samples.extend(sampler.sample())
        now = time.perf_counter()
        if now - told > 0.1:
            told = now
            progress("timing", float(np.median(samples)))
        if len(samples) >= check_at:
            check_at = len(samples) + max(1, len(samples) // 10)
            noise.append(float(np.std(samples) / np.mean(samples)))
            stopped_by = _stop(samples, noise, now - started, limits)
    low, high = median_interval(samples)
    p05, median, p95 = (float(q) for q in np.quantile(samples, (0.05, 0.5, 0.95)))
    low, high = min(low, median), max(high, median)
    rounded = [float(f"{sample:.5g}") for sample in samples]
    latency = Latency(median=median, ci_low=low, ci_high=high, p05=p05, p95=p95, samples=rounded, stopped_by=stopped_by)
    latency.warnings.extend(_warnings(latency))
    return latency


def _stop(samples: list[float], noise: list[float], elapsed: float, limits: Limits) -> str:
    """What ends the sampling: "interval" reached, "noise" settled, "time" up, or "" to go on."""
    if elapsed >= limits.at_least_seconds:
        low, high = median_interval(samples)
        if high - low <= 2 * limits.precision * float(np.median(samples)):
            return "interval"
        recent = noise[-SETTLED_CHECKS:]
        if (
            elapsed >= limits.seconds / 2
            and len(recent) == SETTLED_CHECKS
            and max(recent) - min(recent) <= SETTLED_WITHIN * np.mean(recent)
        ):
            return "noise"
    return "time" if elapsed >= limits.seconds else ""


def _warnings(latency: Latency) -> list[str]:
    found = []
    if latency.p95 > 1.5 * latency.p05:
        ratio = latency.p95 / latency.p05
        found.append(f"noisy: the slowest 5% of samples take {ratio:.1f} times the fastest 5%; close other programs or try --threads 1")
    width = (latency.ci_high - latency.ci_low) / 2 / latency.median
    if latency.stopped_by == "time" and width > 0.05:
        found.append(f"wide: the interval is ±{100 * width:.0f}%; a larger --cell-seconds narrows it")
    return found


class _CpuSampler:
    """Blocks of calls on the host's clock."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.calls = 1

    def warm_up(self, limits: Limits) -> float:
        """Warms up by time and by count, sets the calls a block, and returns the seconds a call."""
        taken: list[float] = []
        self._block(1)  # what is made once: plans, compiled code, caches
        while sum(taken) < limits.warmup_seconds or (len(taken) < limits.warmup_calls and sum(taken) < 10 * limits.warmup_seconds):
            taken.append(self._block(1))
        self.calls = max(1, math.ceil(timer_seconds() / TIMER_SHARE / min(taken)))
        return float(np.median(taken))

    def sample(self) -> list[float]:
        return [self._block(self.calls) / self.calls]

    def _block(self, calls: int) -> float:
        call = self.call
        started = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return (time.perf_counter_ns() - started) / 1e9


class _GpuSampler:
    """One call a sample between CUDA events, the L2 cache overwritten before each.

    Samples are queued by the batch without a synchronise between: the host launches a call while the flush before it still
    runs, so that the events stand around the device's work and not around the wait for a launch.
    """

    def __init__(self, call: Callable[[], Any], device: str) -> None:
        self.call, self.device = call, torch.device(device)
        properties = torch.cuda.get_device_properties(self.device)
        self.batch = GPU_BATCH
        self.flush = torch.empty(max(1, properties.L2_cache_size), dtype=torch.int8, device=self.device)

    def warm_up(self, limits: Limits) -> float:
        started, calls = time.perf_counter(), 0
        elapsed = 0.0
        while elapsed < limits.warmup_seconds or (calls < limits.warmup_calls and elapsed < 10 * limits.warmup_seconds):
            self.call()
            torch.cuda.synchronize(self.device)
            calls, elapsed = calls + 1, time.perf_counter() - started
        self.batch = 1
        estimate = float(np.median(self.sample()))
        self.batch = GPU_BATCH if estimate < SLOW_SECONDS else 1
        return estimate

    def sample(self) -> list[float]:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(self.batch)]
        with torch.cuda.device(self.device):
            for start, end in pairs:
                self.flush.zero_()
                start.record()
                self.call()
                end.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def timer_seconds() -> float:
    """What one reading of the clock costs, in seconds."""
    readings = [time.perf_counter_ns() for _ in range(1001)]
    return max((readings[-1] - readings[0]) / 1000, 20) / 1e9


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector, which would run inside some samples, stays off; what had gathered goes before."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
