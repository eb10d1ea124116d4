"""The machine and the libraries a figure was measured with, gathered in the process that measures."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

import lisabench
from lisabench.measure.cgroup import allowed
from lisabench.measure.nvml import Gpu, NvmlError
from lisabench.measure.processor import container, cpu_name, processor, read

# What changes from one minute to the next, or from one call to the next: recorded, but no part of an environment's identity.
VOLATILE = ("command", "load_average", "memory_available_bytes", "cpu.clock_mhz", "gpu.state")
# Variables that change how fast a CPU computes, and how fast a GPU does, or which kernels are taken.
VARIABLES = (
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY",
    "LD_PRELOAD",
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
GPU_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_MODULE_LOADING",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "fvcore", "triton", "nvidia-ml-py")


def environment(device: str, *, command: list[str] | None = None) -> dict[str, Any]:
    """Machine, device, threads, settings and libraries as JSON-ready values; what cannot be had is None.

    `command`: the words of the command line that asked for the measurement.
    """
    bounds = allowed()
    found: dict[str, Any] = {
        "command": command,
        "device": device,
        "device_name": cpu_name(),
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "container": container(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "lisabench": lisabench.__version__,
        "git": _git(),
        "cpu": processor()
        | {
            "quota": bounds.cores,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "mkl": torch.backends.mkl.is_available(),
            "variables": _variables(VARIABLES),
        },
        "settings": _settings(),
        "load_average": _load_average(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": bounds.memory_bytes,
        "memory_available_bytes": available_memory(),
        "transparent_hugepages": _chosen(read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
    }
    if device.startswith("cuda"):
        found |= _gpu(device)
    return found


def environment_hash(found: dict[str, Any]) -> str:
    """A short content hash of what identifies the environment."""
    lasting = copy.deepcopy(found)
    for path in VOLATILE:
        *groups, name = path.split(".")
        level: Any = lasting
        for group in groups:
            level = level.get(group) or {}
        level.pop(name, None)
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:12]


def available_memory() -> int:
    """Bytes that can still be allocated: what the system has free, or what a container, a batch system or `ulimit -v` leaves."""
    left = [int(psutil.virtual_memory().available), allowed().memory_left_bytes, _address_space_left()]
    return min(size for size in left if size is not None)


def _address_space_left() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else max(0, limit - int(psutil.Process().memory_info().vms))


def _settings() -> dict[str, Any]:
    """torch's own switches that change speed or rounding; None where this version of torch does not tell."""
    backends: Any = torch.backends
    asked: dict[str, Callable[[], Any]] = {
        "float32_matmul_precision": torch.get_float32_matmul_precision,
        "cudnn_tf32": lambda: backends.cudnn.allow_tf32,
        "reduced_precision_fp16": lambda: backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "reduced_precision_bf16": lambda: backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "cudnn_deterministic": lambda: backends.cudnn.deterministic,
        "cudnn_benchmark": lambda: backends.cudnn.benchmark,
        "default_dtype": lambda: str(torch.get_default_dtype()).removeprefix("torch."),
    }
    return {name: _setting(ask) for name, ask in asked.items()}


def _setting(ask: Callable[[], Any]) -> Any:
    try:
        value = ask()
    except (AttributeError, RuntimeError):  # for one, torch tells no TF32 flags that were set in its old and its new way at once
        return None
    return value


def _variables(names: Iterable[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _load_average() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):  # Windows has none, and a system may not tell
        return None


def _gpu(device: str) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.device(device))
    try:
        gpu = Gpu.open(device)
        state = asdict(gpu.state())
        state["throttle"] = None if state["throttle"] is None else ", ".join(state["throttle"]) or "none"
        facts, above = gpu.facts() | {"state": state}, {}
    except NvmlError as error:  # NVML may be missing, forbidden or old: torch's own figures stand without it
        facts, above = {"absent": {"driver": str(error)}}, {"nvml": str(error)}
    above |= {name: facts.pop(name, None) for name in ("driver", "cuda_driver")}
    absent = {name if name in above else f"gpu.{name}": why for name, why in facts.pop("absent", {}).items()}
    return above | {
        "device_name": properties.name,
        "cuda": torch.version.cuda,
        "cudnn": _setting(torch.backends.cudnn.version),
        "cufft": _cufft(),
        "absent": absent,
        "gpu": {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "l2_bytes": properties.L2_cache_size,
            "tf32": _setting(lambda: torch.backends.cuda.matmul.allow_tf32),
            "variables": _variables(GPU_VARIABLES),
        }
        | facts,
    }


def _cufft() -> str | None:
    """The version of the cuFFT that was installed with torch; None where torch brings its own or takes the system's."""
    return next((found.version for found in metadata.distributions() if (found.metadata["Name"] or "").startswith("nvidia-cufft")), None)


def _chosen(text: str | None) -> str | None:
    """'always [madvise] never' -> 'madvise'."""
    return text.partition("[")[2].partition("]")[0] or None if text else None


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
    commit, changed = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}
