"""What the system tells of the CPU: its name and cores, how its clock is governed, who shares it.

Source: Linux, Documentation/admin-guide/pm (cpufreq, intel_pstate) and ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path("/")
# Where containers say what they are: a file of theirs, or a variable.
CONTAINER_FILES = {".dockerenv": "docker", "run/.containerenv": "podman", "singularity": "singularity", ".singularity.d": "apptainer"}
CONTAINER_VARIABLES = {
    "KUBERNETES_SERVICE_HOST": "kubernetes",
    "APPTAINER_CONTAINER": "apptainer",
    "SINGULARITY_CONTAINER": "singularity",
}


def processor(root: Path = ROOT) -> dict[str, Any]:
    """The CPU as JSON-ready values, None where the system does not tell; `root` holds proc and sys.

    `boost`: whether clocks may rise over the nominal one. `hypervisor`: whether this is a virtual machine.
    """
    blocks = _cpuinfo(root)
    cpus = root / "sys/devices/system/cpu"
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    governors = {read(cpus / f"cpu{core}/cpufreq/scaling_governor") for core in affinity or (0,)} - {None}
    smt = read(cpus / "smt/active")
    flags = next((block[name].split() for block in blocks for name in ("flags", "Features") if name in block), None)
    return {
        "name": cpu_name(root),
        "logical_cores": os.cpu_count(),
        "cores": psutil.cpu_count(logical=False),
        "sockets": len({block["physical id"] for block in blocks if "physical id" in block}) or None,
        "smt": None if smt is None else smt == "1",
        "affinity": affinity,
        "governor": ", ".join(sorted(str(name) for name in governors)) or None,
        "boost": _boost(cpus),
        "hypervisor": "hypervisor" in flags if flags and platform.machine() in ("x86_64", "AMD64", "i686") else None,
        "clock_mhz": _clock(blocks),
    }


def cpu_name(root: Path = ROOT) -> str:
    """The model's name; the architecture where nobody tells it."""
    for block in _cpuinfo(root):
        if "model name" in block:
            return block["model name"]
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def container(root: Path = ROOT, variables: Mapping[str, str] = os.environ) -> str | None:
    """What kind of container this runs in; None where nothing shows one."""
    named = variables.get("container") or read(root / "run/systemd/container")
    by_variable = next((kind for name, kind in CONTAINER_VARIABLES.items() if name in variables), None)
    return named or by_variable or next((kind for name, kind in CONTAINER_FILES.items() if (root / name).exists()), None)


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """/proc/cpuinfo, a mapping for each logical core; empty where there is none."""
    blocks = (read(root / "proc/cpuinfo") or "").split("\n\n")
    return [{name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())} for block in blocks]


def _boost(cpus: Path) -> bool | None:
    if (no_turbo := read(cpus / "intel_pstate/no_turbo")) is not None:
        return no_turbo == "0"
    boost = read(cpus / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _clock(blocks: list[dict[str, str]]) -> int | None:
    """The mean clock of the cores now, in MHz."""
    try:
        clocks = [float(block["cpu MHz"]) for block in blocks if "cpu MHz" in block]
    except ValueError:
        return None
    return round(sum(clocks) / len(clocks)) if clocks else None


def _sysctl(name: str) -> str | None:
    """A fact of macOS."""
    if platform.system() != "Darwin":
        return None
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def read(path: Path) -> str | None:
    """A small file of the system, None where it is not or must not be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
