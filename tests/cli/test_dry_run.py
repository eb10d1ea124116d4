"""What `lisabench scale --dry-run` prints of a plan, in this process."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import only_error
from made_runs import A100, H200, fleet_run
from rich.console import Console

from lisabench.axes import grids, resolve_operators
from lisabench.cli import console
from lisabench.cli.dry_run import print_plan, rough
from lisabench.errors import InputError
from lisabench.measure import kept_peaks
from lisabench.measure.latency import Limits
from lisabench.plans import Visits
from lisabench.presets import Shape
from lisabench.run.estimate import this_machine
from lisabench.sweep import Sweep

Printed = Callable[..., str]
PEAKS = {"flops_per_s_fp32": 1e9, "bytes_per_s": 1e9}


def plan(ops: str = "xcit,softmax_rpe", tokens: str = "64,256", *, dim: int = 32, heads: int = 2, **axes: Any) -> Visits:
    shapes = tuple(Shape(grid=grid, dim=dim, heads=heads) for grid in grids(tokens, None, 16))
    return Visits([Sweep(ops=tuple(resolve_operators([ops], None, [])), shapes=shapes, **axes)])


@pytest.fixture(autouse=True)
def no_peaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine was never measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """What is printed of a plan into a pipe."""

    def run(visits: Visits, *history: Path, as_json: bool = False, **more: Any) -> str:
        print_plan(visits, history=history, limits=Limits(), threads=1, as_json=as_json, **{"cell_timeout": 60.0} | more)
        return capsys.readouterr().out

    return run


@pytest.fixture
def measured() -> str:
    """This machine with known peaks; its name."""
    here = this_machine("cpu", 1)
    assert here is not None
    kept_peaks.keep(here, PEAKS)
    return f"{here['device_name']}, 1 thread"


def test_a_machine_that_was_never_measured_says_how_it_can_be(printed: Printed) -> None:
    text = printed(plan())
    assert "4 cells, in the order in which they run" in text
    last = text.splitlines()[-1]
    assert "1 thread (this machine): no estimate; `lisabench env`, with this --device and --threads, measures its peaks" in last
    assert "about" not in text


def test_what_is_told_of_a_machine_with_peaks(printed: Printed, measured: str) -> None:
    lines = printed(plan()).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("An estimate"))
    assert lines[first + 1].startswith(f"{measured} (this machine): about ")
    assert " on 1 device, " in lines[first + 1]
    assert lines[first + 2].startswith("  on however many, about ")
    assert lines[first + 2].endswith("the longest visit is 256 tokens (16 x 16), batch 1, forward, fp32")
    assert lines[first + 3 :] == ["  4 of 4 cells by the cost model alone, at an assumed 10% of the device's roofline"]


def test_earlier_records_are_told_from_the_cost_model(printed: Printed, measured: str, tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0, A100: 2.0}, ops=("xcit", "hydra"), sizes=(64,))
    environments = json.loads((tmp_path / "run" / "environment.json").read_text())
    known = {name: found | {"peaks": {"flops_per_s_fp32": 1e13, "bytes_per_s": 1e12}} for name, found in environments.items()}
    (tmp_path / "run" / "environment.json").write_text(json.dumps(known))
    text = printed(plan("xcit,softmax,afno", "64,256", dim=12), tmp_path / "run")
    for name in (H200, A100):
        part = text[text.index(f"{name}: about") :].splitlines()
        assert sorted(part[2:5]) == [
            "  2 of 6 cells by earlier records of their operators",
            "  2 of 6 cells by the cost model alone, at 10% of the device's roofline, as its records in the median",
            "  2 of 6 cells take no time: their operators refuse them",
        ]
    assert f"{measured} (this machine): about" in text


def test_what_is_in_no_figure_is_told(printed: Printed, measured: str) -> None:
    text = printed(plan("linear", "64", dtypes=("fp32", "bf16")))
    assert text.splitlines()[-1] == "  1 of 2 cells in no figure: no peak of bf16 is known of the device; `lisabench env` measures it"
    assert ", without the cells in no figure\n" in text
    assert "no estimate" in printed(plan("linear", "64", dtypes=("bf16",)))


def test_a_plan_for_several_kinds_names_them_row_by_row_and_tells_what_it_knows(printed: Printed, tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0}, ops=("xcit", "hydra"), sizes=(64,))
    visits = plan("xcit", "64,256", device="cuda:0", kinds=(H200, A100))
    text = printed(visits, tmp_path / "run")
    assert [text.count(name) for name in (H200, A100)] == [3, 3]
    assert f"{A100}: no estimate; --history RUN takes in earlier records of it" in text
    assert "2 of 2 cells by earlier records" in text
    rows = [json.loads(line) for line in printed(visits, tmp_path / "run", as_json=True).splitlines()]
    assert [(row["device_kind"], list(row.get("predicted_seconds", ()))) for row in rows] == [(H200, [H200])] * 2 + [(A100, [])] * 2


def test_json_is_a_line_a_cell_and_nothing_else(printed: Printed, measured: str) -> None:
    visits = plan("linear,softmax", "64,256", dtypes=("fp32", "bf16"))
    rows = [json.loads(line) for line in printed(visits, as_json=True).splitlines()]
    assert [row["cell"] for row in rows] == [cell.key for cell in visits.cells()]
    for row in rows:
        assert row["predicted_flops"] > 0
        assert row["predicted_bytes"] > 0
        assert row["predicted_seconds"].keys() == {measured}
        assert (row["predicted_seconds"][measured] is None) == (row["dtype"] == "bf16")


def test_json_of_a_machine_that_was_never_measured_has_no_seconds(printed: Printed) -> None:
    rows = [json.loads(line) for line in printed(plan(), as_json=True).splitlines()]
    assert len(rows) == 4
    assert not any("predicted_seconds" in row for row in rows)


def test_of_a_long_plan_the_first_and_the_last_cells_are_shown(printed: Printed) -> None:
    visits = plan("linear,softmax", ",".join(str(64 + step) for step in range(1000)))
    text = printed(visits)
    assert text.startswith("2,000 cells, in the order")
    assert "1,880 cells between the first 100 and the last 20 are left out; --json prints all" in text
    rows = [line for line in text.splitlines() if line.rstrip().endswith("KiB")]
    assert [sum(op in row for row in rows) for op in ("linear", "softmax")] == [60, 60]
    assert [rows[place].split()[0] for place in (0, 99, 100, 119)] == ["64", "113", "1,054", "1,063"]
    assert [rows[-2].split()[2], rows[-1].split()[2]] == [cell.op for cell in visits[len(visits) - 1]]
    assert "left out" not in printed(plan("linear,softmax", ",".join(str(64 + step) for step in range(100))))


def test_a_plan_that_is_looked_at_in_part_says_so(printed: Printed, measured: str) -> None:
    visits = plan("linear", ",".join(str(64 + step) for step in range(11_111)))
    text = printed(visits)
    assert "  about 11,000 of 11,111 cells by the cost model alone" in text
    looked_at = next(line for line in text.splitlines() if line.startswith("  from ")).split()
    assert 9_900 < int(looked_at[1].replace(",", "")) <= 10_000
    assert looked_at[2:] == ["of", "11,111", "workloads"]


@pytest.mark.parametrize("columns", [60, 110])
def test_all_of_it_fits_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: str) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0, A100: 2.0}, ops=("xcit", "hydra"), sizes=(64,))
    screen = io.StringIO()
    monkeypatch.setattr(console, "results", lambda: Console(file=screen, width=columns, force_terminal=True, color_system=None))
    history = [tmp_path / "run"]
    for visits in (
        plan("xcit,linear", ",".join(str(64 + step) for step in range(200)), dtypes=("fp32", "bf16"), modes=("forward", "train")),
        plan("xcit", "64,256", kinds=(H200, A100, "a device with a long name of 40 letters"), device="cuda:0"),
    ):
        print_plan(visits, history=history, limits=Limits(), threads=1, cell_timeout=60.0, as_json=False)
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)
    assert "no figure" in " ".join(lines)


def test_a_history_that_is_no_run_is_one_line(printed: Printed, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run: it has no plan.json; give a folder") as error:
        printed(plan(), tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_the_command_takes_a_history(lisabench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0}, ops=("xcit", "hydra"), sizes=(64,))
    words = ("scale", "--op", "xcit", "--no-baseline", "--tokens", "64", "--device", "cpu", "--dry-run", "--history")
    done = lisabench(*words, "run")
    assert done.returncode == 0, done.stderr
    assert f"{H200}: about" in done.stdout
    refused = lisabench(*words, "nowhere")
    assert refused.returncode == 2
    assert "'nowhere' is no run" in only_error(refused)
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (7.26, "7.3 s"),
        (59.4, "59 s"),
        (59.8, "1.0 min"),
        (75, "1.2 min"),
        (3599, "1.0 h"),
        (4000, "1.1 h"),
        (4.4e6, "1,200 h"),
    ],
)
def test_waits_have_two_digits(seconds: float, words: str) -> None:
    assert rough(seconds) == words
