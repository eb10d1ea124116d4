"""Figures of different machines stand in no curve together, unless --mix says so; kinds of devices stand apart in any case."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, SMALL, only_error, records

Run = Callable[..., subprocess.CompletedProcess[str]]
OTHER = "another"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of this machine, measured once."""
    folder = tmp_path_factory.mktemp("measured")
    args = ["scale", "--op", "linear", "--no-baseline", "--tokens", "16,32", *SMALL, "--out", "run", "--quiet"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run([PROGRAM, *args], cwd=folder, env=environment, timeout=120, check=True, capture_output=True)
    return folder / "run"


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(measured, tmp_path / "run"))


def move(run: Path, change: Callable[[dict[str, Any]], None], *, every: bool = False) -> None:
    """Rewrites the run so that its second record, or every one, comes from an environment that differs by `change`."""
    environments = json.loads((run / "environment.json").read_text())
    other = copy.deepcopy(next(iter(environments.values())))
    change(other)
    (run / "environment.json").write_text(json.dumps(environments | {OTHER: other}))
    found = records(run)
    assert [record["status"] for record in found] == ["ok", "ok"]
    there = {"environment": OTHER, "device_kind": kind_of(other)}
    moved = [record | there if every or place == 1 else record for place, record in enumerate(found)]
    (run / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in moved))


def kind_of(environment: dict[str, Any]) -> str:
    threads = environment["cpu"]["threads"]
    return f"{environment['device_name']}, {threads} thread{'s' if threads != 1 else ''}"


def another_torch(environment: dict[str, Any]) -> None:
    environment["libraries"]["torch"] = "0.1"


def much(environment: dict[str, Any]) -> None:
    """Four entries that matter, on the same kind of device."""
    another_torch(environment)
    environment["machine"] = "abacus"
    environment["python"] = "2.7.1"
    environment["system"] = "Minix 3"


def another_cpu(environment: dict[str, Any]) -> None:
    environment["device_name"] = "Another CPU"


def another_setting(environment: dict[str, Any]) -> None:
    environment["cpu"]["threads"] += 7
    environment["libraries"]["torch"] = "0.1"
    environment["machine"] = "abacus"
    environment["device_name"] = "Another CPU"


def another_commit(environment: dict[str, Any]) -> None:
    environment |= {"git": {"commit": "f" * 40, "dirty": False}, "host": "elsewhere", "lisabench": "9.9", "load_average": [9, 9, 9]}


def test_report_refuses_a_run_of_two_machines(run: Path, lisabench: Run) -> None:
    move(run, another_torch)
    done = lisabench("report", "run")
    assert done.returncode == 2
    assert done.stdout == ""
    line = only_error(done)
    assert "differ in libraries.torch (" in line
    assert "'0.1'" in line
    assert "--mix renders it all the same" in line


def test_report_with_mix_goes_on_and_says_so(run: Path, lisabench: Run) -> None:
    move(run, another_torch)
    done = lisabench("report", "run", "--mix")
    assert done.returncode == 0, done.stderr
    assert "linear" in done.stdout
    assert len([line for line in done.stderr.splitlines() if "differ in libraries.torch (" in line]) == 1
    assert lisabench("report", "run", "--mix", "--quiet").stderr == ""


def test_at_most_three_differences_are_named(run: Path, lisabench: Run) -> None:
    move(run, much)
    line = only_error(lisabench("report", "run"))
    assert "machine" in line
    assert "and 1 more" in line


def test_report_takes_a_run_of_two_kinds_of_devices_and_keeps_them_apart(run: Path, lisabench: Run) -> None:
    move(run, another_cpu)
    done = lisabench("report", "run")
    assert done.returncode == 0, done.stderr
    assert "differ" not in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("Another CPU, ") and line.endswith(":")]


def test_report_takes_a_run_of_two_commits(run: Path, lisabench: Run) -> None:
    move(run, another_commit)
    done = lisabench("report", "run")
    assert done.returncode == 0, done.stderr
    assert "differ" not in done.stderr


def test_cells_that_did_not_finish_do_not_count(run: Path, lisabench: Run) -> None:
    move(run, another_torch)
    first, second = records(run)
    second |= {"status": "timeout", "reason": "over the time limit of 1 s", "latency_s": None}
    (run / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (first, second)))
    done = lisabench("report", "run")
    assert done.returncode == 0, done.stderr


def test_an_environment_that_was_not_kept_is_no_refusal(run: Path, lisabench: Run) -> None:
    (run / "environment.json").unlink()
    assert lisabench("report", "run").returncode == 0


def test_all_runs_are_looked_at_before_the_first_is_shown(run: Path, lisabench: Run, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    move(run, another_torch)
    done = lisabench("report", "whole", "run")
    assert (done.returncode, done.stdout) == (2, "")


def test_compare_refuses_and_mixes(run: Path, lisabench: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert lisabench("compare", "run", "moved").returncode == 0
    move(moved, another_setting, every=True)
    done = lisabench("compare", "run", "moved")
    assert done.returncode == 2
    assert "the runs differ in device_name (" in only_error(done)
    mixed = lisabench("compare", "run", "moved", "--mix", "--json")
    assert mixed.returncode == 0
    assert [json.loads(line)["tokens"] for line in mixed.stdout.splitlines()] == [16, 32]
    assert mixed.stderr.count("the runs differ in device_name (") == len(mixed.stderr.splitlines()) == 1


def test_compare_takes_another_commit_and_host(run: Path, lisabench: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    move(moved, another_commit, every=True)
    done = lisabench("compare", "run", "moved")
    assert (done.returncode, done.stderr) == (0, "")
