"""`lisabench report` of sweeps as a user meets it: where files go, what is chosen, what is joined, bundled and refused."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM
from made_runs import A100, EPYC, H200, fleet_run, made_run
from made_trainings import THIS_MACHINE, write_sweep

Report = Callable[..., tuple[int, str, str]]
SIZES = {16: 1e-5, 64: 2e-5, 256: 4e-5, 1024: 9e-5}
ELSEWHERE = THIS_MACHINE | {"device_name": "Another CPU"}


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_all_that_a_paper_takes_is_written(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES), "softmax": list(SIZES)})
    code, out, err = report("run")
    assert code == 0, err
    assert "lisa" in out
    run = tmp_path / "run"
    assert {"latency.pdf", "latency.png", "flops.pdf", "slope.pdf", "throughput.pdf"} <= {path.name for path in (run / "figures").iterdir()}
    assert {"summary.tex", "summary.md", "summary.csv", "summary-caption.tex"} <= {path.name for path in (run / "tables").iterdir()}
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert len(rows(run)) == 8


def test_files_go_where_they_are_sent_in_the_venues_format(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES)})
    before = {path.name for path in (tmp_path / "run").iterdir()}
    code, _, err = report("run", "--out", "paper", "--venue", "neurips", "--format", "svg,pgf", "--quiet")
    assert (code, err) == (0, "")
    assert {path.suffix for path in (tmp_path / "paper/figures").iterdir()} == {".svg", ".pgf"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == before


def test_runs_of_two_devices_are_joined_in_panels(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "one", {"lisa": list(SIZES)})
    write_sweep(tmp_path / "two", {"lisa": list(SIZES)}, environment=ELSEWHERE)
    code, out, err = report("one", "two")
    assert code == 0, err
    assert ("one:" in out, "two:" in out) == (True, True)
    found = rows(tmp_path / "one/joined")
    assert {(row["label"], row["run"], row["device_name"]) for row in found} == {
        ("lisa", "one", "AMD EPYC, 2 threads"),
        ("lisa", "two", "Another CPU, 2 threads"),
    }


def test_a_run_over_several_kinds_of_devices_needs_no_mix(report: Report, tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1, EPYC: 3}, never=(EPYC,))
    code, out, err = report("run")
    assert code == 0, err
    assert [line for line in out.splitlines() if line in (f"{EPYC}:", f"{H200}:")] == [f"{EPYC}:", f"{H200}:"]
    found = rows(tmp_path / "run")
    assert {(row["device_name"], row["device_kind"], row["host"], row["device_id"], row["status"]) for row in found} == {
        (H200, H200, f"host of {H200}", "0", "ok"),
        (EPYC, EPYC, "", "", "skipped"),
    }
    fleet_run(tmp_path / "old", {H200: 1, EPYC: 3}, known=False)
    assert report("old")[0] == 0
    assert {(row["device_name"], row["device_kind"]) for row in rows(tmp_path / "old")} == {(H200, ""), (EPYC, "")}


def test_one_kind_of_device_in_two_environments_is_refused_though_another_kind_stands_beside_it(report: Report, tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1, EPYC: 3})
    fleet_run(tmp_path / "more", {H200: 1, EPYC: 3}, sizes=(128,), driver="571.1")
    for name in ("journal.jsonl", "environment.json"):
        parts = [(tmp_path / run / name).read_text() for run in ("run", "more")]
        both = "".join(parts) if name == "journal.jsonl" else json.dumps(json.loads(parts[0]) | json.loads(parts[1]))
        (tmp_path / "run" / name).write_text(both)
    code, out, err = report("run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"the machines with {H200} that 'run' was measured on differ in driver ('570.86' and '571.1')" in err
    assert report("run", "--mix")[0] == 0
    assert report("run", "--where", f"device_kind={EPYC}")[0] == 0


def test_where_takes_kinds_of_devices_whose_names_hold_commas(report: Report, tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1, A100: 2, EPYC: 3})
    for asked in ([EPYC], [EPYC, A100], [A100, EPYC, H200]):
        assert report("run", "--where", f"device_kind={','.join(asked)}", "--quiet")[0] == 0
        assert {row["device_name"] for row in rows(tmp_path / "run")} == {*asked}
    code, _, err = report("run", "--where", "device_kind=AMD EPYC")
    assert code == 2
    assert f"of device_kind it has: {EPYC}, {A100}, {H200}" in err


def test_runs_of_one_device_are_told_apart_by_name(report: Report, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sweep(tmp_path / name, {"lisa": list(SIZES)})
    assert report("one", "two")[0] == 0
    assert {row["label"] for row in rows(tmp_path / "one/joined")} == {"lisa, one", "lisa, two"}


def test_where_chooses_cells(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES), "softmax": list(SIZES)}, modes=["forward", "train"])
    assert report("run", "--out", "some", "--where", "mode=train", "--where", "tokens=64,256", "--quiet")[0] == 0
    assert {(row["mode"], row["tokens"]) for row in rows(tmp_path / "some")} == {("train", "64"), ("train", "256")}
    code, out, err = report("run", "--where", "mode=sideways")
    assert (code, out) == (2, "")
    assert "of mode it has: forward, train" in err


def test_a_bundle_is_read_back_to_the_same_results(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES), "softmax": list(SIZES)})
    code, first, err = report("run", "--bundle", "paper.zip")
    assert code == 0, err
    assert "the bundle paper.zip has" in err
    code, again, err = report("paper.zip")
    assert code == 0, err
    assert again == first
    for name in ("results.csv", "figures/latency.pdf", "tables/summary.tex"):
        assert (tmp_path / "paper" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    code, out, err = report("paper.zip")
    assert (code, out) == (2, "")
    assert "is there already" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--venue", "cpvr"], "unknown venue 'cpvr'; did you mean 'cvpr'"),
        (["--width", "half"], "'half'"),
        (["--format", "pdf,gif"], "'gif'"),
        (["--bundle", "paper.tar"], "ends in .zip"),
        (["--where", "colour=red"], "unknown field in --where 'colour'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_written(args: list[str], words: str, report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": [16]})
    code, out, err = report("run", *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run/results.csv").exists()


def test_a_folder_that_cannot_be_written(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": [16]})
    (tmp_path / "file").write_text("")
    code, _, err = report("run", "--out", "file/here")
    assert code == 4
    assert "cannot be written" in err


def test_a_journal_of_a_newer_lisabench(report: Report, tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "run", {"lisa": [16]})
    (tmp_path / "run/journal.jsonl").write_text(json.dumps(run.records[0] | {"schema": 99}) + "\n")
    code, out, err = report("run")
    assert (code, out) == (2, "")
    assert "has schema 99; this lisabench reads 1" in err


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", r"100% of $x_1$ & \foo{#}"])
def test_names_with_markup_show_themselves(name: str, report: Report, tmp_path: Path) -> None:
    made_run(tmp_path / "run", SIZES, op=name)
    code, out, err = report("run")
    assert code == 0, err
    assert name in out
    page = (tmp_path / "run/report.html").read_text()
    assert "<img src=x" not in page
    assert "100% of $" not in (tmp_path / "run/tables/latency.tex").read_text()


@pytest.mark.parametrize(("medians", "words"), [({16: 1e-5}, "one size"), ({16: "oom", 64: "timeout"}, "oom")])
def test_little_or_nothing_measured_is_said(medians: dict[int, float | str], words: str, report: Report, tmp_path: Path) -> None:
    made_run(tmp_path / "run", medians)
    code, out, err = report("run")
    assert code == 0, err
    page = (tmp_path / "run/report.html").read_text()
    assert words in out + page
    assert "NaN" not in page.partition("<script")[0]


def test_a_reader_that_went_away(tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES)})
    told = subprocess.run(
        ["bash", "-c", f"{PROGRAM} report run | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (told.stdout.strip(), told.stderr) == ("141", "")


def test_files_of_an_earlier_report_are_told_and_left(report: Report, tmp_path: Path) -> None:
    write_sweep(tmp_path / "run", {"lisa": list(SIZES), "softmax": list(SIZES)})
    assert "earlier" not in report("run", "--format", "svg")[2]
    assert "earlier" not in report("run", "--format", "svg")[2]
    code, _, err = report("run", "--format", "pgf")
    svgs = sorted((tmp_path / "run/figures").glob("*.svg"))
    assert code == 0
    assert f"{len(svgs)} files of earlier reports stand beside them, such as figures/{svgs[0].name}" in err
