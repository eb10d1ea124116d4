"""The table and its notes, from written-down records."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from lisabench.journal import Record, blank_record
from lisabench.render.terminal import notes, plan_table, results_table
from lisabench.results import Run


def record(op: str, tokens: int, seconds: float | None, **fields: Any) -> Record:
    made = blank_record(
        {
            "cell": f"{op}{tokens}{fields}",
            "op": op,
            "options": {},
            "scope": "mixing",
            "mode": "forward",
            "batch": 1,
            "height": 1,
            "width": tokens,
            "tokens": tokens,
        }
        | {"dim": 192, "heads": 3, "dtype": "fp32", "device": "cpu", "compiled": False}
    )
    if seconds is not None:
        samples = [seconds * (1 + 0.001 * (i % 5 - 2)) for i in range(20)]
        latency = {"median": seconds, "ci_low": 0.99 * seconds, "ci_high": 1.01 * seconds, "samples": samples, "warnings": []}
        figures = {"memory_bytes": {"transient": 1024 * tokens}, "flops": {"analytic": 10.0 * tokens**2, "torch": 10.0 * tokens**2}}
        made |= {"status": "ok", "latency_s": latency} | figures
    return made | fields


def run(records: list[Record], baseline: str | None = "softmax") -> Run:
    stated: dict[str, Any] = {"lisa": {"given": {"engine": "fft"}, "caveat": "a reconstruction"}, "softmax": {"given": {}}}
    return Run(path=Path("run"), plan={"kind": "scale", "baseline": baseline, "operators": stated}, records=records, environments={})


def shown(renderable: Any) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


SIZES = (256, 512, 1024, 2048, 4096)
CURVES = [record("lisa", n, 1e-5 * n) for n in SIZES] + [record("softmax", n, 1e-8 * n**2) for n in SIZES]


def test_rows_are_grouped_by_workload_the_fastest_first_with_its_ratio() -> None:
    lines = [line.split() for line in shown(results_table(run(CURVES))).splitlines()]
    at_256 = next(place for place, line in enumerate(lines) if line[:1] == ["256"])
    assert lines[at_256] == ["256", "softmax", "655", "µs", "±1.0%", "1.00x", "256", "KiB", "655", "k"]
    assert lines[at_256 + 1] == ["lisa", "(engine=fft)", "2.56", "ms", "±1.0%", "~3.91x", "256", "KiB", "655", "k"]
    at_4096 = [line for line in shown(results_table(run(CURVES))).splitlines() if "41.0 ms" in line or "168 ms" in line]
    assert at_4096[0].split()[:3] == ["4,096", "lisa", "(engine=fft)"]
    assert "0.24x" in at_4096[0]
    assert "1.00x" in at_4096[1]


def test_paired_ratios_shares_of_the_limit_and_errors_are_shown_where_they_are_known() -> None:
    known = {
        "ratio": {"median": 3.5, "ci_low": 3.4, "ci_high": 3.6},
        "roofline": {"share": 0.256},
        "relative_error": 2.5e-7,
        "energy_j": 0.0012,
    }
    made = run([record("lisa", 256, 2e-3, **known), record("softmax", 256, 1e-3)])
    text = shown(results_table(made))
    heading = next(line for line in text.splitlines() if "operator" in line)
    assert [word in heading for word in ("of limit", "error", "energy")] == [True] * 3
    line = next(line for line in text.splitlines() if "lisa" in line)
    assert [word in line for word in (" 3.50x", " 26%", " 2e-07", " 1.20 mJ", " ±2.9%")] == [True] * 5
    assert not any("~ " in str(line) for line in notes(made))
    unpaired = run([record("lisa", 256, 2e-3), record("softmax", 256, 1e-3)])
    assert "~2.00x" in shown(results_table(unpaired))
    assert "error" not in shown(results_table(unpaired))
    assert any(str(line).startswith("~ ") for line in notes(unpaired))


def test_a_ratio_to_what_takes_far_longer_is_no_zero() -> None:
    for paired in ({}, {"ratio": {"median": 7e-5, "ci_low": 6e-5, "ci_high": 8e-5}}):
        text = shown(results_table(run([record("identity", 256, 5e-8, **paired), record("softmax", 256, 7e-4)])))
        assert "<0.01x" in text
        assert "0.00x" not in text


def test_of_many_operators_every_row_tells_its_workload_and_the_baseline_says_so() -> None:
    ops = ("identity", "pool", "a", "b", "softmax", "c", "d")
    made = run([record(op, tokens, 1e-4 * (place + 1)) for tokens in (256, 512) for place, op in enumerate(ops)])
    lines = [line.split() for line in shown(results_table(made)).splitlines()[3:] if line.strip()]
    assert [line[0] for line in lines] == ["256"] * 7 + ["512"] * 7
    assert [" ".join(line[1:3]) for line in lines if "1.00x" in line] == ["softmax, baseline"] * 2
    styled = [str(row.style).split() for row in results_table(made).rows]
    assert [ops[place % 7] for place, words in enumerate(styled) if "bold" in words] == ["pool"] * 2  # identity mixes nothing


def test_only_what_varies_has_a_column() -> None:
    one = shown(results_table(run(CURVES)))
    assert "cpu · mixing · forward · fp32 · dim 192 · heads 3 · batch 1" in one
    two = shown(results_table(run([*CURVES, record("lisa", 256, 1.0, mode="train")])))
    assert "mode" in two
    assert "train" in two


def test_failures_stand_in_the_table_and_say_why_below() -> None:
    failed = run(
        [
            *CURVES,
            record("lisa", 8192, None, status="oom", reason="predicted to need 9 GiB"),
            record("softmax", 8192, None, status="timeout", reason="over"),
        ]
    )
    assert "oom" in shown(results_table(failed))
    text = "\n".join(line.plain for line in notes(failed))
    assert "lisa (engine=fft) oom at 8,192 tokens: predicted to need 9 GiB" in text
    assert "softmax timeout at 8,192 tokens: over" in text
    assert "lisa (engine=fft): a reconstruction" in text


def test_sizes_of_one_failure_are_told_once_and_many_by_their_ends() -> None:
    def told(*cells: tuple[int, int]) -> str:
        failed = [record("lisa", tokens, None, status="oom", reason="too large", batch=batch) for tokens, batch in cells]
        return "\n".join(line.plain for line in notes(run(failed)))

    assert "oom at 512 and 8,192 tokens, 3 cells: too large" in told((8192, 1), (8192, 2), (512, 1))
    assert "oom at 256 to 4,096 tokens: too large" in told(
        *((256 * 2**place + place, 1) for place in range(4)), (300, 1), (301, 1), (4096, 1)
    )


def test_cells_without_budget_are_told_one_by_one_if_few_and_counted_if_many() -> None:
    def skipped(count: int) -> list[Record]:
        why = "budget: cut off after {} s, when its time was up; a larger --budget"
        return [
            record(f"op{i}", tokens, None, status="skipped", reason=why.format(i + tokens))
            for i in range(count)
            for tokens in (8192, 16384)
        ]

    few = "\n".join(line.plain for line in notes(run([*CURVES, *skipped(2)])))
    assert "op1 skipped at 8,192 tokens: budget: cut off after 8193 s" in few
    failed = record("op9", 16384, None, status="error", reason="no such luck")
    many = "\n".join(line.plain for line in notes(run([*CURVES, *skipped(9), failed])))
    assert "skipped for want of budget: 9 at 8,192, 9 at 16,384 tokens; a larger --budget and --resume measures them" in many
    assert "op9 error at 16,384 tokens: no such luck" in many
    assert "cut off" not in many


def test_warnings_are_counted_and_told() -> None:
    warned = CURVES[0] | {"latency_s": CURVES[0]["latency_s"] | {"warnings": ["noisy: very"]}}
    assert "*" in shown(results_table(run([warned, *CURVES[1:]])))
    assert any("1 cell carries a warning (noisy)" in line.plain for line in notes(run([warned, *CURVES[1:]])))


def test_plan() -> None:
    row = CURVES[0] | {"predicted_flops": 1e9, "predicted_bytes": None}
    text = shown(plan_table([row]))
    assert "1 cell," in text
    assert "1.00 G" in text
    assert "–" in text


def test_of_a_large_run_the_first_workloads_are_shown_and_the_rest_is_counted() -> None:
    large = run([record(op, n, 1e-6 * n) for n in range(1, 401) for op in ("lisa", "softmax", "linear")])
    lines = shown(results_table(large)).splitlines()
    assert sum("1.00x" in line for line in lines) == 3 * 66  # whole workloads up to 200 rows
    assert "198 of 1,200 cells are shown; results.csv has all, --where chooses others" in str(notes(large)[0])
    assert not any("cells are shown" in str(line) for line in notes(run(CURVES)))
