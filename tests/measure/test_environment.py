"""Provenance: complete here, and a value or None on machines that tell less; limits of groups at every level."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lisabench.measure import environment as module
from lisabench.measure.cgroup import Allowed, allowed
from lisabench.measure.environment import available_memory, environment, environment_hash
from lisabench.measure.nvml import NvmlError
from lisabench.measure.processor import container, processor

GROUPS = {
    2: ("0::/{}\n", "cgroup2 cgroup2 rw"),
    1: ("9:name=systemd:/x\n4:memory:/{0}\n3:cpu,cpuacct:/{0}\n0::/x\n", "cgroup cgroup rw,{}"),
}


def groups(tmp_path: Path, version: int, group: str, *, root: str = "/") -> tuple[Path, Path, Path]:
    """A process's folder in /proc and the mount points of its memory and cpu groups, as the kernel shows them."""
    own = tmp_path / "own"
    own.mkdir(exist_ok=True)
    stated, kind = GROUPS[version]
    (own / "cgroup").write_text(stated.format(group))
    mounts = [tmp_path / "unified"] * 2 if version == 2 else [tmp_path / "mem ory", tmp_path / "cpu"]
    lines = [
        f"{40 + n} 31 0:3{n} {root} {str(mount).replace(' ', chr(92) + '040')} rw,relatime shared:9 - {kind.format(name)}"
        for n, (mount, name) in enumerate(zip(mounts, ("memory", "cpu,cpuacct"), strict=True))
    ]
    (own / "mountinfo").write_text("\n".join(["25 1 8:1 / / rw - ext4 /dev/sda1 rw", *lines]))
    return own, mounts[0], mounts[1]


def write(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_version_2_takes_the_smallest_of_all_levels(tmp_path: Path) -> None:
    own, memory, _ = groups(tmp_path, 2, "job/step")
    write(memory / "job/step", memory__max="max", memory__current="500", cpu__max="max 100000")
    write(memory / "job", memory__max="4000", memory__current="1500", memory__stat="anon 5\ninactive_file 200", cpu__max="150000 100000")
    write(memory, memory__max="8000", memory__current="6000", cpu__max="400000 100000")
    assert allowed(own) == Allowed(cores=1.5, memory_bytes=4000, memory_left_bytes=2000)


def test_version_1_has_a_hierarchy_for_each(tmp_path: Path) -> None:
    own, memory, cpu = groups(tmp_path, 1, "slurm/uid_1/job_7")
    none = str(2**63 - 4096)
    write(memory / "slurm/uid_1/job_7", memory__limit_in_bytes=none, memory__usage_in_bytes="10")
    write(
        memory / "slurm/uid_1",
        memory__limit_in_bytes="3000",
        memory__usage_in_bytes="1000",
        memory__stat="inactive_file 1\ntotal_inactive_file 50",
    )
    write(cpu / "slurm/uid_1/job_7", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(cpu / "slurm", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert allowed(own) == Allowed(cores=0.5, memory_bytes=3000, memory_left_bytes=2050)


@pytest.mark.parametrize(
    ("root", "group"),
    [("/", ""), ("/docker/abc", "docker/abc"), ("/", "../other"), ("/docker/abc", ""), ("/../..", "")],
    ids=["own-namespace", "hosts-path", "outside", "root-hidden", "root-above"],
)
def test_a_container_sees_its_own_limit_at_the_mount(tmp_path: Path, root: str, group: str) -> None:
    own, memory, _ = groups(tmp_path, 2, group, root=root)
    write(memory, memory__max="4000", memory__current="5000", cpu__max="200000 100000")
    assert allowed(own) == Allowed(cores=2.0, memory_bytes=4000, memory_left_bytes=0)


@pytest.mark.parametrize("files", [{}, {"cgroup": ""}, {"cgroup": "0::/\n", "mountinfo": ""}, {"cgroup": "nonsense\n", "mountinfo": "5 -"}])
def test_no_groups_no_limits(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert allowed(tmp_path) == Allowed(cores=None, memory_bytes=None, memory_left_bytes=None)


def test_available_memory_is_the_smallest_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_memory()
    assert free > 0
    monkeypatch.setattr(module, "allowed", lambda: Allowed(cores=None, memory_bytes=9000, memory_left_bytes=7000))
    assert available_memory() == 7000
    monkeypatch.setattr(module, "allowed", lambda: Allowed(cores=None, memory_bytes=2**60, memory_left_bytes=2**60))
    assert available_memory() < 2**60


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_available_memory_knows_ulimit(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    import psutil

    bound = psutil.Process().memory_info().vms + 2**20
    monkeypatch.setattr(resource, "getrlimit", lambda which: (bound, bound) if which == resource.RLIMIT_AS else (-1, -1))
    assert 0 <= available_memory() <= 2**20


INTEL = """processor\t: {}
model name\t: Intel(R) Xeon(R) Gold 6338
cpu MHz\t\t: {}
physical id\t: {}
flags\t\t: fpu vme {}
"""


def machine(root: Path, *, flag: str = "", cores: int = 2, **files: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("\n".join(INTEL.format(n, 2000 + 100 * n, n % 2, flag) for n in range(cores)))
    for name, text in files.items():
        path = root / "sys/devices/system/cpu" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_a_bare_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = processor(
        machine(
            tmp_path,
            cpu0__cpufreq__scaling_governor="powersave",
            cpu1__cpufreq__scaling_governor="performance",
            cpu2__cpufreq__scaling_governor="userspace",
            intel_pstate__no_turbo="1",
            smt__active="1",
        )
    )
    told = {name: found[name] for name in ("name", "sockets", "smt", "affinity", "governor", "boost", "hypervisor", "clock_mhz")}
    assert told == {
        "name": "Intel(R) Xeon(R) Gold 6338",
        "sockets": 2,
        "smt": True,
        "affinity": [0, 1],
        "governor": "performance, powersave",
        "boost": False,
        "hypervisor": False,
        "clock_mhz": 2050,
    }


def test_a_virtual_machine_of_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = processor(machine(tmp_path, flag="hypervisor", cores=1, cpufreq__boost="1"))
    assert (found["hypervisor"], found["sockets"], found["boost"], found["governor"]) == (True, 1, True, None)


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = processor(tmp_path)
    assert found["name"] == "arm64"
    assert {name for name, value in found.items() if value is not None} <= {"name", "logical_cores", "cores"}


def test_containers_show_themselves(tmp_path: Path) -> None:
    assert container(tmp_path, {}) is None
    assert container(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"
    (tmp_path / ".dockerenv").touch()
    assert container(tmp_path, {}) == "docker"
    assert container(tmp_path, {"container": "podman"}) == "podman"


LASTING = """device device_name host system machine container python libraries.torch lisabench git cpu.name cpu.logical_cores cpu.cores
 cpu.sockets cpu.smt cpu.affinity cpu.governor cpu.boost cpu.hypervisor cpu.quota cpu.threads cpu.interop_threads cpu.capability
 cpu.mkl cpu.variables settings.float32_matmul_precision settings.cudnn_tf32 settings.deterministic
 memory_bytes memory_limit_bytes transparent_hugepages"""


def at(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found[name]
    return found


def test_an_environment_is_whole_and_json() -> None:
    found = environment("cpu", command=["lisabench", "scale"])
    assert json.loads(json.dumps(found)) == found
    for path in [*LASTING.split(), "cpu.clock_mhz", "load_average", "memory_available_bytes"]:
        at(found, path)
    assert found["command"] == ["lisabench", "scale"]
    assert found["cpu"]["threads"] == torch.get_num_threads()
    assert found["memory_available_bytes"] <= found["memory_bytes"]
    assert found["settings"]["float32_matmul_precision"] == torch.get_float32_matmul_precision()


def test_the_hash_holds_still_over_what_changes_by_the_minute() -> None:
    found = environment("cpu")
    changed = copy.deepcopy(found) | {"command": ["x"], "load_average": [9.0], "memory_available_bytes": 1}
    changed["cpu"]["clock_mhz"] = 1
    changed["gpu"] = {"state": {"temperature_c": 80}}
    assert environment_hash(changed) == environment_hash(found | {"gpu": {"state": None}})
    assert changed["cpu"]["clock_mhz"] == 1
    assert environment_hash(found | {"device_name": "another"}) != environment_hash(found)
    assert environment_hash(found | {"cpu": found["cpu"] | {"threads": 99}}) != environment_hash(found)
    assert environment_hash({"device": "cpu"}) != environment_hash({"device": "cuda:0"})


PROPERTIES = SimpleNamespace(
    name="NVIDIA H100", total_memory=8, multi_processor_count=132, major=9, minor=0, L2_cache_size=50, uuid="5d3dc0ed-0001"
)


class Answers:
    """NVML of a machine that tells its driver and its clock, and nothing else."""

    @classmethod
    def open(cls, device: str) -> Answers:
        return cls()

    def facts(self) -> dict[str, Any]:
        return {"driver": "570.1", "cuda_driver": "12.8", "power_limit_w": 700.0, "ecc": None, "absent": {"ecc": "not supported"}}

    def state(self) -> Any:
        from lisabench.measure.nvml import GpuState

        return GpuState(sm_clock_mhz=1980, throttle=())


class Refuses:
    @classmethod
    def open(cls, device: str) -> Any:
        raise NvmlError("NVIDIA's driver is not loaded; check it by nvidia-smi")


@pytest.mark.parametrize("nvml", [Answers, Refuses], ids=["nvml", "no-nvml"])
def test_a_gpu_with_and_without_nvml(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)
    monkeypatch.setattr(module, "Gpu", nvml)
    found = environment("cuda:0")
    json.dumps(found)
    assert found["device_name"] == found["gpu"]["name"] == "NVIDIA H100"
    for path in ("cuda", "cudnn", "cufft", "driver", "cuda_driver", "absent", "gpu.capability", "gpu.tf32", "gpu.variables"):
        at(found, path)
    if nvml is Answers:
        assert (found["driver"], found["gpu"]["power_limit_w"]) == ("570.1", 700.0)
        assert "nvml" not in found
        assert (found["gpu"]["state"]["sm_clock_mhz"], found["gpu"]["state"]["throttle"]) == (1980, "none")
        assert found["absent"] == {"gpu.ecc": "not supported"}
    else:
        assert found["driver"] is None
        assert found["nvml"] == found["absent"]["driver"] == "NVIDIA's driver is not loaded; check it by nvidia-smi"


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "LD_PRELOAD"])
def test_variables_are_told_where_they_are_set(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    assert variable not in environment("cpu")["cpu"]["variables"]
    monkeypatch.setenv(variable, "")
    assert environment("cpu")["cpu"]["variables"][variable] == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_machines_gpu_environment() -> None:
    found = environment("cuda:0")
    json.dumps(found)
    assert found["driver"] or found["nvml"]
