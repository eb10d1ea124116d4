"""benchmarks/trust.py: its report, its place in the documentation, its command and its neighbours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.trials import agreement, interference, truth
from benchmarks.trials.neighbour import KINDS, neighbour
from benchmarks.trials.report import BEGIN, END, PARTS, in_docs, into_docs, markdown, verdicts
from benchmarks.trust import _command, _folder, _measured
from lisabench.errors import InputError

TOP = Path(__file__).parent.parent


def report(**parts: Any) -> dict[str, Any]:
    machine = {
        "device": "cpu",
        "device_name": "a CPU",
        "cpu": {"threads": 1},
        "libraries": {"torch": "2"},
        "lisabench": "1",
        "load_average": [0.5],
    }
    return {"command": "python benchmarks/trust.py", "quick": False, "seconds": 61, "environment": machine, "parts": parts, "failed": {}}


def test_the_report_says_missed_targets_and_failed_trials() -> None:
    told = report(truth={"times": "", "rows": [truth.row("far", 1.0, 2.0, unit="s"), truth.row("near", 1.0, 1.0, unit="s")]})
    told["failed"] = {"interference": "no neighbour"}
    text = markdown(told)
    assert "1 of 2 targets met" in text
    assert "| far | at most 2% off | 100% off | missed |" in text
    assert "This trial failed: no neighbour" in text
    assert [target.met for target in verdicts(told["parts"])] == [False, True]
    assert "not the report to cite" in markdown(told | {"quick": True})
    assert "agreement, repeatability were not measured" in text


def asked(**more: Any) -> Namespace:
    return Namespace(**({"device": "cpu", "threads": None, "quick": False, "out": "/x", "docs": True, "render": False} | more))


def test_a_partial_report_has_a_folder_of_its_own_and_no_command_names_a_folder() -> None:
    every = list(PARTS)
    assert _folder(every, asked()) == TOP / "reports" / "trust-cpu"
    assert _folder(["truth"], asked(device="cuda:1", quick=True)) == TOP / "reports" / "trust-cuda-quick-partial"
    assert _command(every, asked()) == "python benchmarks/trust.py"
    assert _command(["truth"], asked(quick=True, threads=2)) == "python benchmarks/trust.py --part truth --threads 2 --quick"


def test_a_part_that_fails_in_any_way_leaves_the_others_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Faked: the trials and the machine, which take minutes to measure; each part looks at what is stored before it.
    stored: list[list[str]] = []

    def look(_: object) -> dict[str, Any]:
        path = tmp_path / "report.json"
        stored.append(list(json.loads(path.read_text())["parts"]) if path.exists() else [])
        return {"rows": [truth.row("far", 1.0, 2.0, unit="s")], "times": ""}

    def fails(_: object) -> dict[str, Any]:
        raise KeyError("latency_s")

    monkeypatch.setattr("benchmarks.trust.child", lambda *_: {"device": "cpu"})
    monkeypatch.setattr(agreement, "measure", fails)
    for part in (truth, interference):
        monkeypatch.setattr(part, "measure", look)
    monkeypatch.setattr(interference, "targets", truth.targets)
    found = _measured(["agreement", "truth", "interference"], asked(), tmp_path)
    assert found["failed"] == {"agreement": "KeyError: 'latency_s'"}
    assert stored == [[], ["truth"]]
    assert json.loads((tmp_path / "report.json").read_text()) == found


def test_docs_take_the_tables_between_their_markers_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = into_docs(page, "| new |\n")
    assert in_docs(once) == "| new |"
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert into_docs(once, "| new |\n") == once


@pytest.mark.parametrize("page", ["none", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="markers"):
        into_docs(page, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_is_busy_and_gone_afterwards(kind: str) -> None:
    before = set(psutil.Process().children())
    with neighbour(kind) as busy:
        (found,) = set(psutil.Process().children()) - before
        deadline, started = time.monotonic() + 60, sum(found.cpu_times()[:2])
        while sum(found.cpu_times()[:2]) < started + 0.05 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert busy.cores
    assert not found.is_running()


def test_a_neighbour_does_not_outlive_its_parent() -> None:
    code = (
        "from benchmarks.trials.neighbour import neighbour\nimport psutil, time\n"
        "with neighbour('spin'):\n    print(psutil.Process().children()[0].pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=TOP, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    found = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    found.wait(timeout=30)


def test_the_command_refuses_a_part_that_is_none_and_docs_of_a_partial_report(tmp_path: Path) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.trust", *args, "--out", str(tmp_path)]
        return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120, check=False)

    wrong = run("--part", "thruth")
    assert wrong.returncode == 2
    assert "did you mean 'truth'" in wrong.stderr
    none = run("--part", ",")
    assert (none.returncode, len(none.stderr.splitlines())) == (2, 1)
    early = run("--quick", "--docs")
    assert early.returncode == 2
    assert not list(tmp_path.iterdir())
    (tmp_path / "report.json").write_text(json.dumps(report(truth={"rows": [], "times": ""})))
    partial = run("--render", "--docs")
    assert partial.returncode == 2
    assert len(partial.stderr.splitlines()) == 1
    assert run("--render").returncode == 0
    assert "0 of 0 targets met" in (tmp_path / "report.md").read_text()
    far = {"times": "", "rows": [truth.row("far", 1.0, 2.0, unit="s")]}
    (tmp_path / "report.json").write_text(json.dumps(report(truth=far)))
    assert run("--render").returncode == 1
