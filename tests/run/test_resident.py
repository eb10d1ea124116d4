"""The operating system's count of memory against known sizes and against the profiler's, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.measure.memory import trace_call
from lisabench.measure.resident import peak_resident
from lisabench.run.cell import build
from lisabench.run.resident import ENVIRONMENT, transient_resident
from lisabench.sweep import Cell

MIB = 2**20
pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux and a /proc/self/clear_refs to write to"
)
KNOWN = """
import torch
from lisabench.measure.resident import resident_growth

def call():
    first = torch.ones(64 * 2**20, dtype=torch.uint8)
    second = torch.ones(64 * 2**20, dtype=torch.uint8)
    del first, second

call()
print(resident_growth(call))
"""


def cell(op: str, **workload: Any) -> Cell:
    return Cell(op=op, options=registry.load(op).resolve({}), workload=Workload(**({"grid": Grid(32, 32)} | workload)))


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_two_temporaries_of_a_known_size_are_found_by_the_system() -> None:
    assert int(run(KNOWN, **ENVIRONMENT)) == pytest.approx(128 * MIB, rel=0.02)


def test_a_malloc_that_keeps_freed_memory_is_told_of() -> None:
    """Else every second figure would be near nothing."""
    kept = {"MALLOC_MMAP_THRESHOLD_": str(2**40), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    assert "malloc keeps what is freed" in run(KNOWN, **ENVIRONMENT | kept)


def test_the_peak_of_a_process_holds_the_call_and_all_that_stands() -> None:
    held = torch.ones(64 * MIB, dtype=torch.uint8)
    idle = peak_resident(lambda: None)
    busy = peak_resident(lambda: torch.ones(256 * MIB, dtype=torch.uint8))
    assert isinstance(idle, int)
    assert isinstance(busy, int)
    assert idle > held.nbytes
    assert busy - idle == pytest.approx(256 * MIB, rel=0.1)
    assert peak_resident(lambda: None) < busy - 128 * MIB  # type: ignore[operator]  # an earlier peak is set back


def test_a_system_without_the_switch_gives_a_reason_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, *_: Any) -> Any:
        raise PermissionError(path)

    monkeypatch.setattr("builtins.open", refused)
    ran: list[int] = []
    assert "PermissionError" in str(peak_resident(lambda: ran.append(1)))
    assert not ran


# Over 10 MiB each, so that the few hundred KiB by which the system's count is off weigh little.
LARGE = {
    "softmax": Workload(grid=Grid(16, 16), batch=64),
    "softmax_dense": Workload(grid=Grid(32, 32)),
    "lisa": Workload(grid=Grid(64, 64)),
    "performer": Workload(grid=Grid(32, 64)),
    "linear": Workload(grid=Grid(64, 64), batch=2),
}


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("op", LARGE)
def test_the_system_agrees_with_the_profiler(op: str, mode: str, two_threads: None) -> None:
    of = Cell(op=op, options=registry.load(op).resolve({}), workload=replace(LARGE[op], mode=mode))
    subject = build(of, seed=0)
    with subject.gradients():
        call = subject.call()
        call()
        traced = trace_call(call).transient_bytes
    assert traced > 10 * MIB
    assert transient_resident(of, seed=0, threads=2, timeout=120) == pytest.approx(traced, rel=0.1)


@pytest.fixture
def two_threads() -> Any:
    """Flash attention takes its workspace once a thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_an_output_alone_is_its_own_size(own_operators: Path) -> None:
    of = cell(f"{own_operators}:OnlyMix", batch=64, scope="layer")
    output = 64 * 1024 * 192 * 4
    assert transient_resident(of, seed=0, threads=1, timeout=60) == pytest.approx(output, rel=0.02)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("Dies", "was killed by signal 11; it last printed: last words"),
        ("Raises", "RuntimeError: no such luck"),
        ("OutOfMemory", "memory"),
    ],
)
def test_what_goes_wrong_is_the_reason(own_operators: Path, op: str, why: str) -> None:
    found = transient_resident(cell(f"{own_operators}:{op}"), seed=0, threads=1, timeout=60)
    assert isinstance(found, str)
    assert why in found
    assert "\n" not in found


def test_a_hung_call_ends_at_the_time_limit(own_operators: Path) -> None:
    before = psutil.Process().children()
    found = transient_resident(cell(f"{own_operators}:Sleeps"), seed=0, threads=1, timeout=5)
    assert found == "the cross-check took over 5 s"
    assert psutil.Process().children() == before


def test_a_gpus_memory_is_not_asked_of_the_system() -> None:
    assert isinstance(transient_resident(cell("linear", device="cuda:0"), seed=0, threads=None, timeout=60), str)


def test_the_process_dies_with_its_parent(own_operators: Path) -> None:
    code = f"""
from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.run.resident import transient_resident
from lisabench.sweep import Cell
op = {f"{own_operators}:Sleeps"!r}
of = Cell(op=op, options=registry.load(op).resolve({{}}), workload=Workload(grid=Grid(4, 4)))
transient_resident(of, seed=0, threads=1, timeout=600)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        children = _soon(psutil.Process(parent.pid).children)
        parent.kill()
    psutil.wait_procs(children, timeout=20)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def _soon(found: Callable[[], list[psutil.Process]], seconds: float = 30) -> list[psutil.Process]:
    end = time.monotonic() + seconds
    while not (there := found()) and time.monotonic() < end:
        time.sleep(0.05)
    assert there
    return there
