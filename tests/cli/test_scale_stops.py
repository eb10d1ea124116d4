"""`lisabench scale` when it is stopped, locked out, killed, or finds no room: what was measured is kept."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, SMALL, only_error, records

from lisabench.plans import visits_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_what_is_done_and_says_how_to_go_on(number: signal.Signals, lisabench: Run, tmp_path: Path) -> None:
    args = ["scale", "--op", "linear", "--tokens", "16,25", "--batch", "1,2", *SMALL, "--out", "run"]
    victim = subprocess.Popen([PROGRAM, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "run" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(number)
    _, said = victim.communicate(timeout=30)
    assert victim.returncode == 128 + number
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("go on with: lisabench scale --resume --out run")
    kept = journal.read_text()
    assert kept.endswith("\n")
    done = lisabench("scale", "--resume", "--out", "run")
    assert done.returncode == 0
    assert journal.read_text().startswith(kept)
    found = [r["cell"] for r in records(tmp_path / "run")]
    assert len(found) == len(set(found)) == 8


def test_a_second_program_on_the_same_run_is_told(lisabench: Run, tmp_path: Path) -> None:
    from lisabench.journal import Journal

    with Journal.create(
        tmp_path / "run",
        {"kind": "scale", "operators": {}, "cells": 0, "sweeps": [], "device": "cpu", "threads": None, "seed": 0, "baseline": None},
    ):
        done = lisabench("scale", "--resume", "--out", "run")
    assert done.returncode == 4
    assert "is locked" in only_error(done)


@pytest.mark.parametrize("where", ["/proc/run", "file/run"])
def test_a_place_that_cannot_be_written_is_found_before_the_sweep(where: str, lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lisabench("scale", "--op", "linear", *SMALL, "--out", where)
    assert done.returncode == 4
    assert "cannot be written" in only_error(done)


def test_a_disk_that_fills_up_ends_with_4_and_a_whole_journal(tmp_path: Path) -> None:
    command = f"ulimit -f 12; exec {PROGRAM} scale --op linear --tokens 16..64 --batch 1..8 {' '.join(SMALL)} --out run"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    found = records(tmp_path / "run")  # every line is whole
    assert 0 < len(found) < 24


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{PROGRAM} scale --op lisa,linear --batch 1..4096 --dry-run --json | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.slow
def test_kill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL to the program alone, ten times, each time resumed; its worker must go by itself."""
    moments = random.Random(0)
    args = [
        "scale",
        "--op",
        "linear,performer",
        "--tokens",
        "16..64",
        "--batch",
        "1..4",
        "--mode",
        "forward,train",
        "--budget",
        "0",
        *SMALL,
    ]
    journal = tmp_path / "run" / "journal.jsonl"
    kept = ""
    for attempt in range(10):
        victim = subprocess.Popen(
            [PROGRAM, *args, "--out", "run", *(["--resume"] if journal.exists() else [])],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        before = len(kept)
        while time.monotonic() < deadline and victim.poll() is None and not (journal.exists() and len(journal.read_text()) > before):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        assert victim.poll() is None, f"attempt {attempt}: {victim.stderr.read() if victim.stderr else ''!r}"
        victim.kill()
        victim.communicate()
        text = journal.read_text()
        assert text.startswith(kept)
        kept = text[: text.rfind("\n") + 1]
    done = subprocess.run(
        [PROGRAM, *args, "--out", "run", "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert journal.read_text().startswith(kept)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    planned = [cell.key for cell in visits_of(plan, run="run").cells()]
    assert [r["cell"] for r in records(tmp_path / "run")] == planned
    assert len(set(planned)) == len(planned) == 54
    assert sys.platform != "linux" or not [p for p in _workers() if str(tmp_path) in p]


def _workers() -> list[str]:
    import psutil

    return [f"{p.info['cwd']}" for p in psutil.process_iter(["cmdline", "cwd"]) if "lisabench.run.worker" in (p.info["cmdline"] or [])]
