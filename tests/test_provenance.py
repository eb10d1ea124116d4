"""Which differences between two environments matter, and how they are told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lisabench.errors import InputError
from lisabench.provenance import Difference, check_same, differences, fingerprint, in_words, mixed, refusal

CPU: dict[str, Any] = {
    "device": "cpu",
    "device_name": "a CPU",
    "host": "here",
    "system": "Linux 6.1",
    "machine": "x86_64",
    "python": "3.11.7",
    "libraries": {"torch": "2.13.0+cpu", "numpy": "2.4.6"},
    "lisabench": "0.1.0",
    "git": {"commit": "a", "dirty": False},
    "cpu": {
        "name": "a CPU",
        "governor": "performance",
        "threads": 2,
        "affinity": [0, 1],
        "quota": None,
        "capability": "AVX512",
        "variables": {"OMP_WAIT_POLICY": "PASSIVE"},
    },
    "settings": {"float32_matmul_precision": "highest", "cudnn_benchmark": False},
    "transparent_hugepages": "madvise",
    "load_average": [0.1, 0.1, 0.1],
    "memory_available_bytes": 10**10,
}
GPU: dict[str, Any] = CPU | {
    "device": "cuda:0",
    "device_name": "a GPU",
    "driver": "570.1",
    "cuda": "13.0",
    "cudnn": 91300,
    "libraries": {"torch": "2.13.0", "triton": "3.7"},
    "gpu": {
        "multiprocessors": 132,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "ecc": True,
        "mig": False,
        "tf32": False,
        "variables": {},
    },
}


def changed(environment: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value of one entry; `...` takes it away."""
    found = copy.deepcopy(environment)
    *above, last = path.split(".")
    entries = found
    for name in above:
        entries = entries[name]
    if value is ...:
        del entries[last]
    else:
        entries[last] = value
    return found


@pytest.mark.parametrize(
    ("environment", "path", "value"),
    [
        (CPU, "device_name", "another CPU"),
        (CPU, "machine", "aarch64"),
        (CPU, "system", "Darwin 25"),
        (CPU, "python", "3.13.1"),
        (CPU, "libraries.torch", "2.12.0+cpu"),
        (CPU, "cpu.threads", 1),
        (CPU, "cpu.affinity", [0]),
        (CPU, "cpu.governor", "powersave"),
        (CPU, "cpu.quota", 1.5),
        (CPU, "cpu.capability", "AVX2"),
        (CPU, "settings.float32_matmul_precision", "medium"),
        (CPU, "transparent_hugepages", "always"),
        (GPU, "device_name", "another GPU"),
        (GPU, "driver", "550.9"),
        (GPU, "cuda", "12.6"),
        (GPU, "cudnn", 91000),
        (GPU, "cpu.name", "another CPU"),
        (GPU, "libraries.triton", "3.6"),
        (GPU, "gpu.power_limit_w", 500.0),
        (GPU, "gpu.max_sm_clock_mhz", 1755),
        (GPU, "gpu.ecc", False),
        (GPU, "gpu.mig", True),
        (GPU, "gpu.tf32", True),
        (GPU, "settings.cudnn_benchmark", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_moves_a_time_is_a_difference_both_ways(environment: dict[str, Any], path: str, value: Any) -> None:
    other = changed(environment, path, value)
    assert [difference.name for difference in differences(environment, other)] == [path]
    assert [difference.name for difference in differences(other, environment)] == [path]
    assert fingerprint(environment) != fingerprint(other)


@pytest.mark.parametrize(
    ("environment", "path", "value"),
    [
        (CPU, "git.commit", "b"),
        (CPU, "host", "there"),
        (CPU, "lisabench", "0.2.0"),
        (CPU, "system", "Linux 6.2"),
        (CPU, "python", "3.11.9"),
        (CPU, "libraries.numpy", "2.0.0"),
        (CPU, "load_average", [9.0, 9.0, 9.0]),
        (CPU, "memory_available_bytes", 1),
        (CPU, "cpu.affinity", [2, 3]),
        (CPU, "settings.cudnn_benchmark", True),
        (GPU, "transparent_hugepages", "always"),
        (GPU, "device", "cuda:1"),
        (GPU, "cpu.threads", 64),
        (GPU, "cpu.affinity", [0]),
        (GPU, "cpu.variables", {"OMP_NUM_THREADS": "1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_move_a_time_is_none(environment: dict[str, Any], path: str, value: Any) -> None:
    other = changed(environment, path, value)
    assert differences(environment, other) == []
    assert fingerprint(environment) == fingerprint(other)


@pytest.mark.parametrize("path", ["device_name", "machine", "libraries", "cpu", "gpu", "gpu.ecc", "cpu.governor", "driver"])
@pytest.mark.parametrize("value", [None, ...], ids=["null", "lacking"])
def test_what_one_side_lacks_is_no_difference(path: str, value: Any) -> None:
    other = changed(GPU, path, value)
    assert differences(GPU, other) == differences(other, GPU) == []


def test_an_older_run_that_states_an_entry_in_less_depth_is_no_difference() -> None:
    assert differences(GPU, changed(GPU, "gpu.tf32", {"matmul": False, "cudnn": True})) == []


def test_a_variable_that_is_not_set_is_a_value() -> None:
    other = changed(CPU, "cpu.variables", {"OMP_WAIT_POLICY": "PASSIVE", "LD_PRELOAD": "libjemalloc.so"})
    assert differences(CPU, other) == [Difference("cpu.variables.LD_PRELOAD", "not set", "libjemalloc.so")]
    assert differences(CPU, changed(CPU, "cpu.variables", ...)) == []
    blocking = changed(GPU, "gpu.variables", {"CUDA_LAUNCH_BLOCKING": "1"})
    assert differences(blocking, GPU) == [Difference("gpu.variables.CUDA_LAUNCH_BLOCKING", "1", "not set")]


def test_a_cpu_and_a_gpu_differ() -> None:
    assert {"device", "device_name"} <= {difference.name for difference in differences(CPU, GPU)}


def test_mixed_looks_at_used_environments_only_and_names_an_entry_once() -> None:
    others = {"a": CPU, "b": changed(CPU, "cpu.threads", 1), "c": changed(CPU, "cpu.threads", 4), "d": changed(CPU, "machine", "z")}
    assert mixed(others, ["a", "a", None, "unknown"]) == []
    assert mixed(others, ["a", "b", "c"]) == [Difference("cpu.threads", 2, 1)]
    assert [difference.name for difference in mixed(others, ["d", "b"])] == ["machine", "cpu.threads"]


def test_mixed_finds_a_difference_beside_an_environment_that_lacks_the_entry() -> None:
    others = {"a": changed(CPU, "cpu.threads", ...), "b": CPU, "c": changed(CPU, "cpu.threads", 1)}
    assert mixed(others, ["a", "b", "c"]) == [Difference("cpu.threads", 2, 1)]


def test_at_most_three_are_named() -> None:
    found = [Difference(name, 1, "x") for name in "abcde"]
    assert in_words(found) == "a (1 and 'x'), b (1 and 'x'), c (1 and 'x') and 2 more"
    assert in_words(found[:1]) == "a (1 and 'x')"
    line = refusal("the runs", found[:2], because="no use", then="does it")
    assert line == "the runs differ in a (1 and 'x'), b (1 and 'x'): no use; --mix does it all the same"


def test_check_same() -> None:
    check_same({}, CPU, run="RUN")
    check_same({"a": CPU}, changed(CPU, "git", None), run="RUN")
    with pytest.raises(InputError, match=r"'RUN' and this machine differ in cpu.threads \(2 and 8\).*another --out; --mix .* all the same"):
        check_same({"a": CPU, "b": CPU}, changed(CPU, "cpu.threads", 8), run="RUN")
