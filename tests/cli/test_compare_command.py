"""`compare` as its users meet it."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import only_error
from made_runs import A100, EPYC, H200, fleet_run, made_run
from rich.console import Console

from lisabench.cli import console
from lisabench.cli.compare import SlowerError, compare
from lisabench.errors import InputError

Run = Callable[..., subprocess.CompletedProcess[str]]
MANY = [{"batch": batch} for batch in range(1, 26)]


def shown(base: Path, new: Path, monkeypatch: pytest.MonkeyPatch, *, columns: int = 110, show_all: bool = False) -> str:
    """What is printed on a terminal of so many columns."""
    screen = Console(width=columns, file=io.StringIO(), record=True, force_terminal=True)
    monkeypatch.setattr(console, "results", lambda: screen)
    compare(base, new, show_all=show_all)
    text = screen.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    assert "…" not in text
    return text


def test_compare(lisabench: Run, tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 2.0, 64: 3.0, 128: 1.0, 512: 1.0})
    made_run(tmp_path / "new", {16: 1.0, 32: 1.5, 64: 4.0, 256: 1.0, 512: "oom"})
    done = lisabench("compare", "base", "new", "--json")
    assert done.returncode == 0
    found = {row["tokens"]: row for row in map(json.loads, done.stdout.splitlines())}
    verdicts = {16: "same", 32: "faster", 64: "slower", 128: None, 256: None, 512: None}
    assert {tokens: row["verdict"] for tokens, row in found.items()} == verdicts
    assert found[32]["ratio"] == pytest.approx(0.75)
    assert found[32]["ratio_ci_low"] <= 0.75 <= found[32]["ratio_ci_high"]
    assert found[32]["p_value"] < found[16]["p_value"]
    assert {"height": 4, "width": 8, "dim": 192, "heads": 3, "scope": "mixing", "device": "cpu", "compiled": False}.items() <= found[
        32
    ].items()
    statuses = {tokens: (row["base_status"], row["new_status"]) for tokens, row in found.items() if row["verdict"] is None}
    assert statuses == {128: ("ok", None), 256: (None, "ok"), 512: ("ok", "oom")}


def test_fail_on_slower(lisabench: Run, tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 2.0, 64: 3.0})
    made_run(tmp_path / "new", {16: 1.0, 32: 1.5, 64: 4.0})
    done = lisabench("compare", "base", "new", "--fail-on", "slower")
    assert done.returncode == 1
    assert "1 of 3 cells are slower than in 'base'; see the lines above" in only_error(done)
    assert "1 faster" in done.stdout
    compare(tmp_path / "base", tmp_path / "new", fail_on="slower", threshold="50%")


def test_a_cell_that_no_longer_finishes_fails_as_a_slower_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, ended in (("base", 2.0), ("new", "timeout"), ("cut", "skipped")):
        made_run(tmp_path / name, {16: 1.0, 32: ended})
    with pytest.raises(SlowerError, match="1 that finished there fail"):
        compare(tmp_path / "base", tmp_path / "new", fail_on="slower")
    assert "linear at 32 tokens: was ok, now timeout (it was so)" in capsys.readouterr().out
    compare(tmp_path / "base", tmp_path / "cut", fail_on="slower")
    assert "was ok, now skipped" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 110])
def test_the_table_tells_cells_apart_and_fits(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = [{"dtype": dtype, "dim": dim} for dtype in ("fp32", "bf16") for dim in (64, 192)]
    for name, median in (("base", 1.0), ("new", 1.5)):
        made_run(tmp_path / name, {64: median}, op="experiments/variants/mine.py:CrossCovarianceAttention", axes=axes)
    text = shown(tmp_path / "base", tmp_path / "new", monkeypatch, columns=columns)
    assert "experiments" not in text
    assert "batch" not in text
    assert sum("1.50" in line for line in text.splitlines() if line.rstrip().endswith("slower")) == 4
    assert "4 slower of 4 cells" in text
    assert text.count("bf16") == text.count("fp32") == 2
    assert ("left out on 60 columns: base, new" in text) is (columns == 60)


def test_of_many_cells_those_that_changed_are_shown_and_the_others_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 1.0}, axes=MANY)
    made_run(tmp_path / "new", {16: 1.0, 32: 1.0}, axes=MANY[1:])
    extra = tmp_path / "extra"
    made_run(extra, {16: 2.0, 32: 3.0}, axes=MANY[:1])
    with (tmp_path / "new" / "journal.jsonl").open("a") as journal:
        journal.write((extra / "journal.jsonl").read_text())
    text = shown(tmp_path / "base", tmp_path / "new", monkeypatch)
    lines = [line for line in text.splitlines() if "linear" in line]
    assert [line.split()[0] for line in lines] == ["32", "16"], "the largest change first"
    assert "48 of 50 cells are not shown: 48 same; --all shows them" in text
    assert "48 same, 2 slower of 50 cells" in text
    text = shown(tmp_path / "base", tmp_path / "new", monkeypatch, show_all=True)
    assert sum("linear" in line for line in text.splitlines()) == 50
    assert "not shown" not in text


def test_where_everything_changed_the_table_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 1.0}, axes=MANY)
    made_run(tmp_path / "new", {16: 2.0, 32: 2.0}, axes=MANY)
    text = shown(tmp_path / "base", tmp_path / "new", monkeypatch)
    assert sum("linear" in line for line in text.splitlines()) == 40
    assert "10 of 50 cells are not shown: 10 slower" in text


@pytest.mark.parametrize("columns", [60, 110])
def test_operators_are_summed_up_and_what_speaks_against_trust_is_said(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one machine's mood: four operators that became slower alike."""
    for name, factor in (("base", 1.0), ("new", 1.2)):
        for op in ("linear", "lisa", "[red]", "<b>"):
            made_run(tmp_path / f"{name} {op}", {16: factor, 32: factor * 1.01}, op=op, warnings=["noisy: very"])
        first = tmp_path / f"{name} linear"
        plan = json.loads((first / "plan.json").read_text())
        plan["operators"] = {op: {"given": {}} for op in ("linear", "lisa", "[red]", "<b>")}
        (first / "plan.json").write_text(json.dumps(plan))
        with (first / "journal.jsonl").open("a") as journal:
            for op in ("lisa", "[red]", "<b>"):
                journal.write((tmp_path / f"{name} {op}" / "journal.jsonl").read_text())
    text = " ".join(shown(tmp_path / "base linear", tmp_path / "new linear", monkeypatch, columns=columns).split())
    assert "mean ratio" in text
    assert text.count("[red]") == 3
    assert "8 slower of 8 cells; new / base is 1.200 (1.200 to 1.200) in the geometric mean" in text
    assert "all 4 operators moved the same way: where their code did not change, the machine did" in text
    assert "slower*" in text
    assert "* 8 of the 8 that changed carry warnings of noise" in text


@pytest.mark.parametrize("form", ["pdf", "png", "svg", "pgf"])
def test_the_figure_is_written(form: str, tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 2.0})
    made_run(tmp_path / "new", {16: 1.0, 32: 3.0})
    figure = tmp_path / "figures" / f"ratios.{form}"
    compare(tmp_path / "base", tmp_path / "new", figure=figure)
    begins = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml", "pgf": b"\\begingroup"}[form]
    assert figure.read_bytes().startswith(begins)
    once = figure.read_bytes()
    compare(tmp_path / "base", tmp_path / "new", figure=figure)
    assert figure.read_bytes() == once


def test_different_machines_are_refused_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path / "base", {16: 1.0})
    made_run(tmp_path / "new", {16: 2.0}, device_name="another CPU")
    with pytest.raises(InputError, match="differ in device_name"):
        compare(tmp_path / "base", tmp_path / "new")
    compare(tmp_path / "base", tmp_path / "new", mix=True)
    assert "the runs differ in device_name" in capsys.readouterr().err


def test_kinds_of_devices_stand_apart_and_what_only_one_run_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet_run(tmp_path / "base", {H200: 1, EPYC: 1})
    fleet_run(tmp_path / "new", {A100: 1, EPYC: 2, H200: 0.5}, ended={(EPYC, "softmax", 65536): "timeout"})
    text = shown(tmp_path / "base", tmp_path / "new", monkeypatch)
    epyc, h200 = text.partition(f"{H200}:")[::2]
    assert epyc.startswith(f"{EPYC}:")
    assert "9 slower of 9 cells; new / base is 2.000" in epyc
    assert "10 faster of 10 cells; new / base is 0.500" in h200
    assert ("faster " in epyc.partition("operator  cells")[0], "slower " in h200.partition("operator  cells")[0]) == (False, False)
    assert f"softmax at 65,536 tokens on {EPYC}: was ok, now timeout" in text
    assert f"10 cells only in the new run, on {A100}" in text


def test_a_pair_says_on_which_device_each_of_it_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet_run(tmp_path / "base", {H200: 1, EPYC: 3}, sizes=(256,))
    fleet_run(tmp_path / "new", {A100: 1}, sizes=(256,))
    compare(tmp_path / "base", tmp_path / "new", mix=True, where=[f"device_kind={H200},{A100}"], as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["base_device"], row["new_device"]) for row in told} == {(H200, A100)}
    for mix in (False, True):
        with pytest.raises(InputError, match="no kind of device is in both"):
            compare(tmp_path / "base", tmp_path / "new", mix=mix)


def test_another_driver_on_one_of_the_kinds_is_refused(tmp_path: Path) -> None:
    for name, driver in (("base", "570.86"), ("new", "571.1")):
        fleet_run(tmp_path / name, {H200: 1, EPYC: 3}, sizes=(256,), driver=driver)
    with pytest.raises(InputError, match="differ in driver"):
        compare(tmp_path / "base", tmp_path / "new")
    compare(tmp_path / "base", tmp_path / "new", where=[f"device_kind={EPYC}"])


@pytest.mark.parametrize(
    ("new", "settings", "words"),
    [
        ("nowhere", {}, "is no run"),
        ("apart", {}, "share no finished cell: they differ in tokens (16 and 32)"),
        ("base", {}, "are the same run"),
        ("empty", {}, "holds no records yet"),
        ("apart", {"threshold": "much"}, "--threshold got 'much'"),
        ("apart", {"fail_on": "faster"}, "valid: slower"),
        ("apart", {"figure": Path("ratios.gif")}, "valid: a file that ends in .pdf, .png, .svg, .pgf"),
    ],
)
def test_compare_refuses(new: str, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0})
    made_run(tmp_path / "apart", {32: 1.0})
    made_run(tmp_path / "empty", {})
    with pytest.raises(InputError) as refused:
        compare(tmp_path / "base", tmp_path / new, **settings)
    assert words in str(refused.value)


def test_a_run_alone_is_wrong_usage(lisabench: Run) -> None:
    done = lisabench("compare", "base")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument" in only_error(done)
