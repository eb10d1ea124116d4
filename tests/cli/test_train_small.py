"""`lisabench train-small` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROGRAM, only_error, records

from lisabench.train import checkpoint, cost

Program = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("train-small", "--device", "cpu", "--threads", "1", "--epochs", "1")
FIGURES = {"parameters", "flops", "top1", "chance", "test_images", "loss", "elsewhere", "curve", "throughput_images_per_s", "seconds"}
FIGURES |= {"latency_s", "latency_batch", "memory_bytes", "backend", "kernel_similarity"}
FIELDS = FIGURES | {"schema", "kind", "cell", "op", "options", "status", "reason", "data", "patch", "seed", "epochs", "model", "recipe"}
FIELDS |= {
    "height",
    "width",
    "tokens",
    "searched",
    "device",
    "processes",
    "nodes",
    "dtype",
    "compiled",
    "environment",
    "started_at",
    "absent",
}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Done]:
    """The program in this process, which has imported torch already: a training takes less than starting does."""
    from lisabench.cli import main

    def run(*args: str) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(cost, "LIMITS", replace(cost.LIMITS, seconds=0.02, at_least_seconds=0.0, warmup_seconds=0.0))
        monkeypatch.setattr("sys.argv", ["lisabench", *args])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Done(int(end.value.code or 0), str(printed.out), str(printed.err))

    return run


@pytest.fixture
def error(program: Callable[..., Done]) -> Callable[..., str]:
    """The one line that wrong input ends with."""

    def run(*args: str) -> str:
        done = program("train-small", *args, "--out", "run")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Error: ")
        assert done.err.count("\n") == 1
        return done.err

    return run


def test_run_with_its_baseline(program: Callable[..., Done], tmp_path: Path) -> None:
    done = program(*QUICK, "--seeds", "1", "--vary", "lisa.patterns=1", "--out", "run", "--json")
    assert done.code == 0, done.err
    printed = [json.loads(line) for line in done.out.splitlines()]
    assert printed == records(tmp_path / "run")
    assert [(record["op"], record["options"].get("patterns")) for record in printed] == [("lisa", 4), ("lisa", 1), ("softmax", None)]
    for record in printed:
        assert set(record) == FIELDS
        assert (record["status"], record["kind"], set(record["absent"])) == ("ok", "accuracy", {"elsewhere"})
        assert record["flops"]["analytic"] > record["flops"]["operator"] > 0
        (epoch,) = record["curve"]
        assert (epoch["epoch"], epoch["loss"], epoch["top1"]) == (1, record["loss"], record["top1"])
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert (plan["kind"], plan["baseline"], plan["seeds"]) == ("accuracy", "softmax", [0])
    assert list(plan["operators"]) == ["lisa", "lisa (patterns=1)", "softmax"] == [cell["key"] for cell in plan["cells"]]
    assert done.err.splitlines()[-1].startswith("3 records, ")
    figures = {path.stem for path in (tmp_path / "run/figures").iterdir()}
    assert {"learning", "accuracy-flops", "accuracy-latency", "accuracy-parameters", "accuracy-memory", "kernels"} <= figures
    assert any(name.startswith("patterns-") for name in figures)


def test_a_checkpoint_of_another_model_is_told(program: Callable[..., Done], tmp_path: Path) -> None:
    args = (*QUICK, "--op", "identity", "--no-baseline", "--seeds", "1", "--budget", "0.001")
    assert program(*args, "--out", "run").code == 0
    (cell,) = {record["cell"] for record in records(tmp_path / "run")}
    checkpoint.save(tmp_path / "run/checkpoints" / f"{cell}.pt", "another", {"model": {}})
    done = program("train-small", "--resume", "--out", "run")
    assert done.code == 2
    assert "is a checkpoint of another model or recipe; remove it" in done.err.splitlines()[0]


def test_budget_then_resume(program: Callable[..., Done], error: Callable[..., str], own_operators: Path, tmp_path: Path) -> None:
    """What does not fit is skipped; --resume alone trains it as planned and leaves what stands there, but for a torn line."""
    journal, args = tmp_path / "run/journal.jsonl", (*QUICK[1:], "--op", f"{own_operators}:Plain", "--no-baseline", "--seeds", "4,2")
    done = program("train-small", *args, "--out", "run", "--budget", "0.001")
    assert done.code == 0, done.err
    assert "go on with: lisabench train-small --resume --out run" in done.err
    assert {(r["status"], r["reason"].partition(":")[0], r["top1"]) for r in records(tmp_path / "run")} == {("skipped", "budget", None)}

    first, second = journal.read_text().splitlines()
    journal.write_text(f"{first}\n{second[:50]}")
    done = program("train-small", "--resume", "--out", "run")
    assert done.code == 0, done.err
    assert "torn" in done.err
    assert "2 of 2" in done.out
    whole = journal.read_text()
    assert whole.startswith(f"{first}\n")
    assert [(r["seed"], r["epochs"], r["status"]) for r in records(tmp_path / "run")] == [(4, 1, "skipped"), (4, 1, "ok"), (2, 1, "ok")]

    assert "holds another plan (it differs in seeds)" in error(*args, "--seeds", "1", "--resume")
    assert "go on with it by --resume" in error("--op", "softmax")
    assert journal.read_text() == whole


def test_operators_of_the_user_that_fail_are_records(program: Callable[..., Done], own_operators: Path, tmp_path: Path) -> None:
    ops = [f"{own_operators}:{name}" for name in ("Raises", "NotANumber", "Narrow", "Plain")]
    done = program(*QUICK, "--op", ",".join(ops), "--no-baseline", "--seeds", "1", "--out", "run")
    assert done.code == 0, done.err
    found = {record["op"].rpartition(":")[2]: (record["status"], record["reason"]) for record in records(tmp_path / "run")}
    assert found["Raises"] == ("error", "RuntimeError: no such luck")
    assert found["NotANumber"] == ("error", "diverged at epoch 1: loss is not finite")
    assert found["Narrow"][0] == "error"
    assert found["Plain"] == ("ok", None)
    assert "diverged at epoch 1" in done.out
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_killed_then_resumed_gives_the_weights_of_a_whole_run(program: Callable[..., Done], tmp_path: Path) -> None:
    """A real process, really killed, within a training: bit for bit on a CPU."""
    args = [*QUICK[:-1], "4", "--op", "lisa", "--no-baseline", "--seeds", "1", "--ema", "0.9", "--drop-path", "0.1", "--patch", "4"]
    assert program(*args, "--out", "whole", "--quiet").code == 0
    with subprocess.Popen([PROGRAM, *args, "--out", "run"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not list((tmp_path / "run/checkpoints").glob("[!.]*.pt")):
            assert running.poll() is None, "ended before it could be killed"
            time.sleep(0.005)
        running.kill()
    assert records(tmp_path / "run") == []
    assert not (tmp_path / "run/weights").exists()
    assert program("train-small", "--resume", "--out", "run", "--quiet").code == 0
    (whole,), (resumed,) = records(tmp_path / "whole"), records(tmp_path / "run")
    assert whole["cell"] == resumed["cell"]
    assert [(epoch["loss"], epoch["top1"]) for epoch in whole["curve"]] == [(epoch["loss"], epoch["top1"]) for epoch in resumed["curve"]]
    weights = [torch.load(tmp_path / run / "weights" / f"{whole['cell']}.pt", weights_only=True)["model"] for run in ("whole", "run")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


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
    words = f"stopped: {kept} of 999 trainings are kept, and the last whole epoch of the one that ran; "
    assert told == f"{words}go on with: lisabench train-small --resume --out run\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "digitz"], "'digitz'; did you mean 'digits'"),
        (["--data", "/nowhere/at/all"], "'/nowhere/at/all'; valid: digits"),
        (["--patch", "16"], "--patch got 16; the images of digits are 8 x 8"),
        (["--patch", "0"], "--patch got 0"),
        (["--image-size", "32"], "--image-size got 32"),
        (["--size", "large"], "unknown --size 'large'; valid: micro, tiny, small"),
        (["--match", "latency"], "unknown --match 'latency'; valid: parameters, flops"),
        (["--match", "flops", "--op", "nystrom"], "even without MLPs more than the model with softmax costs that with nystrom"),
        (["--augment", "mixup"], "unknown --augment 'mixup'"),
        (["--dtype", "fp8"], "unknown --dtype 'fp8'"),
        (["--search", "-1"], "--search got -1"),
        (["--batch", "0"], "--batch got 0"),
        (["--learning-rate", "0"], "--learning-rate got 0"),
        (["--weight-decay", "nan"], "--weight-decay got nan"),
        (["--drop-path", "1"], "--drop-path got 1"),
        (["--ema", "1.5"], "--ema got 1.5"),
        (["--vary", "patterns"], "--vary got 'patterns'"),
        (["--vary", "lisa.patterns=0"], "patterns must be 1 or more"),
        (["--epochs", "0"], "--epochs got 0"),
        (["--epochs", "many"], "--epochs"),
        (["--seeds", "0"], "--seeds got 0"),
        (["--seeds", "-1"], "--seeds got '-1'"),
        (["--seeds", "1,,2"], "--seeds got '1,,2'"),
        (["--seeds", "1.5"], "--seeds got '1.5'"),
        (["--op", "lisaa"], "did you mean 'lisa'"),
        (["--op-option", "colour=red"], "colour"),
        (["--op-option", "lisa.patterns=0"], "patterns must be 1 or more"),
        (["--op-option", "lisa.patterns=1000000000000"], "operator lisa: "),
        (["--seeds", "9" * 5000], "--seeds got"),
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
