"""Joules a call, from the energy counters of the machine: NVML's for a GPU, RAPL's for a CPU.

A counter moves in steps, at its own period. So calls run back to back for many periods, from a fresh step on, and the power
that the steps show is taken over the whole time of the calls. The figure is gross: what idles, and what others compute
on the same GPU or CPU meanwhile, is in it.

Source: ml-energy/zeus (synchronised ends, inferred period, no zero); Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from lisabench.errors import UnavailableError
from lisabench.measure.nvml import Gpu, NvmlError

POWERCAP = Path("/sys/class/powercap")
# A step may come late or early by a good part of itself: over ten periods that is some percent at worst.
PERIODS = 10
MAXIMUM_SECONDS = 2.0
# Synchronising or asking the clock once in so many seconds costs nothing against them, and ends the window in time.
CHUNK_SECONDS = 0.01
# RAPL steps each millisecond, NVML each 20 to 100 ms: a counter that stands still for this long does not work.
STILL_SECONDS = 0.5
STEPS = 5
BLURRED = 0.02
NO_RAPL = "the kernel offers no energy counters (RAPL), as in most virtual machines; measure on the machine itself"
Clock = Callable[[], float]


class NoEnergyError(UnavailableError):
    """No energy can be measured here; the text is the reason and what to do."""


class Meter(Protocol):
    """An energy counter. `joules` never falls; it raises NoEnergyError where the counter cannot be read any more."""

    @property
    def name(self) -> str: ...

    def joules(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Joules a call, over `calls` calls in `seconds`; `period_s` is that of the counter."""

    joules_a_call: float
    calls: int
    seconds: float
    period_s: float
    warnings: list[str] = field(default_factory=list)


def open_meter(device: str, *, powercap: Path = POWERCAP) -> Meter:
    """The energy counter of a torch device, read once to see that it works. Raises NoEnergyError."""
    meter: Meter = GpuMeter(device) if device.startswith("cuda") else RaplMeter(powercap)
    meter.joules()
    return meter


class GpuMeter:
    """NVML's counter: the whole GPU with its memory, since the driver was loaded."""

    name = "NVML total energy"

    def __init__(self, device: str) -> None:
        try:
            self._gpu = Gpu.open(device)
        except NvmlError as error:
            raise NoEnergyError(str(error)) from error

    def joules(self) -> float:
        try:
            return self._gpu.energy_j()
        except NvmlError as error:
            raise NoEnergyError(str(error)) from error


class RaplMeter:
    """The CPU packages' counters (RAPL: Intel's, and AMD's too), added up; memory outside the packages is not in them.

    A counter starts again at 0 after some minutes of full power, and is followed through one such fall between two readings.
    Left out are parts of packages (core, uncore, dram) and psys, which holds packages.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        found = ((zone, _text(zone / "name")) for zone in sorted(powercap.glob("intel-rapl:*")))
        zones = {zone: name for zone, name in found if name and name.startswith("package-")}
        if not zones:
            raise NoEnergyError(NO_RAPL)
        self.name = f"RAPL {' + '.join(zones.values())}"
        self._ranges = {zone: int(_text(zone / "max_energy_range_uj") or 0) for zone in zones}
        self._last = {zone: self._read(zone) for zone in zones}
        self._total = 0

    def joules(self) -> float:
        for zone, before in self._last.items():
            now = self._read(zone)
            if now < before and now + self._ranges[zone] < before:
                raise NoEnergyError(f"the energy counter {zone / 'energy_uj'} fell and states no range; measure again")
            self._total += now - before if now >= before else now + self._ranges[zone] - before
            self._last[zone] = now
        return self._total / 1e6

    def _read(self, zone: Path) -> int:
        counter = zone / "energy_uj"
        try:
            return int(counter.read_text())
        except PermissionError as error:
            cure = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
            raise NoEnergyError(f"{counter} can be read by root only; allow it by: {cure}") from error
        except (OSError, ValueError) as error:
            raise NoEnergyError(f"{counter} cannot be read: {error}") from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def update_period(meter: Meter, *, clock: Clock = time.perf_counter) -> float:
    """Seconds between two steps of the counter: the median of some, watched for half a second at most. Raises NoEnergyError."""
    end = clock() + STILL_SECONDS
    steps = [step.at] if (step := _next_step(meter, clock, end)) else []
    while len(steps) <= STEPS and (step := _next_step(meter, clock, end)):
        steps.append(step.at)
    if not steps:
        raise NoEnergyError(f"the energy counter ({meter.name}) did not move in {STILL_SECONDS} s")
    return statistics.median(after - before for before, after in pairwise(steps)) if len(steps) > 1 else STILL_SECONDS


def measure_energy(
    call: Callable[[], Any],
    meter: Meter,
    *,
    seconds_a_call: float,
    device: str,
    seconds: float = 0.5,
    period_s: float | None = None,
    clock: Clock = time.perf_counter,
) -> Energy:
    """Joules a call of a warm `call`, which takes about `seconds_a_call`.

    Runs it for `seconds`, or ten periods of the counter if that is longer, 2 s at most, and once at least. `period_s`: what
    an earlier `update_period` or Energy found, to spare the half second of watching.
    Raises NoEnergyError where the counter does not move or cannot be read.
    """
    period = period_s or update_period(meter, clock=clock)
    window = min(max(seconds, PERIODS * period), max(seconds, MAXIMUM_SECONDS))
    chunk = max(1, math.floor(min(CHUNK_SECONDS, window) / max(seconds_a_call, 1e-6)))
    synchronise = _synchroniser(device)
    synchronise()
    first = _next_step(meter, clock, clock() + STILL_SECONDS + period)
    if first is None:
        raise NoEnergyError(f"the energy counter ({meter.name}) did not move in {STILL_SECONDS + period:.1f} s")
    calls, started = 0, clock()
    while not calls or clock() - started < window:
        for _ in range(chunk):
            call()
        synchronise()
        calls += chunk
    ended = clock()
    joules = meter.joules() - first.joules
    last = _next_step(meter, clock, ended + 2 * period)
    # The counter's last step before the end is where its energy was counted to: one period before the next step.
    counted_to = min(ended, last.at - period) if last else ended
    if joules <= 0 or counted_to <= first.at:
        raise NoEnergyError(f"the energy counter ({meter.name}) did not move in the {ended - started:.2g} s of {calls:,} calls")
    power = joules / (counted_to - first.at)
    blur = (first.blur + (last.blur if last else period)) / (counted_to - first.at)
    return Energy(
        joules_a_call=power * (ended - started) / calls,
        calls=calls,
        seconds=ended - started,
        period_s=period,
        warnings=_warnings(ended - started, period, blur),
    )


def _warnings(seconds: float, period: float, blur: float) -> list[str]:
    if (steps := round(seconds / period)) < PERIODS:
        return [f"coarse energy: {seconds:.2g} s hold {steps} steps of the counter, one each {period:.2g} s; measure longer calls"]
    if blur > BLURRED:
        return [f"coarse energy: the host read the counter late by {100 * blur:.0f}% of the time; close other programs"]
    return []


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A step of a counter: when, give or take half of `blur` seconds, and the joules from it on."""

    at: float
    blur: float
    joules: float


def _next_step(meter: Meter, clock: Clock, end: float) -> _Step | None:
    """Reads the counter until it moves; None where it has not by `end`."""
    standing, before = meter.joules(), clock()
    while True:
        joules, now = meter.joules(), clock()
        if joules > standing:
            return _Step(at=(before + now) / 2, blur=now - before, joules=joules)
        if now >= end:
            return None
        before = now


def _synchroniser(device: str) -> Callable[[], None]:
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)
