"""A sweep over a real Ray cluster on this machine: its nodes, workers and driver are really killed."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, SMALL, only_error, records
from ray_nodes import Nodes, measuring, nodes, posts

from lisabench.run.cores import Cores

__all__ = ["nodes"]
Run = Callable[..., subprocess.CompletedProcess[str]]
SWEEP = ("scale", "--op", "linear,performer", "--tokens", "16..128", "--batch", "1,2", *SMALL)
CELLS = 24

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def begun(top: Path, cluster: Nodes, *args: str) -> subprocess.Popen[str]:
    """The sweep in the run `fleet`, while it measures."""
    command = [PROGRAM, *(args or SWEEP), "--engine", "ray", "--address", cluster.address, "--out", "fleet"]
    return subprocess.Popen(command, cwd=top, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reached(program: subprocess.Popen[str], journal: Path, count: int) -> None:
    """Waits until so many records are written."""
    deadline = time.monotonic() + 180
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= count):
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(program: subprocess.Popen[str]) -> str:
    """What a program that went well said on stderr."""
    _, said = program.communicate(timeout=400)
    assert program.returncode == 0, said
    return said


def test_the_cells_are_those_of_the_local_engine_and_a_visit_stays_on_one_device(nodes: Nodes, lisabench: Run, tmp_path: Path) -> None:
    done = lisabench(*SWEEP, "--engine", "ray", "--out", "fleet", "--json", RAY_ADDRESS=nodes.address, timeout=400)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "fleet")
    assert [json.loads(line) for line in done.stdout.splitlines()] == found
    local = lisabench(*SWEEP, "--threads", "1", "--out", "local", timeout=400)
    assert local.returncode == 0, local.stderr
    there = records(tmp_path / "local")
    assert sorted(r["cell"] for r in found) == sorted(r["cell"] for r in there)
    assert {r["status"] for r in found} == {"ok"}
    assert [set(r) for r in found] == [set(r) for r in there]
    visits = itertools.groupby(sorted(found, key=lambda r: (r["tokens"], r["batch"])), key=lambda r: (r["tokens"], r["batch"]))
    assert {len({(r["host"], r["device_id"]) for r in visit}) for _, visit in visits} == {1}
    assert {r["device_id"] for r in found} == {"core 0", "core 1"}
    assert all((r["ratio"] is None) == (r["op"] == "softmax") for r in found)
    assert len({r["device_kind"] for r in found}) == 1
    assert posts() == []


def test_a_killed_node_worker_and_measuring_process_cost_no_cell(nodes: Nodes, tmp_path: Path) -> None:
    program, journal = begun(tmp_path, nodes), tmp_path / "fleet" / "journal.jsonl"
    reached(program, journal, 2)
    posts()[0].kill()
    reached(program, journal, 6)
    measuring()[0].kill()
    reached(program, journal, 9)
    nodes.kill()
    said = ended(program)
    found = records(tmp_path / "fleet")
    assert len(found) == len({r["cell"] for r in found}) == CELLS
    assert {r["status"] for r in found} == {"ok"}
    assert "is lost (its process died); what it was at is measured again" in said
    assert "Traceback" not in said
    assert "raylet" not in said


def test_a_killed_driver_takes_its_workers_along_and_a_resumed_one_measures_the_rest(nodes: Nodes, tmp_path: Path) -> None:
    program, journal = begun(tmp_path, nodes), tmp_path / "fleet" / "journal.jsonl"
    reached(program, journal, 4)
    program.kill()
    program.communicate()
    kept = journal.read_text()
    kept = kept[: kept.rfind("\n") + 1]
    deadline = time.monotonic() + 60
    while posts() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert posts() == measuring() == []
    ended(begun(tmp_path, nodes, "scale", "--resume"))
    assert journal.read_text().startswith(kept)
    found = records(tmp_path / "fleet")
    assert len(found) == len({r["cell"] for r in found}) == CELLS


def test_cores_that_others_measure_on_are_refused_and_the_node_is_named(nodes: Nodes, tmp_path: Path) -> None:
    with Cores.claim(1):
        said = ended(begun(tmp_path, nodes, *SWEEP, "--cell-seconds", "1.5"))  # longer than three attempts take
    assert "is set aside after 3 failures in a row; the last: 1 cores are wanted and 0 are free: others measure on cores 0-1" in said
    found = records(tmp_path / "fleet")
    assert {r["device_id"] for r in found} == {"core 1"}
    assert len(found) == CELLS


def test_an_own_operator_travels_to_the_nodes(nodes: Nodes, tmp_path: Path, own_operators: Path) -> None:
    own = f"{own_operators.name}:Plain"
    said = ended(begun(tmp_path, nodes, "scale", "--op", own, "--baseline", own, "--tokens", "16,64", *SMALL))
    assert "2 records" in said
    assert [(r["op"], r["status"]) for r in records(tmp_path / "fleet")] == [(own, "ok")] * 2


def test_without_a_device_the_run_is_not_begun(nodes: Nodes, lisabench: Run, tmp_path: Path) -> None:
    asked = (*SWEEP, "--engine", "ray", "--address", nodes.address, "--out", "fleet")
    with Cores.claim(2):
        done = lisabench(*asked, timeout=300)
    assert done.returncode == 3
    assert only_error(done).count("is set aside after 3 failures in a row") == 2
    done = lisabench(*asked, "--kind", "H200", timeout=300)
    assert done.returncode == 3
    assert "which --kind leaves out" in only_error(done)
    assert not (tmp_path / "fleet").exists()
