"""What a measuring process opens once for its device: NVML, the energy counter, the sentinel."""

from __future__ import annotations

from dataclasses import dataclass, field

from lisabench.measure.conditions import gpu_state, sentinel_call, sentinel_seconds
from lisabench.measure.energy import Meter, NoEnergyError, open_meter
from lisabench.measure.nvml import Gpu, GpuState, NvmlError


@dataclass(kw_only=True)
class Station:
    """`gpu` and `meter` are None where they cannot be had; `no_gpu` and `no_energy` then say why."""

    device: str
    gpu: Gpu | None = field(init=False, default=None)
    no_gpu: str = field(init=False, default="")
    meter: Meter | None = field(init=False, default=None)
    no_energy: str = field(init=False, default="")
    energy_period_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.device.startswith("cuda"):
            try:
                self.gpu = Gpu.open(self.device)
            except NvmlError as error:
                self.no_gpu = str(error)
        try:
            self.meter = open_meter(self.device)
        except NoEnergyError as error:
            self.no_energy = str(error)
        self._sentinel = sentinel_call(self.device)

    def sentinel(self) -> float:
        """Seconds of the fixed product."""
        return sentinel_seconds(self._sentinel, self.device)

    def state(self) -> GpuState | None:
        return gpu_state(self.gpu)
