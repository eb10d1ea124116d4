"""What is said beside tables and under figures of trainings, from made-up runs: how they came about, and how sure they are."""

from __future__ import annotations

from pathlib import Path

from field_figures import note
from made_trainings import ABLATION, accuracies, write_run

from lisabench.analysis.accuracy import summarise
from lisabench.render import accuracy
from lisabench.render.accuracy_table import accuracy_table, least_needed, notes

COSTS = {cost.name: cost for cost in accuracy.COSTS}


def test_notes_say_what_was_measured_and_how_sure_it_is(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", {"lisa": [0.9, 0.92, "error"], "softmax": [0.8, 0.85, 0.9], "fnet": ["oom"] * 3}, warnings=["noisy: x", "wide: y"]
    )
    series = summarise([run])
    figure = accuracy.draw(series, COSTS["latency"])
    assert figure is not None
    said = note(figure).replace("\n", " ")
    for words in (
        "of one forward of the whole model on 64 images, measured before training",
        "horizontal bars: its 95% interval",
        "2 of 2 latencies carry warnings (noisy, wide)",
        "not shown: fnet (oom)",
        "without its failed seeds: lisa (1 of 3: error)",
        "Pareto front of the means",
        "do not cover other test images",
    ):
        assert words in said
    (latencies,) = [column for column in accuracy_table(series).columns if column.header == "latency"]
    assert list(latencies.cells) == ["2.02 ms*", "2.65 ms*", ""]
    told = [str(line) for line in notes(series, [run])]
    assert "* 2 of 2 latencies carry warnings (noisy, wide), told in full in results.csv; the first: noisy: x" in told
    assert not any("latency" in line or "latencies" in line for line in map(str, notes(series, [run], omitted=["latency"])))


def test_the_baseline_and_the_plain_operator_stand_first_where_kernels_are_alike(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", accuracies(ABLATION[:10]))
    told = "\n".join(map(str, notes(summarise([run]), [run])))
    assert "softmax 0.58 (–), lisa 0.50 (–), lisa (patterns=1) 0.51 (–), lisa (patterns=2) 0.52 (–);" in told
    assert "the others' are in results.csv" in told
    assert "lisa where brackets say nothing else: patterns=4" in told


def test_a_search_that_is_not_finished_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"lisa": [], "softmax": [0.8], "fnet": [0.3], "linear": []}, search=2)
    first = next(record for record in run.records if record["op"] == "softmax")
    for op, status in (("lisa", "ok"), ("softmax", "ok"), ("softmax", "ok"), ("fnet", "error"), ("fnet", "error")):
        run.records.append(first | {"kind": "search", "op": op, "options": run.plan["operators"][op]["options"], "status": status})
    (line,) = [str(line) for line in notes(summarise([run]), [run]) if "search" in str(line)]
    assert line == (
        "search: 2 trials each on held-out training images; learning rate and weight decay found: softmax 0.003 and 0.05; "
        "every trial of fnet failed; not finished for lisa (1 of 2 trials), linear (0 of 2 trials)"
    )


def test_columns_that_are_left_out_are_not_explained(tmp_path: Path) -> None:
    held = [write_run(tmp_path / "run", accuracies(["lisa", "softmax"]))]
    series = summarise(held)
    assert least_needed(series)[-2:] == ["− softmax", "seeds"]
    assert "Welch" in str(notes(series, held)[0])
    assert "Welch" not in str(notes(series, held, omitted=least_needed(series))[0])
    left = "\n".join(map(str, notes(series, held, omitted=["FLOP", "images/s", "memory"])))
    assert "FLOP:" not in left
    assert "images/s" not in left
    assert "memory" not in left
