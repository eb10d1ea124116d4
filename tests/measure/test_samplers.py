"""How samples are taken: blocks on a CPU, and the order of a GPU's sample, which a stand-in for torch.cuda writes down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lisabench.measure import samplers
from lisabench.measure.samplers import CpuSampler, GpuSampler, sampler_for, timer_seconds


def kinds_of(sampler: GpuSampler) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Samples of the kinds beside the headline's, and why one is absent."""
    found, graph = sampler.plain_kinds(), sampler.graph()
    return (found, {"graph": graph}) if isinstance(graph, str) else (found | {"graph": graph}, {})


def test_the_clock_s_cost_is_known_and_small() -> None:
    assert 20e-9 <= timer_seconds() < 1e-4


def test_a_cpu_is_timed_in_blocks_of_calls() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    sampler = sampler_for(call, "cpu")
    assert isinstance(sampler, CpuSampler)
    assert sampler.kind == "warm"
    sampler.warm_up(seconds=0.005, calls=3)
    for repeats in (1, 7):
        sampler.calls, before = repeats, calls
        assert len(sampler.sample()) == 1
        assert calls - before == repeats


def test_warming_up_ends_by_the_clock_also_where_a_call_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of 50 ns takes a hundredth of what is around it."""
    clock = iter(range(10**6))
    calls: list[None] = []
    sampler = CpuSampler(lambda: calls.append(None))
    monkeypatch.setattr(sampler, "now", lambda: next(clock) / 1000)
    sampler.warm_up(seconds=0.1, calls=3)
    assert 50 <= len(calls) <= 102


@pytest.mark.parametrize(("estimate", "again"), [(1e-4, True), (samplers.SLOW_SECONDS, False)], ids=["fast", "slow"])
def test_a_fast_call_is_warmed_again_after_others_ran_and_a_slow_one_is_not(estimate: float, again: bool) -> None:
    calls: list[None] = []
    sampler = CpuSampler(lambda: calls.append(None))
    sampler.estimate = estimate
    sampler.warm_again()
    assert bool(calls) is again


class Device:
    """A stand-in for torch.cuda: one stream, whose work takes no time but what a call says it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.cycles: list[int] = []
        self.clock = 0.0
        self.capturing = False
        self.flush: torch.Tensor | None = None
        self.launches_late = False
        self.left: list[tuple[int, Any]] = []
        device = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                device.log.append("event")
                self.at = device.clock

            def query(self) -> bool:
                return device.launches_late

            def elapsed_time(self, other: Any) -> float:
                return 1e3 * (other.at - self.at)

        class Graph:
            def replay(self) -> None:
                device.log.append("replay")
                device.clock += 1e-3

        class Capture:
            def __init__(self, graph: Any, *, pool: Any, stream: Any) -> None:
                assert isinstance(graph, Graph)

            def __enter__(self) -> None:
                device.capturing = True

            def __exit__(self, kind: Any, *_: Any) -> None:
                device.capturing = False
                if kind:
                    raise RuntimeError("operation failed due to a previous error during capture")

        faked: dict[str, Any] = {
            "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=64),
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": Capture,
            "graph_pool_handle": lambda: (0, 1),
            "Stream": lambda _: "side",
            "stream": nullcontext,
            "device": nullcontext,
            "current_device": lambda: 0,
            "synchronize": lambda _: self.note("synchronise"),
            "_sleep": self.sleep,
        }
        for name, stand_in in faked.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda index, pool: self.left.append((index, pool)), raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda index, pool: None, raising=False)
        samplers._capture_stream.cache_clear()

    def note(self, what: str) -> None:
        self.log.append(what)

    def sleep(self, cycles: int) -> None:
        self.note("wait flushed" if self.flush is not None and not self.flush.any() else "wait")
        self.cycles.append(cycles)

    def sampler(self, call: Callable[[], Any] | None = None) -> GpuSampler:
        """A sampler of a call that takes 2 ms of the device's time."""

        def takes_two_milliseconds() -> None:
            self.note("call")
            self.clock += 2e-3

        sampler = GpuSampler(call or takes_two_milliseconds, "cpu")
        self.flush = sampler.flush.fill_(1)
        return sampler


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_a_cold_sample_is_flushed_and_launched_behind_a_kernel_that_waits(device: Device) -> None:
    sampler = device.sampler()
    assert sampler.sample() == [pytest.approx(2e-3)]
    assert device.log == ["synchronise", "wait flushed", "event", "call", "event", "synchronise"]
    assert sampler.kind == "cold"


def test_samples_whose_launch_outlasted_the_wait_are_counted(device: Device) -> None:
    sampler = device.sampler()
    sampler.sample()
    device.launches_late = True
    sampler.sample()
    assert (sampler.taken, sampler.exposed) == (2, 1)


def test_the_wait_is_longer_than_the_launch_but_ends(device: Device) -> None:
    sampler = device.sampler()
    for launch, least, most in ((0.0, 1e-5, 1e-3), (2e-3, 2e-3, 4e-3), (60.0, 0.01, 0.05)):
        sampler.launch = launch
        sampler.sample()
        assert least < device.cycles[-1] / samplers.CYCLES_A_SECOND < most


def test_a_warm_sample_runs_right_after_the_same_call(device: Device) -> None:
    kinds, absent = kinds_of(device.sampler())
    assert absent == {}
    assert set(kinds) == set(samplers.GPU_KINDS) - {"cold"}
    assert kinds["warm"] == [pytest.approx(2e-3)] * len(kinds["warm"])
    assert kinds["graph"] == [pytest.approx(1e-3)] * len(kinds["graph"])
    assert all(len(samples) >= samplers.KIND_SAMPLES for samples in kinds.values())
    assert device.log[-7:] == ["replay", "synchronise", "wait", "event", "replay", "event", "synchronise"]
    assert "wait flushed" not in device.log


def test_a_call_without_work_on_the_device_takes_the_events_grain_and_not_0(device: Device) -> None:
    assert device.sampler(lambda: None).sample() == [samplers.EVENT_SECONDS]


def test_a_call_that_cannot_be_captured_says_what_went_wrong_first(device: Device) -> None:
    def call() -> None:
        if device.capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    kinds, absent = kinds_of(device.sampler(call))
    assert set(kinds) == {"host", "warm"}
    assert absent["graph"].endswith("CUDA graph: operation not permitted when stream is capturing")
    assert device.left == [(0, (0, 1))], "the allocator is told that the capture is over"


def test_the_warm_up_ends_by_time_and_by_count_and_knows_the_launch(device: Device) -> None:
    sampler = device.sampler()
    assert sampler.warm_up(seconds=0.0, calls=3) == pytest.approx(2e-3)
    assert sampler.launch > 0
    before = device.log.count("call")
    sampler.warm_again()
    assert device.log.count("call") == before + 1
