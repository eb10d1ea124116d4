"""What NVIDIA's management library tells of a GPU: clocks, temperature, power, energy, and why the clocks are held back.

The only file that knows pynvml (package nvidia-ml-py). Whatever NVML cannot or will not tell is an NvmlError with its
reason in words. A MIG slice has its own handle; clocks, power and energy are told of its whole GPU only.

Source: NVIDIA's NVML API reference, device queries; the constants stand in pynvml.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lisabench.errors import UnavailableError

# Bits of nvmlDeviceGetCurrentClocksEventReasons.
IDLE, SET_BY_USER = 0x1, 0x2
SLOWING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability limit",
}
CURES = {
    "power cap": "raise the limit by nvidia-smi -pl, or lock lower clocks by nvidia-smi -lgc",
    "hardware slowdown": "check the GPU's cooling and power supply",
    "power brake": "check the GPU's power supply",
    "sync boost": "take the GPU out of its sync boost group",
    "display clock setting": "measure on a GPU without a display",
}
LET_COOL = "let the GPU cool or lock its clocks by nvidia-smi -lgc"
# Source: NVIDIA/nvbench, measure_cold.cu: samples under 75% of the default clock are dropped as throttled.
THROTTLED_UNDER = 0.75
# What each return code means to a user, by its name in pynvml.
REASONS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "NVML's library is not there; install NVIDIA's driver, or start the container with "
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    "NVML_ERROR_DRIVER_NOT_LOADED": "NVIDIA's driver is not loaded; check it by nvidia-smi",
    "NVML_ERROR_NO_PERMISSION": "NVML denies this to an ordinary user; ask the machine's administrator, or run as root",
    "NVML_ERROR_NOT_SUPPORTED": "NVML does not support this on this GPU",
    "NVML_ERROR_FUNCTION_NOT_FOUND": "the driver is too old for this query; update it",
    "NVML_ERROR_NOT_FOUND": "NVML knows no such device; a container may hide it",
    "NVML_ERROR_GPU_IS_LOST": "the GPU is lost: it no longer answers; see dmesg, restart the machine",
    "NVML_ERROR_RESET_REQUIRED": "the GPU needs a reset; restart the machine",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "NVML and the loaded driver have different versions; restart after the driver's update",
    "NVML_ERROR_OPERATING_SYSTEM": "the operating system blocks NVML; a container may lack the device files",
}
# Queries that drivers and bindings have under several names, the newest first.
EVENT_REASONS = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
TEMPERATURE = "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"
CUDA_DRIVER = "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"
PROCESSES = "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2"
DEFAULT_CLOCK = "nvmlDeviceGetDefaultApplicationsClock"
# NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU.
SM_CLOCK, MEMORY_CLOCK, GPU_SENSOR = 1, 2, 0
FULL_FROM = 0.97  # of the clock: a reason that holds nothing back is none
MIG_ENERGY = "the energy counter is the whole GPU's, not the MIG slice's; measure on a GPU without MIG"
HIDDEN_PID = "NVML lists no process with this pid: a container hides pids; start it with --pid=host"


class NvmlError(UnavailableError):
    """NVML, or one of its figures, is not to be had; the text is the reason and what to do."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU at one moment: MHz, degrees Celsius, watts; None where NVML does not tell.

    `throttle` names the active reasons that hold the clocks back; `idle` is True where they are low for want of work,
    `clock_set` where somebody set them.
    """

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle: tuple[str, ...] | None = None
    idle: bool | None = None
    clock_set: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU, or a MIG slice of one. `handle` is what computes, `whole` the physical GPU: the same without MIG."""

    handle: Any
    whole: Any
    is_slice: bool

    @classmethod
    def open(cls, device: str) -> Gpu:
        """The GPU behind a torch device such as "cuda:0", whatever CUDA_VISIBLE_DEVICES renumbers. Raises NvmlError."""
        import torch

        try:
            uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)
        except (AssertionError, RuntimeError) as error:  # torch without CUDA, or no such device
            raise NvmlError(f"torch finds no {device}: {str(error).splitlines()[0]}") from error
        return cls.of_uuid(uuid)

    @classmethod
    def of_uuid(cls, uuid: str) -> Gpu:
        """The GPU or the slice with this UUID; without a prefix, as torch states it, it is sought as either. Raises NvmlError."""
        _ask("nvmlInit")
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        handle = next((found for name in names[1:] if (found := _told("nvmlDeviceGetHandleByUUID", name)) is not None), None)
        if handle is None:
            handle = _ask("nvmlDeviceGetHandleByUUID", names[0])
        if _number(_told("nvmlDeviceIsMigDeviceHandle", handle)):
            return cls(handle=handle, whole=_ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle), is_slice=True)
        gpu = cls(handle=handle, whole=handle, is_slice=False)
        return gpu._own_slice() if gpu._mig() else gpu

    def _own_slice(self) -> Gpu:
        """The slice that CUDA computes on where it stated the whole GPU's UUID; the GPU stands in where it cannot be told."""
        wanted = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.startswith("MIG-")]
        if wanted:
            slices = [_told("nvmlDeviceGetHandleByUUID", name) for name in wanted]
        else:
            most = _told("nvmlDeviceGetMaxMigDeviceCount", self.whole) or 0
            slices = [_told("nvmlDeviceGetMigDeviceHandleByIndex", self.whole, at) for at in range(most)]
        found = [handle for handle in slices if handle is not None]
        return replace(self, handle=found[0] if len(found) == 1 else self.whole, is_slice=True)

    def _mig(self) -> bool:
        mode = _told("nvmlDeviceGetMigMode", self.whole)
        return bool(mode and mode[0])

    def state(self) -> GpuState:
        """Clocks, temperature, power and throttling of the physical GPU now; what fails alone is None alone."""
        power = _told("nvmlDeviceGetPowerUsage", self.whole)
        reasons = _told(EVENT_REASONS, self.whole)
        return GpuState(
            sm_clock_mhz=_told("nvmlDeviceGetClockInfo", self.whole, SM_CLOCK),
            memory_clock_mhz=_told("nvmlDeviceGetClockInfo", self.whole, MEMORY_CLOCK),
            temperature_c=_told(TEMPERATURE, self.whole, GPU_SENSOR),
            power_w=None if power is None else power / 1e3,
            throttle=None if reasons is None else tuple(name for bit, name in SLOWING.items() if reasons & bit),
            idle=None if reasons is None else bool(reasons & IDLE),
            clock_set=None if reasons is None else bool(reasons & SET_BY_USER),
        )

    def full_clock_mhz(self) -> int | None:
        """The SM clock to hold others against: the default application clock, or else the highest there is."""
        found: int | None = _told(DEFAULT_CLOCK, self.whole, SM_CLOCK) or _told("nvmlDeviceGetMaxClockInfo", self.whole, SM_CLOCK)
        return found

    def facts(self) -> dict[str, Any]:
        """What lasts of this GPU, JSON-ready; under "absent" the reason for each that is None.

        NVML has no query for clocks locked by `nvidia-smi -lgc`: a default and an application clock is all that it tells.
        """
        queries: dict[str, Callable[[], Any]] = {
            "driver": lambda: _ask("nvmlSystemGetDriverVersion"),
            "cuda_driver": lambda: _cuda_version(_ask(CUDA_DRIVER)),
            "power_limit_w": lambda: _ask("nvmlDeviceGetEnforcedPowerLimit", self.whole) / 1e3,
            "power_limit_default_w": lambda: _ask("nvmlDeviceGetPowerManagementDefaultLimit", self.whole) / 1e3,
            "max_sm_clock_mhz": lambda: _ask("nvmlDeviceGetMaxClockInfo", self.whole, SM_CLOCK),
            "default_sm_clock_mhz": lambda: _ask(DEFAULT_CLOCK, self.whole, SM_CLOCK),
            "application_sm_clock_mhz": lambda: _ask("nvmlDeviceGetApplicationsClock", self.whole, SM_CLOCK),
            "ecc": lambda: bool(_ask("nvmlDeviceGetEccMode", self.whole)[0]),
            "mig": lambda: self.is_slice or bool(_ask("nvmlDeviceGetMigMode", self.whole)[0]),
            "mig_profile": self._profile,
            "persistence": lambda: bool(_ask("nvmlDeviceGetPersistenceMode", self.whole)),
            "pci_bus_id": lambda: _text(_ask("nvmlDeviceGetPciInfo", self.whole).busId),
            "uuid": lambda: _text(_ask("nvmlDeviceGetUUID", self.handle)),
        }
        found: dict[str, Any] = {}
        absent: dict[str, str] = {}
        for name, query in queries.items():
            try:
                found[name] = query()
            except NvmlError as error:
                found[name], absent[name] = None, str(error)
        return found | ({"absent": absent} if absent else {})

    def _profile(self) -> str | None:
        """'1g.10gb' from the slice's name, 'NVIDIA H100 80GB HBM3 MIG 1g.10gb'; None without MIG."""
        if not self.is_slice:
            return None
        if self.handle is self.whole:
            raise NvmlError("which of the GPU's slices computes cannot be told; name one in CUDA_VISIBLE_DEVICES=MIG-...")
        name = _text(_ask("nvmlDeviceGetName", self.handle))
        return name.rpartition("MIG ")[2]

    def energy_j(self) -> float:
        """Joules since the driver was loaded; the whole GPU's, whoever uses it. Raises NvmlError, on a MIG slice too."""
        if self.is_slice:
            raise NvmlError(MIG_ENERGY)
        return float(_ask("nvmlDeviceGetTotalEnergyConsumption", self.whole)) / 1e3

    def process_bytes(self) -> int:
        """Bytes of GPU memory that NVML counts to this process: its CUDA context and libraries too. Raises NvmlError."""
        running = _ask(PROCESSES, self.handle)
        own = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
        if not own:
            raise NvmlError(HIDDEN_PID)
        if any(used is None for used in own):
            raise NvmlError("NVML states no memory by process on this system")
        return sum(map(int, own))


def clock_warnings(before: GpuState, after: GpuState, full_clock_mhz: float | None) -> list[str]:
    """What to say of the clocks of a measurement: held back by a reason, or under 75% of `full_clock_mhz` (default or maximum).

    A clock that is low because the GPU is idle, before the work or just after it, or because it was set so, is not throttled.
    """
    clocks = [state.sm_clock_mhz for state in (before, after) if state.sm_clock_mhz is not None and not state.idle]
    reasons = after.throttle or ()
    slow = bool(clocks and full_clock_mhz and min(clocks) < THROTTLED_UNDER * full_clock_mhz) and not after.clock_set
    full = bool(clocks and full_clock_mhz and min(clocks) >= FULL_FROM * full_clock_mhz)
    if full or not (slow or reasons):
        return []
    stood = f"stood at {min(clocks):,} MHz" if clocks else "was held back"
    of = f" of {full_clock_mhz:,.0f}" if clocks and full_clock_mhz else ""
    why = ", ".join(reasons) or "NVML gives no reason"
    cures = dict.fromkeys(CURES.get(reason, LET_COOL) for reason in reasons) or (LET_COOL,)
    return [f"throttled: the SM clock {stood}{of} ({why}); {', '.join(cures)}"]


def _library() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise NvmlError("the package nvidia-ml-py is not installed; get it by: pip install nvidia-ml-py") from error
    return pynvml


def _ask(function: str | tuple[str, ...], *arguments: Any) -> Any:
    """Calls pynvml, of several names the first that answers; whatever it raises becomes an NvmlError with a reason in words."""
    first, *others = (function,) if isinstance(function, str) else function
    try:
        return _call(first, arguments)
    except NvmlError:
        if not others:
            raise
    return _ask(tuple(others), *arguments)


def _told(function: str | tuple[str, ...], *arguments: Any) -> Any:
    """What NVML answers, or None."""
    try:
        return _ask(function, *arguments)
    except NvmlError:
        return None


def _call(function: str, arguments: tuple[Any, ...]) -> Any:
    library = _library()
    if not hasattr(library, function):
        raise NvmlError(f"the installed pynvml knows no {function}; get a newer one by: pip install -U nvidia-ml-py")
    try:
        return getattr(library, function)(*arguments)
    except library.NVMLError as error:
        known = {getattr(library, name): reason for name, reason in REASONS.items() if hasattr(library, name)}
        raise NvmlError(known.get(error.value, f"NVML says: {error}")) from error
    except library.NVMLLibraryMismatchError as error:
        raise NvmlError(REASONS["NVML_ERROR_FUNCTION_NOT_FOUND"]) from error


def _number(value: Any) -> int:
    """nvmlDeviceIsMigDeviceHandle gives a ctypes number, not a Python one; None counts as 0."""
    return int(getattr(value, "value", value) or 0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cuda_version(number: int) -> str:
    """12080 -> '12.8'."""
    return f"{number // 1000}.{number % 1000 // 10}"
