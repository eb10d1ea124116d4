"""What the machine did while a cell was timed: whether it waited for cores, who else computed, whether the machine drifted.

CPU, from Linux: the time that our threads stood runnable without a core (/proc/self/task/*/schedstat), the cores that others
kept busy and the time that a hypervisor took away (/proc/stat). GPU: clocks, temperature, power and throttle reasons by NVML.
A fixed matrix product, the sentinel, is timed between rounds: if it moved, the machine moved, whatever the operator did.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lisabench.measure.nvml import Gpu, GpuState, NvmlError, clock_warnings

# What a quiet machine stays under, with room for the clock's own grain (a tick of /proc/stat is 10 ms).
WAITED_SHARE, STOLEN_SHARE, BUSY_CORES, DRIFT = 0.05, 0.02, 0.25, 0.05
BUSY_SHARE = 0.01  # of all cores: a large machine's own services
SENTINEL_SIDE = {"cpu": 256, "cuda": 2048}
SENTINEL_CALLS = 25
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Load:
    """Seconds, added up over the slices of sampling; None where the system does not tell."""

    wall: float = 0.0
    waited: float | None = 0.0
    others: float | None = 0.0
    stolen: float | None = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            wall=self.wall + other.wall,
            waited=_sum(self.waited, other.waited),
            others=_sum(self.others, other.others),
            stolen=_sum(self.stolen, other.stolen),
        )

    def record(self) -> dict[str, float | None]:
        return asdict(self)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


class LoadWatch:
    """Reads the system's counters at its making, and at `load()` says what came since."""

    def __init__(self, proc: Path = PROC) -> None:
        self.proc = proc
        self.started, self.own = time.perf_counter(), time.process_time()
        self.waited, self.counted = _waited(proc), _counted(proc)

    def load(self) -> Load:
        wall, own = time.perf_counter() - self.started, time.process_time() - self.own
        waited, counted = _waited(self.proc), _counted(self.proc)
        busy = stolen = None
        if counted and self.counted:
            busy, stolen = (after - before for after, before in zip(counted, self.counted, strict=True))
        return Load(
            wall=wall,
            waited=None if waited is None or self.waited is None else max(0.0, waited - self.waited),
            others=None if busy is None else busy - own,  # ticks are coarse: over many slices the error goes both ways and cancels
            stolen=stolen,
        )


def _waited(proc: Path) -> float | None:
    """Seconds that the threads of this process were runnable without running, since they began."""
    found = []
    try:
        for task in os.listdir(proc / "self" / "task"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                found.append(int((proc / "self" / "task" / task / "schedstat").read_text().split()[1]))
    except (OSError, ValueError, IndexError):
        return None
    return sum(found) / 1e9 if found else None


def _counted(proc: Path) -> tuple[float, float] | None:
    """Core seconds of all processes since boot, and those that a hypervisor took."""
    try:
        words = (proc / "stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[1:9])
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def conditions(cell: Load, visit: Load, *, threads: int) -> tuple[dict[str, Any], list[str]]:
    """What a record says of the host, and its warnings, from the load during the cell's slices and during all of its workload's."""
    told: dict[str, Any] = {
        "waited_share": _share(cell.waited, cell.wall * threads),
        "others_busy_cores": _share(visit.others, visit.wall),
        "stolen_share": _share(visit.stolen, visit.wall * threads),
    }
    warnings = []
    if _over(told["waited_share"], WAITED_SHARE):
        share = 100 * told["waited_share"]
        warnings.append(f"contended: the threads waited {share:.0f}% of the time for a core; close other programs or try fewer --threads")
    if _over(told["others_busy_cores"], max(BUSY_CORES, BUSY_SHARE * (os.cpu_count() or 1))):
        warnings.append(f"busy: other programs kept {told['others_busy_cores']:.1f} cores at work; close them")
    if _over(told["stolen_share"], STOLEN_SHARE):
        share = 100 * told["stolen_share"]
        warnings.append(f"stolen: the hypervisor gave {share:.0f}% of the time to other machines; measure on a host of your own")
    return told, warnings


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or whole <= 0 else round(max(0.0, part / whole), 4)


def _over(value: float | None, bound: float) -> bool:
    return value is not None and value > bound


def sentinel_conditions(sentinel: Sequence[float], *, best: float) -> tuple[dict[str, Any], list[str]]:
    """How the fixed product fared, and its warnings.

    `sentinel`: its seconds before, between and after the rounds of a cell. `best`: its median in the fastest workload of the run.
    `sentinel_drift` is how far it was from its median at most, `sentinel_slowdown` how much longer than at the best, as shares.
    """
    values = np.array(sentinel)
    told = {
        "sentinel_drift": round(float(np.max(np.abs(values / np.median(values) - 1))), 4),
        "sentinel_slowdown": round(float(np.median(values)) / best - 1, 4),
    }
    warnings = []
    if told["sentinel_drift"] > DRIFT:
        share = 100 * told["sentinel_drift"]
        warnings.append(f"drift: a fixed product moved by {share:.0f}% between the rounds; close other programs, or measure again")
    if told["sentinel_slowdown"] > DRIFT:
        share = 100 * told["sentinel_slowdown"]
        warnings.append(
            f"slowed: a fixed product took {share:.0f}% longer than earlier in this run; let the machine cool, or close other programs"
        )
    return told, warnings


def gpu_conditions(states: Sequence[GpuState], *, clock: float | None) -> tuple[dict[str, Any], list[str]]:
    """What a record says of a GPU, its first and its last state, and its warnings against the clock that it should keep (MHz).

    Every state between counts for the warnings. Nothing where NVML told nothing.
    """
    if not states:
        return {}, []
    before, after = states[0], states[-1]
    names = ("sm_clock_mhz", "temperature_c", "power_w", "throttle")
    told = {name: [getattr(before, name), getattr(after, name)] for name in names}
    reasons = tuple(dict.fromkeys(reason for state in states for reason in state.throttle or ()))
    working = [state for state in states if state.sm_clock_mhz is not None and not state.idle]
    slowest = min(working, key=lambda state: state.sm_clock_mhz or 0, default=after)
    return told, clock_warnings(before, replace(slowest, throttle=reasons), clock)


def gpu_state(gpu: Gpu | None) -> GpuState | None:
    """The GPU's state, None where NVML does not tell."""
    try:
        return gpu.state() if gpu else None
    except NvmlError:
        return None


def sentinel_call(device: str) -> Callable[[], Any]:
    """A fixed matrix product on the device."""
    side = SENTINEL_SIDE[torch.device(device).type]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def sentinel_seconds(call: Callable[[], Any], device: str) -> float:
    """Seconds of the sentinel, the median of some calls after one that warms up."""
    taken = []
    with torch.no_grad():
        call()
        for _ in range(SENTINEL_CALLS):
            _synchronise(device)
            started = time.perf_counter_ns()
            call()
            _synchronise(device)
            taken.append((time.perf_counter_ns() - started) / 1e9)
    return float(np.median(taken))


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
