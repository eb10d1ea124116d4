"""`lisabench scale` as its users meet it: real processes, real runs."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, SMALL, only_error, records

from lisabench.plans import visits_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A small sweep that went well."""
    top = tmp_path_factory.mktemp("finished")
    args = ["scale", "--op", "lisa,performer", "--tokens", "16..128", "--mode", "forward,train", *SMALL, "--out", "run"]
    return top / "run", subprocess.run([PROGRAM, *args], capture_output=True, text=True, cwd=top, timeout=240, check=False)


def test_a_sweep_leaves_a_whole_run(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, done = finished
    assert done.returncode == 0, done.stderr
    found = records(run)
    assert len(found) == 24
    assert {r["status"] for r in found} == {"ok"}
    assert {r["op"] for r in found} == {"lisa", "performer", "softmax"}
    environments = json.loads((run / "environment.json").read_text())
    assert {r["environment"] for r in found} == set(environments)
    plan = json.loads((run / "plan.json").read_text())
    assert [cell.key for cell in visits_of(plan, run=run).cells()] == [r["cell"] for r in found]
    assert plan["cells"] == 24
    assert plan["command"][1] == "scale"
    for r in found:
        assert r["schema"] == 1
        assert r["kind"] == "scale"
        assert r["energy_j"] is None
        assert r["absent"]["energy_j"]
    for name in ("latency", "memory", "flops"):
        assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((run / "results.csv").read_text().splitlines()))
    assert len(rows) == 24
    assert float(rows[0]["latency_s.median"]) == found[0]["latency_s"]["median"]


def test_what_is_printed(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, done = finished
    assert "lisa" in done.stdout
    assert "/ softmax" in done.stdout
    assert "latency ~ N^" in done.stdout
    assert done.stderr.splitlines()[-1] == "24 records, 8 figures, 6 tables, report.html and results.csv are in run"
    assert "\x1b" not in done.stdout + done.stderr
    assert run.name in done.stderr


def test_report_renders_the_run_again(finished: tuple[Path, subprocess.CompletedProcess[str]], lisabench: Run) -> None:
    run, first = finished
    before = {path: path.read_bytes() for path in [*(run / "figures").iterdir(), run / "results.csv"]}
    done = lisabench("report", run)
    assert done.returncode == 0
    assert done.stdout == first.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_the_table_fits_sixty_columns(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    import io

    from rich.console import Console

    from lisabench.cli.session import fitting_table
    from lisabench.results import read_run

    for width, shown in ((60, "µs"), (48, "µs"), (110, "FLOP")):
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(fitting_table(read_run(finished[0]), console))
        text = console.export_text()
        assert "…" not in text
        assert shown in text
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_json_is_records_and_nothing_else(lisabench: Run, tmp_path: Path) -> None:
    done = lisabench("scale", "--op", "linear", "--tokens", "16,25", *SMALL, "--json", "--out", "run")
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == records(tmp_path / "run")


def test_dry_run_prints_the_plan_and_writes_nothing(lisabench: Run, tmp_path: Path) -> None:
    done = lisabench("scale", "--op", "lisa", "--preset", "swin-t,sam-b", "--dry-run")
    assert done.returncode == 0
    assert "4,096" in done.stdout
    assert "64x64" in done.stdout
    assert "10 cells" in done.stdout
    done = lisabench(
        "scale", "--op", "softmax_dense", "--no-baseline", "--tokens", "64", "--dim", "64", "--heads", "2", "--dry-run", "--json"
    )
    (cell,) = (json.loads(line) for line in done.stdout.splitlines())
    assert cell["predicted_flops"] == 4 * 64 * 64 * 64
    assert not list(tmp_path.iterdir())


def test_quiet_says_results_only(lisabench: Run) -> None:
    done = lisabench("scale", "--op", "linear", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run", "--quiet")
    assert done.stderr == ""
    assert "linear" in done.stdout


def test_a_run_over_resolutions_tells_growth_in_pixels(lisabench: Run, tmp_path: Path) -> None:
    done = lisabench("scale", "--op", "linear", "--no-baseline", "--resolution", "16,32,64", "--patch", "8", *SMALL, "--out", "run")
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["patch"] == 8
    assert "over the side of the image in pixels" in done.stdout
    assert "flops ~ s^2.00" in done.stdout


@pytest.mark.slow
def test_the_default_run_is_a_new_folder_under_reports(lisabench: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert lisabench("scale", "--op", "linear", "--no-baseline", "--tokens", "16", *SMALL, "--quiet").returncode == 0
    runs = list((tmp_path / "reports").iterdir())
    assert len(runs) == 2
    assert all(run.name.startswith("scale-linear-") and (run / "journal.jsonl").exists() for run in runs)


WRONG: dict[str, tuple[list[Any], str]] = {
    "no operator": ([], "--op names no operator"),
    "unknown operator": (["--op", "lisaa"], "did you mean 'lisa'"),
    "tokens 0": (["--op", "lisa", "--tokens", "0"], "--tokens got '0'"),
    "tokens no number": (["--op", "lisa", "--tokens", "many"], "valid: whole numbers"),
    "two axes": (["--op", "lisa", "--tokens", "64", "--resolution", "224"], "given together"),
    "preset and dim": (["--op", "lisa", "--preset", "deit-t", "--dim", "64"], "--preset sets --dim"),
    "unknown preset": (["--op", "lisa", "--preset", "deit"], "did you mean 'deit-"),
    "patch": (["--op", "lisa", "--resolution", "225"], "the nearest that is: 224x224"),
    "patch 0": (["--op", "lisa", "--resolution", "224", "--patch", "0"], "--patch got 0"),
    "dim and heads": (["--op", "lisa", "--dim", "33", "--heads", "2"], "not a multiple"),
    "heads 0": (["--op", "lisa", "--heads", "0"], "--heads got 0"),
    "dtype": (["--op", "lisa", "--dtype", "fp7"], "valid: fp32, bf16, fp16, fp64"),
    "mode": (["--op", "lisa", "--mode", "sideways"], "valid: forward, train"),
    "scope": (["--op", "lisa", "--scope", "all"], "valid: mixing, layer"),
    "batch": (["--op", "lisa", "--batch", "-1"], "--batch got '-1'"),
    "option": (["--op", "lisa", "--op-option", "colour=red"], "unknown option"),
    "option value": (["--op", "lisa", "--op-option", "engine=magic"], "valid: auto, mixed, fft, dense"),
    "budget": (["--op", "lisa", "--budget", "-3"], "--budget got -3"),
    "budget nan": (["--op", "lisa", "--budget", "nan"], "--budget got nan"),
    "cell timeout": (["--op", "lisa", "--cell-timeout", "0"], "--cell-timeout got 0"),
    "threads": (["--op", "lisa", "--threads", "0"], "--threads got 0"),
    "device": (["--op", "lisa", "--device", "tpu"], "valid: auto, cpu, cuda"),
    "baseline": (["--op", "lisa", "--baseline", "softmx"], "did you mean 'softmax'"),
    "tokens beyond all": (["--op", "lisa", "--tokens", "1" + "0" * 30], "valid: whole numbers of 1 to"),
    "dim beyond all": (["--op", "lisa", "--dim", "1" + "0" * 30, "--heads", "1"], "--dim got"),
    "seed": (["--op", "lisa", "--seed", "9" * 30], "--seed got"),
    "threads beyond all": (["--op", "lisa", "--threads", "99999999"], "--threads got"),
    "time beyond all": (["--op", "lisa", "--cell-timeout", "1e12"], "--cell-timeout got"),
    "two scopes": (["--op", "lisa", "--scope", "mixing,layer"], "one of them"),
    "two baselines": (["--op", "lisa", "--baseline", "linear", "--no-baseline"], "given together"),
    "patch without resolution": (["--op", "lisa", "--patch", "8"], "--patch goes with --resolution"),
    "axes but no operator": (["--resume", "--tokens", "64"], "--op names no operator"),
    "file with a long name": (["--op", "x" * 300 + ".py:Mixer"], "is not there"),
    "file": (["--op", "nowhere.py:Mixer"], "is not there"),
    "resume nothing": (["--op", "lisa", "--resume"], "is no"),
    "unknown flag": (["--op", "lisa", "--token", "64"], "No such option"),
    "not a number": (["--op", "lisa", "--dim", "wide"], "--dim"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_writes_nothing(name: str, lisabench: Run, tmp_path: Path) -> None:
    args, words = WRONG[name]
    done = lisabench("scale", *args, "--out", "never")
    assert done.returncode == 2, done.stderr
    assert words in only_error(done)
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_resume_with_other_axes_is_not_silent(finished: tuple[Path, subprocess.CompletedProcess[str]], lisabench: Run) -> None:
    done = lisabench("scale", "--resume", "--out", finished[0], "--dtype", "bf16")
    assert done.returncode == 2
    assert "axes were given" in only_error(done)


def test_output_that_cannot_be_written_is_exit_code_4(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = subprocess.run(["bash", "-c", f"{PROGRAM} report {finished[0]} > /dev/full"], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "cannot be written" in only_error(done)


def test_a_terminal_without_our_letters_gets_others(finished: tuple[Path, subprocess.CompletedProcess[str]], lisabench: Run) -> None:
    done = lisabench("report", finished[0], PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "lisa" in done.stdout


def test_a_module_of_the_users_folder_does_not_shadow_ours(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError\n")
    assert lisabench("scale", "--op", "linear", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run").returncode == 0


def test_a_file_that_prints_keeps_json_pure(lisabench: Run, own_operators: Path, tmp_path: Path) -> None:
    own_operators.write_text("print('hello')\n" + own_operators.read_text())
    done = lisabench("scale", "--op", "own.py:Plain", "--no-baseline", "--tokens", "16", *SMALL, "--json", "--out", "run")
    assert [json.loads(line) for line in done.stdout.splitlines()] == records(tmp_path / "run")


def test_resume_without_out_is_told(lisabench: Run) -> None:
    done = lisabench("scale", "--op", "lisa", "--resume")
    assert done.returncode == 2
    assert "--resume needs --out" in only_error(done)


def test_no_gpu_is_exit_code_3(lisabench: Run) -> None:
    import torch

    index = torch.cuda.device_count()
    done = lisabench("scale", "--op", "lisa", "--device", f"cuda:{index}", "--out", "never")
    assert done.returncode == 3
    assert "is not there" in only_error(done)


@pytest.mark.slow
def test_an_existing_run_stays_and_another_sweep_does_not_go_into_it(lisabench: Run, tmp_path: Path) -> None:
    args = ["scale", "--op", "linear", "--no-baseline", *SMALL, "--out", "run"]
    assert lisabench(*args, "--tokens", "16").returncode == 0
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    again = lisabench(*args, "--tokens", "16")
    assert again.returncode == 2
    assert "--resume" in only_error(again)
    other = lisabench(*args, "--tokens", "16,25", "--resume")
    assert other.returncode == 2
    assert "holds another sweep" in only_error(other)
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_a_changed_operator_file_is_another_operator(lisabench: Run, own_operators: Path, tmp_path: Path) -> None:
    args = ["scale", "--op", "own.py:Plain", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run"]
    assert lisabench(*args).returncode == 0
    own_operators.write_text(own_operators.read_text() + "\n# changed\n")
    done = lisabench("scale", "--resume", "--out", "run")
    assert done.returncode == 2
    assert "has changed" in only_error(done)


@pytest.mark.slow
def test_a_broken_operator_does_not_disturb_the_others(lisabench: Run, own_operators: Path, tmp_path: Path) -> None:
    done = lisabench("scale", "--op", "own.py:Raises,own.py:Dies,own.py:Plain", "--no-baseline", "--tokens", "16", *SMALL, "--out", "run")
    assert done.returncode == 0
    states = {r["op"]: r["status"] for r in records(tmp_path / "run")}
    assert states == {"own.py:Raises": "error", "own.py:Dies": "crash", "own.py:Plain": "ok"}
    assert "no such luck" in done.stdout
    assert "not measured: 1 crash, 1 error" in done.stderr
