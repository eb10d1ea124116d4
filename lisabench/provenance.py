"""What differs between the environments of figures, and the refusal to put such figures side by side.

An environment is an entry of environment.json (see `lisabench.measure.environment`). What is compared here is what moves
a time by itself, with the code unchanged. Left out: the git commit and lisabench's version (comparing two of them is
what one measures for), the host's name, free memory and load (they change by the minute), patch releases of Python,
which of several equal GPUs it was, and libraries that no timed call runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lisabench.errors import InputError

Environment = Mapping[str, Any]
ALWAYS = (
    "device",
    "device_name",
    "machine",
    "system",
    "python",
    "libraries.torch",
    "cpu.governor",
    "cpu.boost",
    "settings.float32_matmul_precision",
    "settings.deterministic",
)
# The threads, cores and variables of the CPU are left out: one thread launches the kernels. How fast it does is the
# processor's doing, and all there is to the time of a small call: its name, governor and boost stay.
ON_GPU = (
    "cpu.name",
    "driver",
    "cuda",
    "cudnn",
    "cufft",
    "libraries.triton",
    "gpu.multiprocessors",
    "gpu.power_limit_w",
    "gpu.max_sm_clock_mhz",
    "gpu.application_sm_clock_mhz",
    "gpu.ecc",
    "gpu.mig",
    "gpu.mig_profile",
    "gpu.tf32",
    "gpu.variables",
    "settings.cudnn_tf32",
    "settings.reduced_precision_fp16",
    "settings.reduced_precision_bf16",
    "settings.cudnn_deterministic",
    "settings.cudnn_benchmark",
)
ON_CPU = ("cpu.threads", "cpu.affinity", "cpu.smt", "cpu.quota", "cpu.capability", "cpu.variables", "transparent_hugepages")
# What of an entry counts: equal GPUs have equal times whatever their index; which cores, but for their number, is chance.
COUNTS: dict[str, Callable[[Any], Any]] = {
    "device": lambda device: str(device).partition(":")[0],
    "system": lambda system: str(system).partition(" ")[0],
    "python": lambda version: ".".join(str(version).split(".")[:2]),
    "cpu.affinity": lambda cores: len(cores) if isinstance(cores, list) else cores,
}
# None is a value here: no limit. Elsewhere it is what could not be had.
UNLIMITED = ("cpu.quota",)
NOT_SET, NO_LIMIT = "not set", "no limit"
MOST_NAMED = 3


@dataclass(frozen=True)
class Difference:
    """An entry of environment.json (nested ones with a dot) and two values of it."""

    name: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.name} ({self.first!r} and {self.second!r})"


def what_matters(environment: Environment) -> dict[str, Any]:
    """The entries that move a time on this environment's device, by dotted name; those that it lacks are left out."""
    on_gpu = str(environment.get("device", "")).startswith("cuda") or "gpu" in environment
    found = {}
    for name in ALWAYS + (ON_GPU if on_gpu else ON_CPU):
        above, _, last = name.rpartition(".")
        entries = environment.get(above) if above else environment
        if not isinstance(entries, Mapping) or last not in entries:
            continue
        value = entries[last]
        if value is None and name in UNLIMITED:
            found[name] = NO_LIMIT
        elif value is not None:
            found[name] = COUNTS.get(name, lambda whole: whole)(value)
    return found


def device_kind(environment: Environment) -> str:
    """The device in words: 'NVIDIA H200', or 'AMD EPYC 7B13, 2 threads'. Devices of other words have series of their own."""
    name, threads = str(environment["device_name"]), environment.get("cpu", {}).get("threads")
    on_cpu = environment.get("device", "cpu") == "cpu"
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}" if on_cpu and threads is not None else name


def device_id(environment: Environment) -> str | None:
    """Which of the machine's devices it is: a GPU's UUID, or 'cores 0-3'; None where it is not told."""
    if environment.get("device", "cpu") != "cpu":
        uuid: str | None = (environment.get("gpu") or {}).get("uuid")
        return uuid
    cores = (environment.get("cpu") or {}).get("affinity")
    return cores_in_words(cores) if cores else None


def cores_in_words(cores: Iterable[int]) -> str:
    """'core 3', 'cores 0-3,8'."""
    spans: list[list[int]] = []
    for core in sorted(cores):
        if spans and core == spans[-1][-1] + 1:
            spans[-1][1:] = [core]
        else:
            spans.append([core])
    words = ",".join("-".join(map(str, span)) for span in spans)
    return f"core{'' if words.isdecimal() else 's'} {words}"


def fingerprint(environment: Environment) -> str:
    """A short hash of what matters: equal for environments whose times may stand side by side."""
    return hashlib.sha256(json.dumps(what_matters(environment), sort_keys=True).encode()).hexdigest()[:12]


def differences(first: Environment, second: Environment) -> list[Difference]:
    """In what that matters to times two environments differ; an entry that one of them lacks is no difference."""
    one, other = what_matters(first), what_matters(second)
    return [difference for name in one if name in other for difference in _apart(name, one[name], other[name])]


def mixed(environments: Mapping[str, Environment], used: Iterable[str | None]) -> list[Difference]:
    """In what the used ones of a run's environments (hash -> environment) differ, each entry once, with the first two values.

    Hashes that are not known say nothing: they make no difference.
    """
    known = [environments[key] for key in dict.fromkeys(used) if key is not None and key in environments]
    pairs = ((first, second) for place, second in enumerate(known) for first in known[:place])
    return once(difference for pair in pairs for difference in differences(*pair))


def once(found: Iterable[Difference]) -> list[Difference]:
    """The first difference of each name."""
    first: dict[str, Difference] = {}
    for difference in found:
        first.setdefault(difference.name, difference)
    return list(first.values())


def in_words(found: list[Difference]) -> str:
    """At most three differences with both values, and how many more there are."""
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(map(str, found[:MOST_NAMED])) + more


def refusal(subject: str, found: list[Difference], *, because: str, then: str) -> str:
    """One line: `subject` differ in what, why that is refused, and that --mix does it (`then`) all the same."""
    return f"{subject} differ in {in_words(found)}: {because}; --mix {then} all the same"


def check_same(environments: Mapping[str, Environment], new: Environment, *, run: object) -> None:
    """Whether figures of the environment `new` may join a run that holds those of `environments` (hash -> environment).

    Raises:
        InputError: they differ in what matters; it says in what, and offers a new run or --mix.
    """
    found = once(difference for environment in environments.values() for difference in differences(environment, new))
    if found:
        because = "their times do not belong in one run; start a new one with another --out"
        raise InputError(refusal(f"{str(run)!r} and this machine", found, because=because, then="goes on with it"))


def _apart(name: str, first: Any, second: Any) -> list[Difference]:
    """The entries of `name` that differ; a group of entries (environment variables) is told one by one."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
        return [Difference(f"{name}.{key}", first.get(key, NOT_SET), second.get(key, NOT_SET)) for key in names]
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        return []  # written by versions that state it in different depth
    return [Difference(name, first, second)] if first != second else []
