"""Cells on a GPU through the real worker: every operator, what fails, and the program from end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import measure

from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.measure.latency import KEPT_SAMPLES, MINIMUM_SAMPLES
from lisabench.measure.numerics import TOLERANCES
from lisabench.measure.samplers import GPU_KINDS
from lisabench.run.local import Worker
from lisabench.sweep import Cell

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICE = "cuda:0"
COMBINED = [("fp32", "forward", "mixing"), ("bf16", "train", "layer")]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(device=DEVICE, threads=None) as found:
        yield found


def cell(op: str, options: dict[str, Any] | None = None, **workload: Any) -> Cell:
    workload = {"grid": Grid(20, 21), "dim": 64, "heads": 2, "device": DEVICE} | workload
    return Cell(op=op, options=registry.load(op).resolve(options or {}), workload=Workload(**workload))


def own(folder: Path, body: str) -> str:
    """An operator of a user's whose mix is `body`."""
    path = folder / "own.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Own(nn.Module):\n"
        f"    def __init__(self, dim, num_heads, grid):\n        super().__init__()\n\n    def mix(self, x):\n        {body}\n"
    )
    return f"{path}:Own"


def test_the_environment_names_gpu_driver_and_settings(worker: Worker) -> None:
    worker.ready()
    found = worker.environment
    assert found["device_name"] == found["gpu"]["name"] == torch.cuda.get_device_name(DEVICE)
    assert found["cuda"] == torch.version.cuda
    assert found["gpu"]["tf32"] is False
    assert found["gpu"]["l2_bytes"] == torch.cuda.get_device_properties(DEVICE).L2_cache_size
    assert found["driver"] or found["nvml"] or "driver" in found["absent"]


@pytest.mark.parametrize(("dtype", "mode", "scope"), COMBINED, ids=["-".join(one) for one in COMBINED])
@pytest.mark.parametrize("op", registry.built_in())
def test_every_operator_is_measured(worker: Worker, op: str, dtype: str, mode: str, scope: str) -> None:
    found = measure(worker, cell(op, dtype=dtype, mode=mode, scope=scope, batch=2))
    if found["status"] == "unsupported":
        pytest.skip(found["reason"])
    assert found["status"] == "ok", found
    latency, bytes_of, absent = found["latency_s"], found["memory_bytes"], found["absent"]
    assert latency["kind"] == "cold"
    assert latency["count"] >= MINIMUM_SAMPLES
    assert len(latency["samples"]) == min(latency["count"], KEPT_SAMPLES)
    assert 0 < latency["ci_low"] <= latency["median"] <= latency["ci_high"]
    assert found["relative_error"] is None or found["relative_error"] <= TOLERANCES[dtype]
    assert set(found["latency_kinds_s"]) == set(GPU_KINDS)
    for kind, figures in found["latency_kinds_s"].items():
        assert figures is None or 0 < figures["ci_low"] <= figures["median"] <= figures["ci_high"]
        assert (figures is None) is (f"latency_kinds_s.{kind}" in absent)
    for kind in ("host", "warm", "graph"):
        assert found["latency_kinds_s"][kind] is not None, absent
    assert bytes_of["transient"] > 0 or op == "identity"
    assert bytes_of["reserved"] >= bytes_of["transient"]
    for name in ("saved", "reserved", "cufft_plans", "process"):
        assert (bytes_of[name] is None) is (f"memory_bytes.{name}" in absent)
    assert bytes_of["cufft_plans"] is None or (bytes_of["cufft_plans"] == 0) or found["dispatch"]["fft_dtype"]
    assert found["flops"]["coverage"] is None or found["flops"]["coverage"] == pytest.approx(1, abs=0.05)
    assert (found["energy_j"] is None) is ("energy_j" in absent)
    assert found["conditions"]["sentinel_drift"] >= 0


@pytest.mark.parametrize(
    ("dtype", "kernels"), [("bf16", {"flash", "cudnn"}), ("fp16", {"flash", "cudnn"}), ("fp32", {"efficient"}), ("fp64", {"math"})]
)
def test_the_attention_kernel_is_named(worker: Worker, dtype: str, kernels: set[str]) -> None:
    """Which of flash and cuDNN torch prefers in half precision depends on the GPU and on cuDNN's version."""
    found = measure(worker, cell("softmax", dtype=dtype, dim=128))
    assert found["status"] == "ok", found
    assert found["dispatch"]["attention"] in kernels
    assert found["backend"] == found["dispatch"]["attention"] or (dtype, found["backend"]) == ("fp64", None)


def test_lisa_takes_its_ffts_and_they_are_float32(worker: Worker) -> None:
    found = measure(worker, cell("lisa", grid=Grid(32, 40), dtype="bf16"))
    assert found["status"] == "ok", found
    assert found["backend"] == "fft"
    assert found["dispatch"]["fft_dtype"] == "float32"


@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="torch.compile needs a C compiler")
@pytest.mark.parametrize("op", ["softmax", "lisa"])
def test_what_is_compiled_is_measured(worker: Worker, op: str) -> None:
    found = measure(worker, cell(op, compiled=True, grid=Grid(24, 24)), timeout=300)
    assert found["status"] == "ok", found
    assert found["dispatch"]["compile"]["graphs"] >= 1


def test_out_of_memory_is_a_record_and_the_next_cell_works(worker: Worker) -> None:
    whole = torch.cuda.get_device_properties(DEVICE).total_memory
    side = int((whole / 4) ** 0.25) + 64  # (side^2)^2 numbers of 4 bytes are more than there is
    worker.ready()
    process = worker._process
    found = measure(worker, cell("softmax_dense", grid=Grid(side, side), dim=8, heads=1))
    assert found["status"] == "oom", found
    assert "\n" not in found["reason"]
    assert measure(worker, cell("linear"))["status"] == "ok"
    assert worker._process is process, "memory that is out is no reason for a new process"


def test_a_cuda_error_is_a_record_and_the_worker_is_replaced(tmp_path: Path) -> None:
    op = own(tmp_path, "return x[:, torch.full((x.shape[1],), 10**6, device=x.device)]")
    with Worker(device=DEVICE, threads=None) as worker:
        worker.ready()
        assert worker._process is not None
        first = worker._process.pid
        found = measure(worker, cell(op))
        assert found["status"] in ("error", "crash"), found
        assert "CUDA" in found["reason"] or found["status"] == "crash"
        assert measure(worker, cell("linear"))["status"] == "ok"
        assert worker._process is not None
        assert worker._process.pid != first


def test_what_cannot_be_captured_is_measured_and_the_next_cell_too(worker: Worker, tmp_path: Path) -> None:
    found = measure(worker, cell(own(tmp_path, "return x * float(x.abs().max().item() > 0)")))
    assert found["status"] == "ok", found
    assert found["latency_kinds_s"]["graph"] is None
    assert "captured" in found["absent"]["latency_kinds_s.graph"]
    after = measure(worker, cell("linear"))
    assert after["status"] == "ok", after
    assert after["latency_kinds_s"]["graph"] is not None


def test_a_sweep_from_end_to_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--op", "lisa", "--tokens", "256,1024", "--dtype", "fp32,bf16", "--device", "cuda", "--cell-seconds", "0.1", "--out", str(run)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lisabench", "scale", *words], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert len(records) == 8
    environments = json.loads((run / "environment.json").read_text())
    for record in records:
        assert record["status"] == "ok", record
        assert record["device"] == DEVICE
        assert record["latency_s"]["kind"] == "cold"
        assert record["op"] == "softmax" or record["ratio"]["baseline"] == "softmax"
        assert record["roofline"] is not None or record["absent"]["roofline"]
    environment = environments[records[0]["environment"]]
    assert environment["gpu"]["name"] == torch.cuda.get_device_name(DEVICE)
    assert environment["peaks"]["bytes_per_s"] > 0
    assert environment["nvml"] or (environment["driver"] and environment["gpu"]["max_sm_clock_mhz"])
    assert list((run / "figures").iterdir())
    assert (run / "results.csv").is_file()


def test_training_reaches_an_accuracy(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--op", "lisa", "--seeds", "1", "--epochs", "2", "--device", "cuda", "--out", str(run)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lisabench", "train-small", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert {record["op"]: record["status"] for record in records} == {"lisa": "ok", "softmax": "ok"}, records
    assert all(record["top1"] > 0.5 for record in records if record["op"] == "lisa"), "a tenth is chance"
