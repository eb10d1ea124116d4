"""The machine and the libraries a figure was measured with, gathered in the process that measures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lisabench

# What changes from one minute to the next: recorded, but no part of the identity of an environment.
VOLATILE = ("load_average", "memory_available_bytes")
# Variables that change how fast a CPU computes.
VARIABLES = (
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY",
    "LD_PRELOAD",
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "fvcore", "triton")


def environment(device: str) -> dict[str, Any]:
    """Machine, device, threads and libraries as JSON-ready values; what cannot be had is None."""
    found: dict[str, Any] = {
        "device": device,
        "device_name": _cpu_name(),
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "lisabench": lisabench.__version__,
        "git": _git(),
        "cpu": {
            "name": _cpu_name(),
            "logical_cores": os.cpu_count(),
            "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "mkl": torch.backends.mkl.is_available(),
            "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        },
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory_bytes": _memory("total"),
        "memory_available_bytes": _memory("available"),
    }
    if device.startswith("cuda"):
        found |= _gpu(device)
    return found


def environment_hash(found: dict[str, Any]) -> str:
    """A short content hash of what identifies the environment."""
    lasting = {name: value for name, value in found.items() if name not in VOLATILE}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:12]


def available_memory() -> int:
    """Bytes that can still be allocated on this machine: what the system has free, or what a container's limit leaves."""
    free = int(_memory("available") or 0)
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit and used and limit.isdigit():
        stated = dict(line.split() for line in (_read("/sys/fs/cgroup/memory.stat") or "").splitlines())
        free = min(free, int(limit) - int(used) + int(stated.get("inactive_file", 0)))  # file cache gives way
    return free


def _gpu(device: str) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.device(device))
    found: dict[str, Any] = {
        "device_name": properties.name,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "l2_bytes": properties.L2_cache_size,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        },
    }
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        found["driver"] = pynvml.nvmlSystemGetDriverVersion()
        found["gpu"]["power_limit_w"] = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3
        found["gpu"]["max_sm_clock_mhz"] = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    except Exception as error:  # NVML may be missing, forbidden or old: the figures above stand without it
        found["driver"] = None
        found["nvml"] = f"absent: {type(error).__name__}: {error}"
    return found


def _cpu_name() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory(which: str) -> int | None:
    import psutil

    return int(getattr(psutil.virtual_memory(), which))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of lisabench's own checkout and whether it was changed; None for an installed release."""
    top = Path(lisabench.__file__).resolve().parent.parent

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(top), *words], capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (top / ".git").exists():
        return None
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
