"""The worker process: real ones, really crashed, hung and orphaned."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import measure

from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.measure.latency import KEPT_SAMPLES, MINIMUM_SAMPLES
from lisabench.run.local import Worker
from lisabench.sweep import Cell


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(device="cpu", threads=1) as found:
        yield found


WITHOUT_PARAMETERS = ("fnet", "identity", "pool")


def cell(op: str, **workload: Any) -> Cell:
    workload = {"grid": Grid(4, 4), "dim": 32, "heads": 2} | workload
    return Cell(op=op, options=registry.load(op).resolve({}), workload=Workload(**workload))


@pytest.mark.parametrize(("mode", "scope"), [("forward", "mixing"), ("train", "layer")])
@pytest.mark.parametrize("op", registry.built_in())
def test_every_operator_is_measured(worker: Worker, op: str, mode: str, scope: str) -> None:
    found = measure(worker, cell(op, mode=mode, scope=scope, batch=2))
    assert found["status"] == "ok", found
    latency, memory, flops = found["latency_s"], found["memory_bytes"], found["flops"]
    assert 0 < latency["ci_low"] <= latency["median"] <= latency["ci_high"]
    assert latency["count"] >= MINIMUM_SAMPLES
    assert len(latency["samples"]) == min(latency["count"], KEPT_SAMPLES)
    assert latency["kind"] == "warm"
    assert memory["peak"] == memory["inputs"] + memory["parameters"] + memory["kept"] + memory["transient"]
    assert memory["process"] > memory["peak"]
    assert memory["parameters"] > 0 or scope == "mixing" or op in WITHOUT_PARAMETERS
    assert (memory["saved"] is None) is (mode == "forward") is ("memory_bytes.saved" in found["absent"])
    assert (flops["fvcore"] is None) is (mode == "train") is ("flops.fvcore" in found["absent"])
    assert found["relative_error"] < 1e-5
    assert flops["coverage"] == (pytest.approx(1, abs=0.01) if flops["analytic"] else None)


def test_the_kernel_that_ran_is_recorded(worker: Worker) -> None:
    assert measure(worker, cell("softmax"))["backend"] == "flash"
    assert measure(worker, cell("softmax", dtype="fp64"))["backend"] == "flash"
    for engine in ("dense", "mixed", "fft"):
        for mode in ("forward", "train"):
            asked = cell("lisa", grid=Grid(8, 8), mode=mode)
            assert measure(worker, replace(asked, options=asked.options | {"engine": engine}))["backend"] == engine
    assert measure(worker, cell("linear"))["backend"] is None
    assert {measure(worker, cell(op))["backend"] for op in ("softmax_rpe", "linformer", "sra")} == {"flash"}
    assert measure(worker, cell("softmax_rpe", mode="train"))["backend"] == "math"


@pytest.mark.parametrize(
    ("dtype", "ops"),
    [
        ("bf16", registry.built_in()),
        *((dtype, ("softmax", "lisa", "linear", "nystrom", "afno", "depthwise")) for dtype in ("fp16", "fp64")),
    ],
    ids=["bf16", "fp16", "fp64"],
)
def test_dtypes(worker: Worker, dtype: str, ops: Sequence[str]) -> None:
    """All in one half precision; that they keep every dtype is a law."""
    for op in ops:
        found = measure(worker, cell(op, dtype=dtype))
        assert found["status"] == "ok", (op, found)
        assert (found["relative_error"] < 1e-10) is (dtype == "fp64" or op == "identity")


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("Raises", "error", "RuntimeError: no such luck"),
        ("NotANumber", "wrong", "not finite"),
        ("Narrow", "error", "gave shape"),
        ("Needy", "error", "requires"),
        ("ChangesItsInput", "error", "changes its input"),
        ("Widens", "error", "keeps the dtype"),
    ],
)
def test_operators_that_fail_are_told_in_one_line(worker: Worker, own_operators: Path, name: str, status: str, words: str) -> None:
    of = Cell(op=f"{own_operators}:{name}", options={}, workload=Workload(grid=Grid(4, 4), dim=32, heads=2))
    found = measure(worker, of)
    assert found["status"] == status
    assert words in found["reason"]
    assert "\n" not in found["reason"]


def test_out_of_memory_is_a_record(worker: Worker, own_operators: Path) -> None:
    of = Cell(op=f"{own_operators}:OutOfMemory", options={}, workload=Workload(grid=Grid(5, 5), dim=32, heads=2))
    assert measure(worker, of)["status"] == "oom"
    # Predicted from the analytic bytes, before a single one is allocated: 2^42 bytes of weights.
    found = measure(worker, cell("softmax_dense", grid=Grid(1024, 1024)))
    assert found["status"] == "oom"
    assert "predicted to need" in found["reason"]


def test_a_wrong_result_gets_no_latency(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "from dataclasses import replace\nfrom lisabench.registry import load\nBase = load('softmax').module\n\n\n"
        "class Wrong(Base):\n    def mix(self, query, key, value):\n        return super().mix(query, key, value) * 1.001\n\n\n"
        "OPERATOR = replace(load('softmax'), module=Wrong)\n"
    )
    of = Cell(op=f"{path}:Wrong", options={"key_dim": None}, workload=Workload(grid=Grid(4, 4), dim=32, heads=2))
    found = measure(worker, of)
    assert found["status"] == "wrong"
    assert "1.0e-03" in found["reason"]
    assert "latency_s" not in found


def test_a_bare_module_has_no_check_and_says_so(worker: Worker, own_operators: Path) -> None:
    of = Cell(op=f"{own_operators}:Plain", options={"scale": 2.0}, workload=Workload(grid=Grid(4, 4), dim=32, heads=2))
    found = measure(worker, of)
    assert found["status"] == "ok"
    assert found["relative_error"] is None
    assert "reference" in found["absent"]["relative_error"]
    assert found["flops"]["torch"] == 2 * 16 * 32 * 32


@pytest.mark.parametrize("scope", ["mixing", "layer"])
@pytest.mark.parametrize("name", ["OnlyMix", "Odd"])
def test_unusual_modules_are_measured(worker: Worker, own_operators: Path, name: str, scope: str) -> None:
    op = f"{own_operators}:{name}"
    assert set(registry.load(op).options) == ({"depth"} if name == "Odd" else set())
    options = registry.load(op).resolve({})
    found = measure(worker, Cell(op=op, options=options, workload=Workload(grid=Grid(4, 4), dim=32, heads=2, scope=scope)))
    assert found["status"] == "ok", found


def test_crash_and_hang_end_the_process_and_the_next_cell_gets_a_new_one(own_operators: Path) -> None:
    shape = Workload(grid=Grid(4, 4), dim=32, heads=2)
    with Worker(device="cpu", threads=1) as worker:
        worker.ready()
        first = worker._process.pid  # type: ignore[union-attr]
        died = measure(worker, Cell(op=f"{own_operators}:Dies", options={"scale": 1.0}, workload=shape))
        assert died["status"] == "crash"
        assert "SIGSEGV" in died["reason"]
        assert "last words" in died["reason"]
        hung = measure(worker, Cell(op=f"{own_operators}:Sleeps", options={"scale": 1.0}, workload=shape), timeout=10)
        assert hung["status"] == "timeout"
        assert measure(worker, cell("linear"))["status"] == "ok"
        assert worker._process.pid != first  # type: ignore[union-attr]
        last = worker._process.pid  # type: ignore[union-attr]
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(last)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "measuring"])
def test_the_worker_is_gone_when_its_parent_was_killed(own_operators: Path, busy: bool) -> None:
    code = (
        "import sys\nfrom lisabench.run.local import Worker\nfrom lisabench.sweep import Cell\nfrom lisabench.contract import Grid, Workload\n"
        "worker = Worker(device='cpu', threads=1)\nworker.ready()\nprint(worker._process.pid, flush=True)\n"
        f"cell = Cell(op='{own_operators}:Sleeps', options={{'scale': 1.0}}, workload=Workload(grid=Grid(4, 4), dim=32, heads=2))\n"
        + (
            "worker.request('open', cell, limits={}, seed=0, timeout=3600, progress=lambda *_: print('going', flush=True))\n"
            if busy
            else "input()\n"
        )
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if busy:
        assert parent.stdout.readline() == "going\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    parent.communicate()


def test_settings_reach_the_worker_before_torch_does() -> None:
    with Worker(device="cpu", threads=1) as worker:
        worker.ready()
        assert worker.environment["cpu"]["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"
        assert worker.environment["cpu"]["threads"] == 1
        peaks = worker.peaks(["fp32"])
        assert peaks["flops_per_s_fp32"] > 1e8
        assert peaks["bytes_per_s"] > 1e8


@pytest.mark.slow
def test_compiled_operators_are_checked_and_timed() -> None:
    """In training too: torch's compiled backward of LiSA's windows once wrote out of bounds."""
    with Worker(device="cpu", threads=1) as worker:
        for engine in ("dense", "fft"):
            options = registry.load("lisa").resolve({"engine": engine})
            shape = Workload(grid=Grid(6, 6), dim=32, heads=2, compiled=True, mode="train")
            found = measure(worker, Cell(op="lisa", options=options, workload=shape), timeout=240)
            assert found["status"] == "ok", found
            assert found["relative_error"] < 1e-5
