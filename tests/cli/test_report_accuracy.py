"""`lisabench report` of trainings as a user meets it: alone, joined, and beside a sweep."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import only_error
from made_trainings import THIS_MACHINE, accuracies, write_run, write_sweep

Report = Callable[..., tuple[int, str, str]]
THREE = ["lisa", "lisa (patterns=8)", "softmax"]
OWN = {"learning", "accuracy-flops", "accuracy-latency", "accuracy-parameters", "accuracy-memory"}
ELSEWHERE = THIS_MACHINE | {"device_name": "Another CPU"}


def figures(run: Path) -> set[str]:
    """The names of a run's figures, each of which must be there as PDF and as PNG."""
    found = {path.stem for path in (run / "figures").glob("*")}
    assert {path.name for path in (run / "figures").glob("*")} == {f"{name}.{form}" for name in found for form in ("pdf", "png")}
    return found


def test_a_run_in_a_process_of_its_own(lisabench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    write_run(tmp_path / "run", accuracies(THREE))
    done = lisabench("report", "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "9 records, 5 figures, 1 table, report.html and results.csv are in run\n"
    assert figures(tmp_path / "run") == OWN
    rows = list(csv.DictReader((tmp_path / "run/results.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [label for label in THREE for _ in range(3)]
    assert "lisa: a reconstruction" in done.stdout


def test_joined_runs_share_figures_and_a_table_a_data_set(report: Report, tmp_path: Path) -> None:
    write_run(tmp_path / "first", accuracies(["lisa", "softmax"]))
    write_run(tmp_path / "second", accuracies(["lisa", "nprf"]), baseline=None)
    write_run(tmp_path / "third", accuracies(["lisa", "softmax"]), data="structures:offset")
    code, out, err = report("first", "second", "third", "first/")
    assert (code, err) == (0, "18 records, 5 figures, 1 table, report.html and results.csv are in first/joined\n")
    assert [out.count(f"{data} · 30 epochs") for data in ("digits", "structures:offset")] == [1, 1]
    assert {"lisa, first", "lisa, second"} <= {line.split("  ")[0] for line in out.splitlines()}
    assert out.count("no search:") == 1  # what holds for all tables stands once
    assert figures(tmp_path / "first/joined") == OWN
    assert not [path for run in ("first", "second", "third") for path in (tmp_path / run).glob("results.csv")]


def test_beside_a_sweep_accuracy_is_drawn_against_its_latency(report: Report, tmp_path: Path) -> None:
    write_run(tmp_path / "run", accuracies(THREE))
    write_sweep(tmp_path / "sweep", {"lisa": [16, 64, 256], "softmax": [16, 64]}, environment=ELSEWHERE)
    code, out, err = report("run", "sweep")
    assert code == 0, err
    assert OWN | {"accuracy-sweep-latency", "latency"} <= figures(tmp_path / "run/joined")
    assert {"results.csv", "accuracy.csv", "report.html"} <= {path.name for path in (tmp_path / "run/joined").iterdir()}
    assert out.index("tokens") < out.index("digits · 30 epochs")


def test_trainings_of_two_machines_are_refused_but_mixed(report: Report, tmp_path: Path) -> None:
    write_run(tmp_path / "first", {"lisa": [0.9]}, baseline=None)
    write_run(tmp_path / "second", {"softmax": [0.8]}, environment=ELSEWHERE)
    code, out, err = report("first", "second")
    assert (code, out) == (2, "")
    assert "'first' and 'second' were measured on differ in device_name ('AMD EPYC' and 'Another CPU')" in err
    assert "--mix renders it all the same" in err
    assert not (tmp_path / "first/results.csv").exists()
    code, out, err = report("first", "second", "--mix")
    assert code == 0
    assert "differ in device_name" in err
    assert "softmax" in out
    assert report("first", "second", "--mix", "--quiet")[2] == ""


def test_a_run_in_which_nothing_finished(report: Report, tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"lisa": ["error", "error"], "softmax": ["skipped", "skipped"]})
    code, out, err = report("run")
    assert (code, err) == (0, "4 records, 1 table, report.html and results.csv are in run\n")
    assert "lisa, 2 seeds error: loss is not finite" in out
    assert not (tmp_path / "run/figures").exists()


def test_what_was_learned_is_drawn_where_it_was_kept(report: Report, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"lisa": [0.9]}, baseline=None)
    (run.path / "patterns").mkdir()
    np.savez(run.path / "patterns" / f"{run.records[0]['cell']}.npz", unknown=np.zeros(3))
    code, _, err = report("run")
    assert code == 4
    assert only_patterns(err)


def only_patterns(err: str) -> bool:
    """Whether the only line is that a file of patterns is not one."""
    return err.startswith("Error: ") and "patterns" in err and err.count("\n") == 1


def test_a_folder_that_is_no_run(lisabench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"lisa": [0.9]}, baseline=None)
    done = lisabench("report", "run", "nowhere")
    assert done.returncode == 2
    assert "'nowhere' is no run" in only_error(done)
    assert json.loads((tmp_path / "run/plan.json").read_text())["kind"] == "accuracy"
    assert not (tmp_path / "run/results.csv").exists()
