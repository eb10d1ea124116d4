"""NVML's answers and refusals, told by a fake of pynvml's functions; its constants and errors are pynvml's own."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from lisabench.measure import nvml
from lisabench.measure.nvml import Gpu, GpuState, NvmlError

UUID = "5d3dc0ed-2a3c-4a75-9a3f-000000000001"
SLICE_UUID = "5d3dc0ed-2a3c-4a75-9a3f-0000000000aa"


class FakeNvml:
    """pynvml with the answers of one machine; a function that has none is not supported."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"nvmlInit": None} | answers

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            return getattr(pynvml, name)
        answer = self.answers.get(name, pynvml.NVML_ERROR_NOT_SUPPORTED)
        if answer is AttributeError:
            raise AttributeError(name)

        def function(*arguments: Any) -> Any:
            return answer(*arguments) if callable(answer) else answer

        return function if name in self.answers else refuses(answer)


def refuses(code: int) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        raise pynvml.NVMLError(code)

    return function


def of(answers: dict[Any, Any]) -> Callable[..., Any]:
    """Answers by the last argument; another one is not found."""

    def function(*arguments: Any) -> Any:
        if arguments[-1] not in answers:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return answers[arguments[-1]]

    return function


WHOLE: dict[str, Any] = {
    "nvmlDeviceGetHandleByUUID": of({f"GPU-{UUID}": "gpu"}),
    "nvmlDeviceIsMigDeviceHandle": lambda handle: ctypes.c_uint(handle == "slice"),
    "nvmlDeviceGetMigMode": [0, 1],
    "nvmlSystemGetDriverVersion": "570.124.06",
    "nvmlSystemGetCudaDriverVersion_v2": 12080,
    "nvmlDeviceGetEnforcedPowerLimit": 650_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetDefaultApplicationsClock": 1830,
    "nvmlDeviceGetApplicationsClock": 1800,
    "nvmlDeviceGetEccMode": [1, 0],
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetPciInfo": SimpleNamespace(busId="00000000:18:00.0"),
    "nvmlDeviceGetUUID": f"GPU-{UUID}",
    "nvmlDeviceGetClockInfo": of({pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 3201}),
    "nvmlDeviceGetTemperatureV": 61,
    "nvmlDeviceGetPowerUsage": 412_345,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x2,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
    "nvmlDeviceGetComputeRunningProcesses": [
        SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=5),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=700),
    ],
}
SLICED = WHOLE | {
    "nvmlDeviceGetHandleByUUID": of({f"GPU-{UUID}": "gpu", f"MIG-{SLICE_UUID}": "slice"}),
    "nvmlDeviceGetMigMode": [1, 1],
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": "gpu",
    "nvmlDeviceGetMaxMigDeviceCount": 7,
    "nvmlDeviceGetMigDeviceHandleByIndex": of({2: "slice"}),
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "nvmlDeviceGetUUID": lambda handle: {"gpu": f"GPU-{UUID}", "slice": f"MIG-{SLICE_UUID}"}[handle],
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a machine in pynvml's place: a table of answers, with some of them changed."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(answers: dict[str, Any], **changes: Any) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(**(answers | changes)))  # type: ignore[arg-type]

    return put


Machine = Callable[..., None]


def test_every_name_is_one_of_pynvml() -> None:
    source = Path(nvml.__file__).read_text()
    names = set(re.findall(r'"(nvml[A-Z]\w+|NVML_\w+)"', source))
    assert len(names) > 25
    assert [name for name in names if not hasattr(pynvml, name)] == []
    assert (nvml.SM_CLOCK, nvml.MEMORY_CLOCK, nvml.GPU_SENSOR) == (
        pynvml.NVML_CLOCK_SM,
        pynvml.NVML_CLOCK_MEM,
        pynvml.NVML_TEMPERATURE_GPU,
    )
    assert sum(nvml.SLOWING) | nvml.IDLE | nvml.SET_BY_USER == pynvml.nvmlClocksThrottleReasonAll
    assert nvml.SLOWING[pynvml.nvmlClocksEventReasonSwPowerCap] == "power cap"
    assert nvml.SLOWING[pynvml.nvmlClocksEventReasonHwThermalSlowdown] == "hardware thermal slowdown"
    assert nvml.SLOWING[pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown] == "power brake"
    assert pynvml.nvmlClocksEventReasonGpuIdle == nvml.IDLE


@pytest.mark.parametrize("uuid", [UUID, f"GPU-{UUID}"])
def test_a_whole_gpu(machine: Machine, uuid: str) -> None:
    machine(WHOLE)
    gpu = Gpu.of_uuid(uuid)
    assert gpu == Gpu(handle="gpu", whole="gpu", is_slice=False)
    assert gpu.state() == GpuState(
        sm_clock_mhz=1755, memory_clock_mhz=3201, temperature_c=61, power_w=412.345, throttle=("power cap",), idle=False, clock_set=True
    )
    assert gpu.facts() == {
        "driver": "570.124.06",
        "cuda_driver": "12.8",
        "power_limit_w": 650.0,
        "power_limit_default_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "default_sm_clock_mhz": 1830,
        "application_sm_clock_mhz": 1800,
        "ecc": True,
        "mig": False,
        "mig_profile": None,
        "persistence": True,
        "pci_bus_id": "00000000:18:00.0",
        "uuid": f"GPU-{UUID}",
    }
    assert gpu.full_clock_mhz() == 1830
    assert gpu.energy_j() == pytest.approx(123_456.789)
    assert gpu.process_bytes() == 700


@pytest.mark.parametrize(
    ("uuid", "visible"),
    [(SLICE_UUID, ""), (f"MIG-{SLICE_UUID}", ""), (UUID, f"MIG-{SLICE_UUID}"), (UUID, "0")],
    ids=["own-uuid", "own-uuid-with-prefix", "parent-uuid-and-variable", "parent-uuid-alone"],
)
def test_a_mig_slice_and_its_parent(machine: Machine, monkeypatch: pytest.MonkeyPatch, uuid: str, visible: str) -> None:
    asked: list[str] = []

    def processes(handle: str) -> list[Any]:
        asked.append(handle)
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=9)]

    machine(SLICED, nvmlDeviceGetComputeRunningProcesses=processes)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = Gpu.of_uuid(uuid)
    assert gpu == Gpu(handle="slice", whole="gpu", is_slice=True)
    facts = gpu.facts()
    assert (facts["mig"], facts["mig_profile"], facts["uuid"]) == (True, "1g.10gb", f"MIG-{SLICE_UUID}")
    assert gpu.state().sm_clock_mhz == 1755
    assert gpu.process_bytes() == 9
    assert asked == ["slice"]
    with pytest.raises(NvmlError, match="whole GPU's"):
        gpu.energy_j()


def test_a_slice_that_cannot_be_told_among_many(machine: Machine) -> None:
    machine(SLICED, nvmlDeviceGetMigDeviceHandleByIndex=of({0: "slice", 1: "another"}))
    gpu = Gpu.of_uuid(UUID)
    facts = gpu.facts()
    assert gpu.is_slice
    assert (facts["mig"], facts["mig_profile"]) == (True, None)
    assert "CUDA_VISIBLE_DEVICES" in facts["absent"]["mig_profile"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "install NVIDIA's driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver is not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "ordinary user"),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "does not support"),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "too old"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "the GPU is lost"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "different versions"),
        (pynvml.NVML_ERROR_UNKNOWN, "NVML says: Unknown Error"),
    ],
)
def test_refusals_are_reasons_of_one_line(machine: Machine, code: int, words: str) -> None:
    machine(WHOLE, nvmlInit=refuses(code))
    with pytest.raises(NvmlError, match=words) as raised:
        Gpu.of_uuid(UUID)
    assert len(str(raised.value).splitlines()) == 1
    machine(WHOLE, nvmlDeviceGetTotalEnergyConsumption=refuses(code))
    with pytest.raises(NvmlError, match=words):
        Gpu.of_uuid(UUID).energy_j()


def test_what_fails_alone_is_absent_alone(machine: Machine) -> None:
    machine(
        WHOLE,
        nvmlDeviceGetPowerUsage=refuses(pynvml.NVML_ERROR_NOT_SUPPORTED),
        nvmlDeviceGetEccMode=refuses(pynvml.NVML_ERROR_NOT_SUPPORTED),
        nvmlDeviceGetDefaultApplicationsClock=refuses(pynvml.NVML_ERROR_NOT_SUPPORTED),
    )
    gpu = Gpu.of_uuid(UUID)
    state, facts = gpu.state(), gpu.facts()
    assert (state.power_w, state.temperature_c) == (None, 61)
    assert (facts["ecc"], facts["power_limit_w"]) == (None, 650.0)
    assert set(facts["absent"]) == {"ecc", "default_sm_clock_mhz"}
    assert gpu.full_clock_mhz() == 1980


def test_a_lost_gpu_has_a_state_without_figures(machine: Machine) -> None:
    machine({"nvmlDeviceGetHandleByUUID": WHOLE["nvmlDeviceGetHandleByUUID"]})
    gpu = Gpu.of_uuid(UUID)
    assert gpu.state() == GpuState()
    assert all(value is None for name, value in gpu.facts().items() if name not in ("mig", "absent"))


def test_old_drivers_and_bindings_are_asked_by_old_names(machine: Machine) -> None:
    def mismatch(handle: str) -> Any:
        raise pynvml.NVMLLibraryMismatchError("unversioned function")

    machine(
        WHOLE,
        nvmlDeviceGetTemperatureV=refuses(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
        nvmlDeviceGetTemperature=59,
        nvmlDeviceGetCurrentClocksEventReasons=AttributeError,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
        nvmlDeviceGetComputeRunningProcesses=mismatch,
        nvmlDeviceGetComputeRunningProcesses_v2=[SimpleNamespace(pid=os.getpid(), usedGpuMemory=3)],
    )
    gpu = Gpu.of_uuid(UUID)
    state = gpu.state()
    assert (state.temperature_c, state.throttle) == (59, ("hardware thermal slowdown",))
    assert gpu.process_bytes() == 3


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([], "hides pids"),
        ([SimpleNamespace(pid=-1, usedGpuMemory=5)], "hides pids"),
        ([SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)], "no memory by process"),
    ],
    ids=["none", "others", "no-figure"],
)
def test_a_process_without_a_figure_gives_a_reason(machine: Machine, processes: list[Any], words: str) -> None:
    machine(WHOLE, nvmlDeviceGetComputeRunningProcesses=processes)
    with pytest.raises(NvmlError, match=words):
        Gpu.of_uuid(UUID).process_bytes()


def test_a_missing_package_gives_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlError, match="pip install nvidia-ml-py"):
        Gpu.of_uuid(UUID)


def test_a_device_that_is_not_there_gives_a_reason_with_the_real_library() -> None:
    for ask in (lambda: Gpu.open("cuda:99"), lambda: Gpu.of_uuid("GPU-no-such")):
        with pytest.raises(NvmlError) as raised:
            ask()
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_machines_gpu() -> None:
    try:
        gpu = Gpu.open("cuda:0")
    except NvmlError as error:
        pytest.skip(str(error))
    facts, now = gpu.facts(), gpu.state()
    assert str(torch.cuda.get_device_properties(0).uuid) in facts["uuid"] or gpu.is_slice
    assert set(facts) - {"absent"} == set(Gpu(handle=None, whole=None, is_slice=False).facts()) - {"absent"}
    assert now.sm_clock_mhz is None or 0 < now.sm_clock_mhz < 10_000
