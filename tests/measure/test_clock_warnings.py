"""What a GPU's clocks before and after are warned of."""

from __future__ import annotations

import pytest

from lisabench.measure.nvml import GpuState, clock_warnings


def state(clock: int | None, *reasons: str, idle: bool = False, clock_set: bool = False) -> GpuState:
    return GpuState(sm_clock_mhz=clock, throttle=reasons, idle=idle, clock_set=clock_set)


@pytest.mark.parametrize(
    ("before", "after", "full", "warning"),
    [
        (state(1980), state(1980), 1980, None),
        (state(345, idle=True), state(1980), 1980, None),
        (state(1980), state(345, idle=True), 1980, None),
        (state(990, clock_set=True), state(990, clock_set=True), 1980, None),
        (state(None), state(None), 1980, None),
        (GpuState(), GpuState(), None, None),
        (state(1980), state(1485), 1980, None),
        (
            state(1980),
            state(1484),
            1980,
            "throttled: the SM clock stood at 1,484 MHz of 1,980 (NVML gives no reason); let the GPU cool or lock its clocks by nvidia-smi -lgc",
        ),
        (
            state(1980),
            state(1200, "hardware thermal slowdown"),
            1980,
            "throttled: the SM clock stood at 1,200 MHz of 1,980 (hardware thermal slowdown); "
            "let the GPU cool or lock its clocks by nvidia-smi -lgc",
        ),
        (
            state(1980),
            state(1900, "power cap"),
            None,
            "throttled: the SM clock stood at 1,900 MHz (power cap); "
            "raise the limit by nvidia-smi -pl, or lock lower clocks by nvidia-smi -lgc",
        ),
        (
            state(None),
            state(None, "power brake"),
            1980,
            "throttled: the SM clock was held back (power brake); check the GPU's power supply",
        ),
    ],
)
def test_clocks_that_were_held_back_are_told(before: GpuState, after: GpuState, full: int | None, warning: str | None) -> None:
    assert clock_warnings(before, after, full) == ([warning] if warning else [])
