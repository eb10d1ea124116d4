"""What a GPU's samples are worth: laws of its clock, its caches, its memory and its graphs. None states a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lisabench.measure import memory
from lisabench.measure.energy import NoEnergyError, measure_energy, open_meter
from lisabench.measure.nvml import Gpu, NvmlError
from lisabench.measure.peaks import measure_peaks
from lisabench.measure.samplers import KIND_SAMPLES, GpuSampler

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICE = "cuda:0"
MEBIBYTE = 2**20


def warmed(call: Callable[[], Any]) -> GpuSampler:
    sampler = GpuSampler(call, DEVICE)
    sampler.warm_up(seconds=0.2, calls=5)
    return sampler


def medians(*takes: Callable[[], float], rounds: int = 31) -> list[float]:
    """The median of each, taken in turns, so that a clock that moves moves for all."""
    rows = [[take() for take in takes] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def copy(size: int) -> tuple[torch.Tensor, Callable[[], Any]]:
    source, target = torch.ones(size, dtype=torch.int8, device=DEVICE), torch.empty(size, dtype=torch.int8, device=DEVICE)
    return target, lambda: target.copy_(source)


def kinds_of(sampler: GpuSampler) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Samples of the kinds beside the headline's, and why one is absent."""
    found, graph = sampler.plain_kinds(), sampler.graph()
    return (found, {"graph": graph}) if isinstance(graph, str) else (found | {"graph": graph}, {})


def test_a_flushed_copy_takes_longer_than_a_warm_one() -> None:
    """Source and target fill half of the L2 cache: without the flush they are read from there."""
    cache = torch.cuda.get_device_properties(DEVICE).L2_cache_size
    if not cache:
        pytest.skip("the device states no L2 cache")
    _, call = copy(cache // 4)
    sampler = warmed(call)
    cold, warm = medians(
        lambda: sampler._between_events(call, cold=True),
        lambda: sampler._between_events(call, cold=False),
    )
    assert cold >= warm


def test_events_see_twice_the_time_of_twice_the_cycles() -> None:
    def takes(cycles: int) -> Callable[[], float]:
        def call() -> None:
            torch.cuda._sleep(cycles)

        sampler = warmed(call)
        return lambda: sampler._between_events(call, cold=True)

    once, twice = medians(takes(4_000_000), takes(8_000_000))
    assert twice / once == pytest.approx(2, rel=0.05)


def test_the_launch_is_not_in_a_sample() -> None:
    """A hundred launches of next to nothing: the host needs longer for them than the device."""
    x = torch.zeros(1, device=DEVICE)

    def call() -> None:
        for _ in range(100):
            x.add_(1)

    sampler = warmed(call)
    device, host = medians(lambda: sampler.sample()[0], sampler._host)
    assert 0 < device < host


def test_a_replayed_graph_does_the_same_work() -> None:
    x, out = torch.randn(64, 64, device=DEVICE), torch.zeros(64, 64, device=DEVICE)
    sampler = warmed(lambda: out.copy_(x @ x))
    want = out.clone()
    replay = sampler._captured()
    out.zero_()
    replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(out, want)
    x.mul_(2)
    replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(out, 4 * want)


def test_every_kind_has_its_samples() -> None:
    x = torch.randn(256, 256, device=DEVICE)
    sampler = warmed(lambda: x @ x)
    assert sampler.launch > 0
    kinds, absent = kinds_of(sampler)
    assert absent == {}
    assert set(kinds) == {"host", "warm", "graph"}
    assert all(len(samples) >= KIND_SAMPLES and min(samples) > 0 for samples in kinds.values())


def test_a_backward_can_be_captured() -> None:
    x = torch.randn(64, 64, device=DEVICE, requires_grad=True)
    gradient = torch.ones(64, 64, device=DEVICE)
    kinds, absent = kinds_of(warmed(lambda: torch.autograd.grad((x @ x).softmax(-1), [x], gradient)))
    assert absent == {}
    assert min(kinds["graph"]) > 0


def test_a_call_that_waits_for_the_device_gives_its_reason_and_harms_no_later_one() -> None:
    x = torch.randn(16, device=DEVICE)
    kinds, absent = kinds_of(warmed(lambda: x * x.sum().item()))
    assert set(kinds) == {"host", "warm"}
    assert "captur" in absent["graph"].partition("graph: ")[2]
    torch.cuda.empty_cache()  # torch refuses this while it believes that a capture is going on
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    trace = memory.trace_call(lambda: torch.empty(MEBIBYTE, dtype=torch.int8, device=DEVICE), device=DEVICE)
    assert trace.transient_bytes == MEBIBYTE
    kinds, absent = kinds_of(warmed(lambda: x + 1))
    assert absent == {}
    assert min(kinds["graph"]) > 0


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
def test_memory_is_what_was_allocated(together: bool) -> None:
    def allocate() -> torch.Tensor:
        return torch.empty(64 * MEBIBYTE, dtype=torch.int8, device=DEVICE)

    def call() -> Any:
        if together:
            return allocate(), allocate()
        allocate()
        return allocate()

    call()
    trace = memory.trace_call(call, device=DEVICE)
    assert trace.transient_bytes == (128 if together else 64) * MEBIBYTE
    assert trace.reserved_bytes is not None
    assert trace.reserved_bytes >= trace.transient_bytes


def test_plans_of_ffts_are_counted() -> None:
    x = torch.randn(4096, 331, device=DEVICE)
    torch.fft.rfft(x)
    plans = memory.plan_bytes(DEVICE, lambda: torch.fft.rfft(x))
    assert isinstance(plans, int) or "another process" in plans
    assert torch.backends.cuda.cufft_plan_cache[torch.device(DEVICE)].size == 0
    assert memory.plan_bytes(DEVICE, lambda: x + 1) == 0
    assert isinstance(memory.plan_bytes("cpu"), str)


def asked(ask: Callable[[], Any]) -> tuple[Any, str]:
    """The figure, or None and the reason."""
    try:
        return ask(), ""
    except (NvmlError, NoEnergyError) as error:
        return None, str(error)


def test_nvml_tells_figures_or_reasons() -> None:
    gpu, why = asked(lambda: Gpu.open(DEVICE))
    if gpu is None:
        assert len(why.splitlines()) == 1
        pytest.skip(why)
    facts = gpu.facts()
    absent = facts.pop("absent", {})
    assert {name for name, value in facts.items() if value is None and name != "mig_profile"} == set(absent) - {"mig_profile"}
    assert facts["mig"] or str(torch.cuda.get_device_properties(DEVICE).uuid) in facts["uuid"]
    state, full = gpu.state(), gpu.full_clock_mhz()
    assert None in (state.sm_clock_mhz, full) or 0 < state.sm_clock_mhz < 2 * full
    used, why = asked(gpu.process_bytes)
    assert used > 0 if used is not None else why


def test_energy_is_a_figure_or_a_reason() -> None:
    x = torch.randn(4096, 4096, device=DEVICE)
    seconds = warmed(lambda: x @ x).sample()[0]
    found, why = asked(lambda: measure_energy(lambda: x @ x, open_meter(DEVICE), seconds_a_call=seconds, device=DEVICE))
    if found is None:
        assert len(why.splitlines()) == 1
        pytest.skip(why)
    assert found.joules_a_call > 0
    assert found.calls > 0


def test_half_precision_has_the_higher_peak_and_the_settings_stay() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    peaks = measure_peaks(DEVICE, ("fp32", "tf32", "bf16"))
    assert peaks["bytes_per_s"] > 0
    if torch.cuda.get_device_capability(DEVICE) >= (8, 0):
        assert peaks["flops_per_s_bf16"] > peaks["flops_per_s_fp32"]
        assert peaks["flops_per_s_tf32"] > 0
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_tf32_is_off_unless_it_is_asked_for() -> None:
    """A product of ones and of a number that TF32's ten bits cannot hold."""
    assert torch.backends.cuda.matmul.allow_tf32 is False
    x = torch.full((128, 128), 1 + 2.0**-20, device=DEVICE)
    assert ((x @ torch.eye(128, device=DEVICE)) == x).all()
