"""What `lisabench scale` says of engines, clusters and parts before anything is measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL, only_error, records

from lisabench.plans import visits_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--engine", "slurm"), "unknown --engine 'slurm'; valid: local, ray"),
        (("--address", "auto"), "--address goes with --engine ray"),
        (("--kind", "H200"), "--kind goes with --engine ray"),
        (("--engine", "ray", "--device", "cuda:1"), "valid with --engine ray, where each worker has one device: auto, cpu, cuda"),
        (("--shard", "3/2"), "--shard got '3/2'; valid: i/n with i from 1 to n"),
        (("--shard", "0/2"), "--shard got '0/2'"),
        (("--shard", "half"), "--shard got 'half'"),
        (("--tokens", "16", "--shard", "2/2"), "--shard 2/2 has no cells: there are 1 workloads"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_words_are_one_line(args: tuple[str, ...], words: str, lisabench: Run) -> None:
    done = lisabench("scale", "--op", "linear", *args)
    assert done.returncode == 2
    assert words in only_error(done)


def test_without_ray_one_line_says_how_to_install_it(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")")
    done = lisabench("scale", "--op", "linear", *SMALL, "--engine", "ray", "--out", "run", PYTHONPATH=str(tmp_path / "none"))
    assert done.returncode == 3
    assert only_error(done).endswith("install it by: pip install 'lisabench[ray]'")
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_is_not_there_is_told_at_once(lisabench: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = lisabench("scale", "--op", "linear", *SMALL, "--engine", "ray", "--address", address, "--out", "run", timeout=60)
    assert done.returncode == 3
    assert f"the Ray cluster at {address} cannot be had (Connection refused)" in only_error(done)
    done = lisabench("scale", "--op", "linear", *SMALL, "--engine", "ray", "--address", "nonsense", "--out", "run", timeout=60)
    assert done.returncode == 3
    assert "HOST:PORT" in only_error(done)
    assert not (tmp_path / "run").exists()


def test_parts_of_a_plan_are_the_whole(lisabench: Run, tmp_path: Path) -> None:
    args = ("scale", "--op", "linear", "--tokens", "16..128", *SMALL, "--dry-run", "--json")
    whole, *parts = (
        {json.loads(line)["cell"] for line in lisabench(*args, *shard).stdout.splitlines()}
        for shard in ((), ("--shard", "1/2"), ("--shard", "2/2"))
    )
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]
    assert len(whole) == 8


def test_a_part_is_gone_on_with_as_it_was_planned(lisabench: Run, tmp_path: Path) -> None:
    args = ("scale", "--op", "linear", "--tokens", "16,64", *SMALL, "--out", "run")
    assert lisabench(*args, "--shard", "2/2").returncode == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert {r["cell"] for r in records(tmp_path / "run")} == {cell.key for cell in visits_of(plan, run="run").cells()}
    assert plan["cells"] == 2
    other = lisabench(*args, "--shard", "1/2", "--resume")
    assert other.returncode == 2
    assert "holds another sweep (it differs in share)" in only_error(other)
    assert lisabench("scale", "--resume", "--out", "run").returncode == 0


def test_a_resumed_run_prints_the_records_that_it_has_first(lisabench: Run, tmp_path: Path) -> None:
    args = ("scale", "--op", "linear", "--tokens", "16", *SMALL, "--out", "run", "--json")
    first = lisabench(*args)
    assert first.returncode == 0, first.stderr
    again = lisabench("scale", "--resume", "--out", "run", "--json")
    assert [json.loads(line) for line in again.stdout.splitlines()] == records(tmp_path / "run")


def test_threads_are_said_when_a_plan_states_none(lisabench: Run, tmp_path: Path) -> None:
    assert lisabench("scale", "--op", "linear", "--tokens", "16", *SMALL, "--threads", "1", "--out", "run").returncode == 0
    other = lisabench("scale", "--resume", "--threads", str(1 + (os.cpu_count() or 1)), "--out", "run")
    assert other.returncode == 2
    assert "was begun with 1" in only_error(other)
    assert lisabench("scale", "--resume", "--threads", "1", "--out", "run").returncode == 0
