"""Samples of a call's latency: on a CPU's clock, and between a GPU's events.

Kinds. CPU: `warm`, blocks of calls back to back, so long that reading the clock costs under 1e-4 of a block. GPU:
`cold`, the headline: the L2 cache is overwritten before each call, and the call is launched behind a kernel that waits,
so that the events stand around the device's work and not around the host's; `warm`, one call right after another, its data in the caches; `graph`, the
replay of a captured CUDA graph, which has no launch cost; `host`, the time until the call returns to Python.

Source: NVIDIA/nvbench measure_cold.cu and measure_hot.cu (order of a cold sample, the blocking kernel).
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

TIMER_SHARE = 1e-4
REWARM_SECONDS, SLOW_SECONDS = 0.005, 0.2
# Behind how long a kernel the call is launched: its launch takes as long as it took on an idle device, and Python some time beside it.
LEAST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5e-5, 0.02
CYCLES_A_SECOND = 2.0e9  # of the clock that torch.cuda._sleep counts; a slower one only waits longer
EVENT_SECONDS = 5e-7  # what CUDA states as the resolution of its events: no figure is below it, or 0
CAPTURE_WARMUPS = 3
GPU_KINDS = ("cold", "warm", "graph", "host")
KIND_SECONDS, KIND_SAMPLES = 0.05, 10


class Sampler(Protocol):
    """Takes samples of one call, in seconds a call."""

    kind: str

    def warm_up(self, *, seconds: float, calls: int) -> float:
        """Warms up by time and by count, and returns the seconds a call."""
        ...

    def warm_again(self) -> None:
        """Brings the call's data back into the caches, after other calls ran."""
        ...

    def sample(self) -> list[float]: ...

    def now(self) -> float: ...


def sampler_for(call: Callable[[], Any], device: str) -> Sampler:
    """The sampler of the headline kind for this device."""
    return GpuSampler(call, device) if device.startswith("cuda") else CpuSampler(call)


class CpuSampler:
    """Blocks of calls on the host's clock."""

    kind = "warm"

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.calls = 1
        self.estimate = 0.0

    def warm_up(self, *, seconds: float, calls: int) -> float:
        taken: list[float] = []
        self._block(1)  # what is made once: plans, compiled code, caches
        spent = 0.0
        while not taken or spent < seconds or (len(taken) < calls and spent < 10 * seconds):
            started = self.now()
            taken.append(self._block(1))
            spent += self.now() - started  # with what is around a call: of calls of 50 ns most of it
        self.calls = max(1, math.ceil(timer_seconds() / TIMER_SHARE / min(taken)))
        self.estimate = float(np.median(taken))
        return self.estimate

    def warm_again(self) -> None:
        # Filling a cache takes some milliseconds: nothing beside a call that takes longer than SLOW_SECONDS.
        started = self.now()
        while self.estimate < SLOW_SECONDS and (self._block(1) or True) and self.now() - started < REWARM_SECONDS:
            pass

    def sample(self) -> list[float]:
        return [self._block(self.calls) / self.calls]

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    def _block(self, calls: int) -> float:
        call = self.call
        started = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return (time.perf_counter_ns() - started) / 1e9


class GpuSampler:
    """One call a sample between CUDA events, behind a flush of the L2 cache and a kernel that waits for the launch."""

    kind = "cold"

    def __init__(self, call: Callable[[], Any], device: str) -> None:
        self.call, self.device = call, torch.device(device)
        properties = torch.cuda.get_device_properties(self.device)
        # Twice the cache: its sets are hashed, and what is replaced first is not what was written first.
        self.flush = torch.empty(max(1, 2 * properties.L2_cache_size), dtype=torch.int8, device=self.device)
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.launch = 0.0
        self.taken = self.exposed = 0  # samples, and those of them in which the device waited for the host

    def warm_up(self, *, seconds: float, calls: int) -> float:
        started, made, elapsed = self.now(), 0, 0.0
        while elapsed < seconds or (made < calls and elapsed < 10 * seconds):
            self.call()
            torch.cuda.synchronize(self.device)
            made, elapsed = made + 1, self.now() - started
        self.launch = float(np.median([self._host() for _ in range(3)]))
        return float(np.median(self.sample()))

    def warm_again(self) -> None:
        self.call()
        torch.cuda.synchronize(self.device)

    def sample(self) -> list[float]:
        return [self._between_events(self.call, cold=True)]

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    def plain_kinds(self) -> dict[str, list[float]]:
        """Samples of the kinds `host` and `warm`."""
        return {"host": self._some(self._host), "warm": self._some(lambda: self._between_events(self.call, cold=False))}

    def graph(self) -> list[float] | str:
        """Samples of the kind `graph`, or why there are none; then a process that is to measure more had better be a new one."""
        try:
            replay = self._captured()
        except Exception as error:  # an operator may be the user's own
            return f"the call cannot be captured as a CUDA graph: {_first_cause(error)}"
        return self._some(lambda: self._between_events(replay, cold=False))

    def _some(self, sample: Callable[[], float]) -> list[float]:
        taken: list[float] = []
        sample()  # what others have emptied meanwhile: cuFFT's plans, the allocator's pool
        started = self.now()
        while len(taken) < KIND_SAMPLES or (self.now() - started < KIND_SECONDS and len(taken) < 10 * KIND_SAMPLES):
            taken.append(sample())
        return taken

    def _host(self) -> float:
        """Seconds until the call returns, on an idle device."""
        torch.cuda.synchronize(self.device)
        started = time.perf_counter_ns()
        self.call()
        taken = (time.perf_counter_ns() - started) / 1e9
        torch.cuda.synchronize(self.device)
        return taken

    def _between_events(self, call: Callable[[], Any], *, cold: bool) -> float:
        with torch.cuda.device(self.device):
            if cold:
                self.flush.zero_()
            else:
                call()
            torch.cuda.synchronize(self.device)
            wait = min(LONGEST_WAIT_SECONDS, LEAST_WAIT_SECONDS + 1.5 * self.launch)
            torch.cuda._sleep(int(CYCLES_A_SECOND * wait))  # the launch is made meanwhile
            self.start.record()
            call()
            self.end.record()
            self.taken, self.exposed = self.taken + 1, self.exposed + bool(self.start.query())  # the wait was over too soon
        torch.cuda.synchronize(self.device)
        return max(EVENT_SECONDS, float(self.start.elapsed_time(self.end)) / 1e3)

    def _captured(self) -> Callable[[], None]:
        """The call as a graph, captured on the stream that it was warmed up on: libraries keep their workspaces by stream."""
        side, graph, pool = _capture_stream(self.device), torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        gc.collect()
        collects = gc.isenabled()
        gc.disable()  # a graph or an event that is freed within a capture may break it
        try:
            with torch.cuda.device(self.device), torch.cuda.stream(side):  # torch.cuda.graph does not leave it where a capture fails
                torch.cuda.synchronize(self.device)
                for _ in range(CAPTURE_WARMUPS):
                    self.call()
                with torch.cuda.graph(graph, pool=pool, stream=side):
                    self.call()
        except BaseException:
            _leave(pool, torch.cuda.current_device() if self.device.index is None else self.device.index)
            raise
        finally:
            if collects:
                gc.enable()
        replay: Callable[[], None] = graph.replay
        return replay


def _leave(pool: Any, device: int) -> None:
    """Ends allocation into the pool of a capture that failed: torch does not, and refuses to empty its cache ever after.

    Source: pytorch, aten/src/ATen/cuda/CUDAGraph.cpp (capture_end raises before endAllocateToPool).
    """
    with contextlib.suppress(RuntimeError, AttributeError):  # it is ended already; a torch that has no such functions
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: each further one would keep workspaces of its own."""
    return torch.cuda.Stream(device)


def _first_cause(error: BaseException) -> str:
    """What went wrong first: the end of a capture that failed raises once more, and says less."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def timer_seconds() -> float:
    """What one reading of the clock costs, in seconds."""
    readings = [time.perf_counter_ns() for _ in range(1001)]
    return max((readings[-1] - readings[0]) / 1000, 20) / 1e9
