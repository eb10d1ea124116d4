"""Tables of whole runs, as files: their figures are those of the records."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_trainings import accuracies, write_run, write_sweep

from lisabench.errors import RunError
from lisabench.render.summary_table import common_size
from lisabench.render.tables import write_tables
from lisabench.results import Run, joined

SIZES = (256, 4096)  # too few for laws, which take time
SWEEP = ("latency", "memory", "flops", "latency-intervals", "summary", "crossovers")
ENDINGS = (".tex", ".md", ".csv", "-caption.txt", "-caption.tex")
HOSTILE = r"my_op & <b>$x^2$ 100%\foo"


def sweep(path: Path, *ops: str, modes: tuple[str, ...] = ("forward",), sizes: tuple[int, ...] = SIZES) -> Run:
    """Of these operators each takes a nanosecond a token more than the one before; the first is the baseline."""
    run = write_sweep(path, dict.fromkeys(ops, sizes), modes=modes)
    return replace(run, plan=run.plan | {"baseline": ops[0]})


def failed(run: Run, op: str, status: str, *, tokens: int = 0) -> Run:
    """The run in which an operator failed from so many tokens on."""
    gone: dict[str, Any] = {"status": status, "latency_s": None, "memory_bytes": None, "flops": None}
    return replace(run, records=[one | (gone if one["op"] == op and one["tokens"] >= tokens else {}) for one in run.records])


def read(run: Run, folder: Path, name: str) -> list[dict[str, str]]:
    write_tables(run, [], folder)
    return rows_of(folder / f"{name}.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_table_is_written_in_every_format_with_its_caption(tmp_path: Path) -> None:
    run, training = sweep(tmp_path / "run", "softmax", "lisa"), write_run(tmp_path / "training", accuracies(["lisa", "softmax"]))
    paths = write_tables(run, [training], tmp_path / "tables")
    assert sorted(path.name for path in paths) == sorted(name + ending for name in (*SWEEP, "accuracy") for ending in ENDINGS)
    assert all(path.read_text().strip() for path in paths)
    assert write_tables(None, [], tmp_path / "none") == []


def test_the_same_run_gives_the_same_bytes_whatever_the_order_of_its_records(tmp_path: Path) -> None:
    run = sweep(tmp_path / "run", "softmax", "lisa", "linear", modes=("forward", "train"))
    first = write_tables(run, [], tmp_path / "a")
    again = write_tables(replace(run, records=run.records[::-1]), [], tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_figures_are_those_of_the_records_in_the_unit_of_the_heading(tmp_path: Path) -> None:
    rows = read(sweep(tmp_path / "run", "softmax", "lisa"), tmp_path, "latency-intervals")
    assert [row["operator"] for row in rows] == ["softmax", "lisa"]
    for place, row in enumerate(rows, 1):
        for tokens in SIZES:
            latency = place * tokens * 1e-3
            found = [float(row[f"{tokens} (µs){end}"]) for end in ("", ", low", ", high")]
            assert found == pytest.approx([latency, 0.9 * latency, 1.1 * latency])


def test_the_best_is_bold_and_the_floor_never_is(tmp_path: Path) -> None:
    write_tables(sweep(tmp_path / "run", "identity", "softmax", "linear", "lisa"), [], tmp_path)
    lines = {line.split(" | ")[0].strip("| "): line for line in (tmp_path / "latency.md").read_text().splitlines() if line.startswith("|")}
    assert "**" in lines["softmax"]
    assert "<ins>" in lines["linear"]
    assert not any(mark in lines[name] for name in ("identity", "lisa") for mark in ("**", "<ins>"))


@pytest.mark.parametrize("status", ["oom", "timeout", "wrong"])
def test_what_failed_shows_how(tmp_path: Path, status: str) -> None:
    rows = read(failed(sweep(tmp_path / "run", "softmax", "lisa"), "softmax", status, tokens=4096), tmp_path, "latency")
    softmax = next(row for row in rows if row["operator"] == "softmax")
    assert softmax["4096 (µs)"] == status
    assert float(softmax["256 (µs)"]) == pytest.approx(0.256)
    assert f"{{{status}}}" in (tmp_path / "latency.tex").read_text()


def test_workloads_have_a_block_each(tmp_path: Path) -> None:
    rows = read(sweep(tmp_path / "run", "softmax", "lisa", modes=("forward", "train")), tmp_path, "latency")
    assert [(row["workload"], row["operator"]) for row in rows] == [
        (mode, op) for mode in ("forward", "forward + backward") for op in ("softmax", "lisa")
    ]


def test_what_is_longer_than_a_page_is_cut_between_workloads(tmp_path: Path) -> None:
    run = sweep(tmp_path / "run", *(f"op{place}" for place in range(9)))
    records = [record | {"batch": batch, "cell": f"{record['cell']}{batch}"} for batch in (1, 2, 4, 8, 16, 32) for record in run.records]
    write_tables(replace(run, records=records), [], tmp_path)
    pages = sorted(path.name for path in tmp_path.glob("memory*.csv"))
    assert pages == ["memory-1.csv", "memory-2.csv"]
    assert sum(len(rows_of(tmp_path / page)) for page in pages) == 54


def test_the_summary_compares_with_the_baseline_at_a_size_that_most_have_finished(tmp_path: Path) -> None:
    run = failed(sweep(tmp_path / "run", "softmax", "lisa", "linear", sizes=(256, 1024, 4096, 16384)), "linear", "oom", tokens=1024)
    rows = {row["operator"]: row for row in read(run, tmp_path, "summary")}
    assert float(rows["lisa"]["at 16384 tokens: speed-up (×)"]) == pytest.approx(0.5)
    assert rows["linear"]["at 16384 tokens: latency (µs)"] == "oom"
    assert float(rows["lisa"]["exponent: latency"]) == pytest.approx(1, abs=1e-3)
    assert rows["lisa"]["cheaper than softmax from: latency"] == "none"
    assert rows["lisa"]["cheaper than softmax from: memory"] == "equal"
    assert common_size(failed(run, "softmax", "oom", tokens=4096).frame(), "softmax") == 1024


def test_crossovers_stand_beside_efficiency_lengths(tmp_path: Path) -> None:
    run = sweep(tmp_path / "run", "softmax", "lisa", "identity", sizes=(256, 1024, 4096, 16384))
    square = [
        one | {"latency_s": one["latency_s"] | {"median": 1e-12 * one["tokens"] ** 2, "samples": [1e-12 * one["tokens"] ** 2] * 9}}
        for one in run.records
    ]
    run = replace(run, records=[new if new["op"] == "softmax" else old for new, old in zip(square, run.records, strict=True)])
    (row,) = read(run, tmp_path, "crossovers")
    assert row["operator"] == "lisa"
    assert float(row["latency: cheaper from"]) == pytest.approx(2000, rel=0.02)
    assert float(row["latency: efficiency length"]) == pytest.approx(2000, rel=0.02)
    assert row["memory: cheaper from"] == "equal"
    quadratic = replace(run, plan=run.plan | {"operators": {"lisa": {"family": "quadratic"}}})
    (row,) = read(quadratic, tmp_path / "quadratic", "crossovers")
    assert row["latency: efficiency length"] == "–"
    assert "CAB" in (tmp_path / "crossovers-caption.txt").read_text()
    assert not (tmp_path / "alone").exists()
    write_tables(sweep(tmp_path / "other", "softmax"), [], tmp_path / "alone")
    assert not list((tmp_path / "alone").glob("crossovers*"))


@pytest.mark.parametrize("ops", [("softmax",), ("softmax", "lisa", "identity")])
def test_one_size_has_no_law_and_a_run_in_which_all_failed_has_words(tmp_path: Path, ops: tuple[str, ...]) -> None:
    run = sweep(tmp_path / "run", *ops)
    one = replace(run, records=[record for record in run.records if record["tokens"] == 256])
    assert {row["exponent: latency"] for row in read(one, tmp_path / "one", "summary")} == {"–"}
    for op in ops:
        run = failed(run, op, "oom")
    rows = read(run, tmp_path / "none", "latency")
    assert {value for row in rows for name, value in row.items() if name[0].isdigit()} == {"oom"}


def test_runs_joined_have_a_row_for_each_label(tmp_path: Path) -> None:
    run = joined([sweep(tmp_path / name, "softmax", "lisa") for name in ("a", "b")])
    assert sorted(row["operator"] for row in read(run, tmp_path, "latency")) == ["lisa, a", "lisa, b", "softmax, a", "softmax, b"]


def test_trainings_stand_with_their_accuracy_or_how_they_failed(tmp_path: Path) -> None:
    training = write_run(tmp_path / "run", {"lisa": [0.99, 0.98, 0.985], "softmax": [0.9, 0.91, 0.89], "fnet": ["diverged"] * 3})
    write_tables(None, [training], tmp_path)
    rows = {row["operator"]: row for row in rows_of(tmp_path / "accuracy.csv")}
    assert float(rows["lisa"]["top-1 (%)"]) == pytest.approx(98.5)
    assert rows["fnet"]["top-1 (%)"] == "diverged"
    assert "**98.5**" in (tmp_path / "accuracy.md").read_text()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_tables(sweep(tmp_path / "run", "softmax", HOSTILE), [], tmp_path / "tables")
