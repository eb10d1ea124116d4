"""`lisabench train-small` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, only_error, records

Program = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("train-small", "--device", "cpu", "--threads", "1", "--epochs", "1")
FIGURES = {"parameters", "flops", "top1", "loss", "curve", "throughput_images_per_s", "seconds"}
FIELDS = FIGURES | {"schema", "kind", "cell", "op", "options", "status", "reason", "data", "seed", "epochs"}
FIELDS |= {"device", "dtype", "environment", "started_at", "absent"}


@pytest.fixture
def error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., str]:
    """The one line that wrong input ends with; in this process, because it is told before anything happens."""
    from lisabench.cli import main

    def run(*args: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["lisabench", "train-small", *args, "--out", "run"])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert printed.out == ""
        assert printed.err.startswith("Error: ")
        assert printed.err.count("\n") == 1
        return str(printed.err)

    return run


def test_run_with_its_baseline(lisabench: Program, tmp_path: Path) -> None:
    done = lisabench(*QUICK, "--seeds", "1", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == records(tmp_path / "run")
    assert [record["op"] for record in printed] == ["lisa", "softmax"]
    for record in printed:
        assert set(record) == FIELDS
        assert (record["status"], record["kind"], record["absent"]) == ("ok", "accuracy", {})
        assert record["flops"]["analytic"] > 0
        assert record["curve"] == [{"epoch": 1, "loss": record["loss"], "top1": record["top1"]}]
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert (plan["kind"], plan["baseline"], plan["seeds"]) == ("accuracy", "softmax", [0])
    assert [cell["cell"] for cell in plan["cells"]] == [record["cell"] for record in printed]
    assert done.stderr.splitlines()[-1] == "2 records are in run"


def test_budget_then_resume(lisabench: Program, error: Callable[..., str], own_operators: Path, tmp_path: Path) -> None:
    """What does not fit is skipped; --resume alone trains it as planned and leaves what stands there, but for a torn line."""
    journal, args = tmp_path / "run/journal.jsonl", (*QUICK[1:], "--op", f"{own_operators}:Plain", "--no-baseline", "--seeds", "4,2")
    done = lisabench("train-small", *args, "--out", "run", "--budget", "0.001")
    assert done.returncode == 0, done.stderr
    assert "go on with: lisabench train-small --resume --out run" in done.stderr
    assert {(r["status"], r["reason"].partition(":")[0], r["top1"]) for r in records(tmp_path / "run")} == {("skipped", "budget", None)}

    first, second = journal.read_text().splitlines()
    journal.write_text(f"{first}\n{second[:50]}")
    done = lisabench("train-small", "--resume", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "torn" in done.stderr
    assert "2 of 2" in done.stdout
    whole = journal.read_text()
    assert whole.startswith(f"{first}\n")
    assert [(r["seed"], r["epochs"], r["status"]) for r in records(tmp_path / "run")] == [(4, 1, "skipped"), (4, 1, "ok"), (2, 1, "ok")]

    assert "holds another plan (it differs in seeds)" in error(*args, "--seeds", "1", "--resume")
    assert "go on with it by --resume" in error("--op", "softmax")
    assert journal.read_text() == whole


def test_operators_of_the_user_that_fail_are_records(lisabench: Program, own_operators: Path, tmp_path: Path) -> None:
    ops = [f"{own_operators}:{name}" for name in ("Raises", "NotANumber", "Narrow", "Plain")]
    done = lisabench(*QUICK, "--op", ",".join(ops), "--no-baseline", "--seeds", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    found = {record["op"].rpartition(":")[2]: (record["status"], record["reason"]) for record in records(tmp_path / "run")}
    assert found["Raises"] == ("error", "RuntimeError: no such luck")
    assert found["NotANumber"] == ("error", "diverged at epoch 1: loss is not finite")
    assert found["Narrow"][0] == "error"
    assert found["Plain"] == ("ok", None)
    assert "NotANumber seed 0 error: diverged" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_keeps_what_is_done(own_operators: Path, tmp_path: Path) -> None:
    args = [PROGRAM, *QUICK, "--op", f"{own_operators}:Plain", "--no-baseline", "--seeds", "999", "--out", "run", "--json"]
    with subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
    assert running.returncode == 130
    kept = len(records(tmp_path / "run"))
    assert told == f"stopped: {kept} of 999 trainings are kept; go on with: lisabench train-small --resume --out run\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "digitz"], "'digitz'; did you mean 'digits'"),
        (["--data", "/nowhere/at/all"], "'/nowhere/at/all'; valid: digits"),
        (["--epochs", "0"], "--epochs got 0"),
        (["--epochs", "many"], "--epochs"),
        (["--seeds", "0"], "--seeds got 0"),
        (["--seeds", "-1"], "--seeds got '-1'"),
        (["--seeds", "1,,2"], "--seeds got '1,,2'"),
        (["--seeds", "1.5"], "--seeds got '1.5'"),
        (["--op", "lisaa"], "did you mean 'lisa'"),
        (["--op-option", "colour=red"], "colour"),
        (["--op-option", "lisa.patterns=0"], "patterns must be 1 or more"),
        (["--baseline", "softmacs"], "did you mean 'softmax'"),
        (["--baseline", "softmax", "--no-baseline"], "--no-baseline"),
        (["--budget", "-1"], "--budget got -1"),
        (["--threads", "0"], "--threads got 0"),
        (["--device", "gpu"], "--device got 'gpu'"),
        (["--resume"], "is no run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input(args: list[str], words: str, error: Callable[..., str], tmp_path: Path) -> None:
    assert words in error(*args)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_in_a_process_of_its_own(lisabench: Program, tmp_path: Path) -> None:
    done = lisabench("train-small", "--data", "nowhere")
    assert done.returncode == 2
    assert "valid: digits" in only_error(done)
    assert list(tmp_path.iterdir()) == []
