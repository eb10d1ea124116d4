from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lisabench.analysis.series import all_series
from lisabench.errors import InputError
from lisabench.journal import blank_record
from lisabench.results import Run, chosen, joined, read_run, table

ENVIRONMENTS = {"e": {"device_name": "a CPU", "cpu": {"threads": 2}}, "g": {"device_name": "a GPU", "cpu": {"threads": 8}}}


def record(tokens: int, **fields: Any) -> dict[str, Any]:
    fixed = {"cell": str(tokens), "op": "linear", "options": {"key_dim": None}, "tokens": tokens, "height": 1, "width": tokens}
    return (
        blank_record(
            fixed
            | {"scope": "mixing", "mode": "forward", "dtype": "fp32", "compiled": False, "dim": 8, "heads": 2, "batch": 1, "device": "cpu"}
        )
        | fields
    )


OK = {
    "status": "ok",
    "environment": "e",
    "latency_s": {"median": 0.5, "ci_low": 0.4, "ci_high": 0.6, "samples": [0.4, 0.5, 0.6], "count": 3, "warnings": ["noisy: x"]},
}
OK |= {"memory_bytes": {"transient": 7, "saved": None}, "flops": {"analytic": 3.0}}


def test_a_row_a_record_with_nested_fields_by_a_dot() -> None:
    frame = table([record(4, **OK), record(8)], labels={"linear": "Linear"}, environments=ENVIRONMENTS)
    first, second = frame.to_dict("records")
    assert first["latency_s.median"] == 0.5
    assert first["latency_s.count"] == 3
    assert first["latency_s.warnings"] == "noisy: x"
    assert first["memory_bytes.saved"] != first["memory_bytes.saved"]  # absent is NaN, never 0
    assert first["label"] == "Linear"
    assert first["options"] == '{"key_dim":null}'
    assert second["latency_s.median"] != second["latency_s.median"]


def test_kinds_of_latency_energy_and_roofline_have_columns() -> None:
    kinds = {"cold": None, "warm": {"median": 2.0, "ci_low": 1.0, "ci_high": 3.0, "count": 9}, "graph": None, "host": None}
    more = {"latency_kinds_s": kinds, "energy_j": 6.0, "batch": 3, "roofline": {"share": 0.5, "bound": "memory"}, "ratio": {"median": 2.5}}
    first, second = table([record(4, **OK, **more), record(8)]).to_dict("records")
    assert first["latency_kinds_s.warm.median"] == 2.0
    assert first["latency_kinds_s.graph.median"] != first["latency_kinds_s.graph.median"]
    assert (first["energy_j"], first["energy_j_per_token"]) == (6.0, 0.5)
    assert (first["roofline.share"], first["roofline.bound"], first["ratio.median"]) == (0.5, "memory", 2.5)
    assert second["energy_j_per_token"] != second["energy_j_per_token"]


def test_a_cell_that_never_ran_belongs_to_the_device_of_the_others() -> None:
    frame = table([record(4, **OK), record(8), record(4, **OK | {"environment": "g"}, device="cuda:0")], environments=ENVIRONMENTS)
    assert list(frame["device_name"]) == ["a CPU, 2 threads", "a CPU, 2 threads", "a GPU"]
    assert list(table([record(8)])["device_name"]) == ["cpu"]


def test_a_family_is_what_the_plan_states_and_empty_where_it_states_none() -> None:
    stated = {"linear": {"given": {}, "family": "kernel"}, "mine.py:A": {"given": {}}}
    records = [record(4, **OK), record(8, op="mine.py:A")]
    run = Run(path=Path("run"), plan={"operators": stated}, records=records, environments=ENVIRONMENTS)
    assert list(run.frame()["family"]) == ["kernel", ""]
    assert list(Run(path=Path("old"), plan={}, records=records, environments={}).frame()["family"]) == ["", ""]


def test_an_empty_run_has_the_columns() -> None:
    assert "latency_s.median" in table([]).columns


def test_samples_and_series() -> None:
    records = [record(8), record(4, **OK), record(2, **OK)]
    (series,) = all_series(Run(path=Path("run"), plan={}, records=records, environments=ENVIRONMENTS), "tokens")
    assert series.samples("latency") == ((2, (0.4, 0.5, 0.6)), (4, (0.4, 0.5, 0.6)))
    assert series.samples("memory") == ((2, (7.0,)), (4, (7.0,)))
    assert series.samples("energy") == ()
    assert [tokens for tokens, _ in series.points] == [2, 4]
    with pytest.raises(KeyError):
        series.samples("nonsense")


def made(path: str, records: list[dict[str, Any]], *, baseline: str | None = "linear", given: dict[str, Any] | None = None) -> Run:
    plan = {"kind": "scale", "baseline": baseline, "operators": {"linear": {"given": given or {}, "family": "kernel"}}}
    return Run(path=Path(path), plan=plan, records=records, environments=ENVIRONMENTS)


def test_joined_runs_on_two_devices_keep_their_labels() -> None:
    on_gpu = record(4, **OK | {"environment": "g"}, device="cuda:0")
    both = joined([made("a", [record(4, **OK), record(8, **OK)]), made("b", [on_gpu])])
    assert [both.label_of(each) for each in both.records] == ["linear"] * 3
    assert [each["run"] for each in both.records] == ["a", "a", "b"]
    assert [both.device_of(each) for each in both.records] == ["a CPU, 2 threads", "a CPU, 2 threads", "a GPU"]
    assert (both.path, both.baseline) == (Path("a"), "linear")


def test_joined_runs_of_the_same_cells_are_told_apart() -> None:
    one, other, third = made("x/a", [record(4, **OK)]), made("y/b", [record(4, **OK)]), made("y/a", [record(4, **OK)], baseline=None)
    assert list(joined([one, other]).frame()["label"]) == ["linear, a", "linear, b"]
    assert list(joined([one, third]).frame()["label"]) == ["linear, x/a", "linear, y/a"]
    assert joined([one, third]).baseline is None
    patched = [replace(each, plan=each.plan | {"patch": 16}) for each in (one, other)]
    assert (joined(patched).patch, joined([patched[0], other]).patch, joined([one, other]).patch) == (16, None, None)
    assert joined([one]) is one


def test_joined_runs_with_other_options_or_sizes_need_no_names() -> None:
    wide = made("b", [record(4, **OK)], given={"key_dim": 8})
    assert list(joined([made("a", [record(4, **OK)]), wide]).frame()["label"]) == ["linear", "linear (key_dim=8)"]
    assert list(joined([made("a", [record(4, **OK)]), made("b", [record(8, **OK)])]).frame()["label"]) == ["linear", "linear"]


def test_records_are_chosen_by_the_values_of_their_fields() -> None:
    run = made("a", [record(4, **OK), record(8, **OK), record(8, **OK, dtype="bf16")])
    assert [each["tokens"] for each in chosen(run, ["tokens=8,16"]).records] == [8, 8]
    assert [each["dtype"] for each in chosen(run, ["tokens=8", "dtype=bf16"]).records] == ["bf16"]
    assert chosen(run, []).records == run.records
    for wrong, words in (
        ("colour=1", "unknown field in --where 'colour'"),
        ("tokens", "write NAME=VALUE"),
        ("dtype=fp8", "has no such record"),
    ):
        with pytest.raises(InputError, match=words):
            chosen(run, [wrong])


def test_few_columns_of_a_run_and_the_others_behind_them_are_the_whole_table() -> None:
    run = read_run(Path(__file__).parents[1] / "reports/reference-operators-cpu")
    few = run.frame(fields=("op", "tokens", "status"))
    assert list(few) == ["label", "family", "device_name", "op", "tokens", "status"]
    pd.testing.assert_frame_equal(run.frame(known=few), run.frame())
