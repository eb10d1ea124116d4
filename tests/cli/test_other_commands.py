"""`env` and `report` as their users meet them, and the help of all commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import PROGRAM, SMALL, only_error
from made_runs import made_run
from rich.console import Console
from rich.table import Table

from lisabench.cli import console
from lisabench.laws import LAWS
from lisabench.render.terminal import plan_table
from lisabench.workload import MODES, Grid, Workload

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("command", ["scale", "train-small", "report", "compare", "ops", "verify", "new", "env"])
def test_every_command_has_help(command: str, lisabench: Run) -> None:
    done = lisabench(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("args", "drawn"),
    [
        (("verify", "--op", "identity,linear"), f"{2 * len(LAWS)}/{2 * len(LAWS)}"),
        (("scale", "--op", "identity,linear", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run"), "2/2"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_progress_is_drawn_on_a_terminal_and_json_lines_go_to_the_pipe(args: tuple[str, ...], drawn: str, tmp_path: Path) -> None:
    """rich would send what is printed while a bar is drawn to the bar's terminal."""
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([PROGRAM, *args, "--json"], stdout=subprocess.PIPE, stderr=theirs, env=environment, cwd=tmp_path) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's end, once the program has gone
            while piece := os.read(ours, 65536):
                shown += piece
        assert running.stdout
        results = running.stdout.read().decode()
    os.close(ours)
    assert running.returncode == 0
    assert drawn.encode() in shown
    assert b'"op"' not in shown
    assert {json.loads(line)["op"] for line in results.splitlines()} == {"identity", "linear"}


def test_the_bare_program_prints_its_help(lisabench: Run) -> None:
    done = lisabench()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_env_is_json_with_the_measured_peaks(lisabench: Run) -> None:
    done = lisabench("env", "--device", "cpu", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["libraries"]["torch"]
    assert found["cpu"]["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["peaks"]["flops_per_s_fp32"] > 0


def test_report_of_nothing(lisabench: Run, tmp_path: Path) -> None:
    done = lisabench("report", "nowhere")
    assert done.returncode == 2
    assert "is no run" in only_error(done)


@pytest.mark.parametrize("columns", [60, 110])
def test_the_plan_names_what_varies_and_fits(columns: int) -> None:
    shapes = [Workload(grid=Grid(64, 64), dim=dim, heads=heads, mode=mode) for dim, heads in ((96, 3), (768, 12)) for mode in MODES]
    rows = [{"op": "a/b.py:Mine", "predicted_flops": 1e9, "predicted_bytes": 1e6} | of.record_fields() for of in shapes]
    screen = Console(width=columns, file=io.StringIO(), record=True)
    screen.print(console.fitting(screen, lambda omitted: plan_table(rows, omitted=omitted), ("grid", "FLOP", "memory"), whole="--json"))
    text = screen.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    assert "…" not in text
    assert "b.py" not in text
    assert text.count("Mine") == 4
    assert text.count("768") == text.count(" 12 ") == 2
    assert "fp32" in text.splitlines()[1], "what does not vary is told once"
    assert text.count("fp32") == 1


def test_columns_that_were_left_out_are_named_once_and_only_if_they_were_there() -> None:
    def draw(omitted: Sequence[str]) -> Table:
        table = Table()
        for name in {"kept": 1, "wide": 1, "held": 1}:
            if name not in omitted or name == "held":
                table.add_column(name, no_wrap=True)
        table.add_row(*["x" * 20] * len(table.columns))
        return table

    said = {}
    for width in (40, 100):
        screen = Console(width=width, file=io.StringIO(), record=True)
        screen.print(console.fitting(screen, draw, ("absent", "wide", "held"), whole="results.csv"))
        said[width] = screen.export_text()
    assert "left out on 40 columns: wide; results.csv has all" in " ".join(said[40].split())
    assert "left out" not in said[100]


@pytest.mark.slow
def test_runs_of_trainings_and_sweeps_are_told_apart(lisabench: Run, tmp_path: Path) -> None:
    made_run(tmp_path / "sweep", {16: 1.0})
    trained = lisabench("train-small", "--op", "linear", "--no-baseline", "--epochs", "1", "--seeds", "1", "--out", "training")
    assert trained.returncode == 0, trained.stderr
    assert "linear" in lisabench("report", "training").stdout
    for args in (["compare", "training", "sweep"], ["compare", "sweep", "training"], ["scale", "--resume", "--out", "training"]):
        done = lisabench(*args)
        assert done.returncode == 2
        assert "train-small" in only_error(done)
    done = lisabench("train-small", "--resume", "--out", "sweep")
    assert done.returncode == 2


def test_a_sweep_of_one_cell_reports(lisabench: Run) -> None:
    assert lisabench("scale", "--op", "linear", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run").returncode == 0
    done = lisabench("report", "run")
    assert done.returncode == 0
    assert "growth" not in done.stdout
