"""`lisabench env`: in groups on any width, one JSON object, and peaks that are kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import only_error

from lisabench.cli.env import layout

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = ("env", "--device", "cpu")

FOUND: dict[str, Any] = {
    "device": "cuda:0",
    "device_name": "NVIDIA H200",
    "driver": None,
    "gpu": {"power_limit_w": 700.0, "max_sm_clock_mhz": 1980, "memory_bytes": 2**37, "tf32": False, "ecc": None},
    "cpu": {"affinity": [0, 1, 2, 3, 8], "governor": None, "variables": {"MALLOC_TRIM_THRESHOLD_": "1099511627776"}},
    "load_average": [0.25, 1.0, 2.0],
    "memory_bytes": 2**34,
    "memory_limit_bytes": None,
    "settings": {"cudnn_benchmark": False},
    "libraries": {"torch": "2.13.0"},
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
    "absent": {"driver": "NVML is not there: the driver's library cannot be found by this process", "peaks.flops_per_s_tf32": "none of it"},
    "peaks": {"flops_per_s_fp32": 5.1e13, "flops_per_s_tf32": None, "bytes_per_s": 4.2e12},
}


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = list(layout(FOUND, width=width))
    assert max(map(len, lines)) <= width
    assert [line for line in lines if not line.startswith(" ")] == ["device", "cpu", "memory", "settings", "libraries", "code", "peaks"]
    words = " ".join(" ".join(lines).split())
    assert "NVML is not there: the driver's library cannot be found by this process" in words
    assert "MALLOC_TRIM_THRESHOLD_ 1099511627776" in words


def test_in_a_pipe_an_entry_is_a_line() -> None:
    lines = {" ".join(line.split()) for line in layout(FOUND, width=None)}
    assert lines >= {
        "name NVIDIA H200",
        "driver absent: NVML is not there: the driver's library cannot be found by this process",
        "power limit 700 W",
        "max sm clock 1,980 MHz",
        "memory 128 GiB",
        "tf32 no",
        "ecc absent",
        "affinity 0-3, 8",
        "load average 0.25 1.00 2.00",
        "total 16.0 GiB",
        "limit none",
        "cudnn benchmark no",
        "git commit 0123456789ab, with changes since",
        "fp32 product 51.0 TFLOP/s",
        "tf32 product absent: none of it",
        "copy 4.20 TB/s, read and written",
    }


def test_a_reason_without_an_entry_is_shown_too() -> None:
    lines = list(layout({"device": "cpu", "absent": {"gpu.energy": "no counter"}}, width=None))
    assert any("energy" in line and "no counter" in line for line in lines)


@pytest.mark.slow
def test_peaks_are_measured_kept_and_shown_again(lisabench: Run, tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    before = json.loads(lisabench(*CPU, "--json", "--no-peaks", **cache).stdout)
    assert set(before["peaks"].values()) == {None}
    assert before["absent"]["peaks.bytes_per_s"] == "not measured (--no-peaks)"
    assert not (tmp_path / "cache").exists()
    done = lisabench(*CPU, **cache)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("fp64", "fp32", "bf16"):
        assert f"{name} product" in done.stdout
    assert "tf32 product  absent: a format of GPUs" in done.stdout
    after = json.loads(lisabench(*CPU, "--json", "--no-peaks", **cache).stdout)
    assert after["peaks"]["flops_per_s_fp32"] > 0
    assert after["peaks"]["bytes_per_s"] > 0
    assert after["peaks"]["flops_per_s_tf32"] is None
    assert after["absent"]["peaks.flops_per_s_tf32"]
    one = json.loads(lisabench(*CPU, "--json", "--no-peaks", "--threads", "1", **cache).stdout)
    two = json.loads(lisabench(*CPU, "--json", "--no-peaks", "--threads", "2", **cache).stdout)
    assert (one["cpu"]["threads"], two["cpu"]["threads"]) == (1, 2)
    assert one["hash"] != two["hash"]  # the default is either, by the cores that the machine leaves us


def test_a_cache_that_cannot_be_written_or_read_is_no_error(lisabench: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "lisabench"
    folder.mkdir(parents=True)
    (folder / "peaks.json").write_text("{ damaged")
    done = lisabench(*CPU, "--no-peaks", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "absent: not measured (--no-peaks)" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--threads", "0"], 2, "--threads got 0"),
        (["--device", "abacus"], 2, "--device got 'abacus'"),
        (["--device", "cuda:99"], 3, "cuda:99 is not there"),
    ],
)
def test_env_refuses(args: list[str], code: int, words: str, lisabench: Run) -> None:
    done = lisabench("env", *args)
    assert done.returncode == code
    assert words in only_error(done)
