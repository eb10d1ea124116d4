"""Growth and crossovers in words and as a table, from written-down records."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text
from test_terminal import CURVES, SIZES, record, run, shown

from lisabench.journal import Record
from lisabench.render.growth import growth
from lisabench.results import Run

MANY = [*CURVES, *(record(f"op{place}", n, 1e-6 * (place + 1) * n) for place in range(6) for n in SIZES)]


def sentences(made: Run) -> list[str]:
    found = []
    for part in growth(made):
        assert isinstance(part, Text)
        found.append(part.plain)
    return found


def test_a_few_operators_are_told_in_sentences() -> None:
    text = sentences(run(CURVES))
    assert any(line.startswith("lisa (engine=fft)  latency ~ N^1.00") for line in text)
    assert any(line.startswith("softmax            latency ~ N^2.00") for line in text)
    assert "lisa (engine=fft) against softmax, latency: lisa (engine=fft) overtakes softmax at 1,000 tokens" in "\n".join(text)
    assert any("flops: none up to 4,096 tokens" in line for line in text)


def test_without_a_baseline_there_is_no_crossover() -> None:
    alone = run([r for r in CURVES if r["op"] == "lisa"], baseline=None)
    assert not any("against" in line for line in sentences(alone))


@pytest.mark.parametrize("records", [CURVES, MANY], ids=["few", "many"])
def test_too_few_sizes_give_no_fit(records: list[Record]) -> None:
    assert growth(run([r for r in records if r["tokens"] == 256])) == []


def test_many_operators_have_a_row_each_in_order_of_growth() -> None:
    (table,) = growth(run(MANY))
    assert isinstance(table, Table)
    lines = [line for line in shown(table).splitlines() if line.strip()]
    names = ["lisa (engine=fft)", *(f"op{place}" for place in range(6)), "softmax"]
    rows = {name: line for name in names for line in lines if line.startswith(f"{name} ")}
    assert sorted(rows) == sorted(names)
    assert len(lines) == len(names) + 3  # a title, the heading and its rule
    assert lines[-1].startswith("softmax ")
    assert rows["softmax"].split()[-1] == "baseline"
    assert "from 1,000 (999 to 1,001)" in rows["lisa (engine=fft)"]
    assert rows["op0"].split()[-1] == "all"
    assert " 2.00 " in rows["softmax"]


def test_a_row_says_where_the_sizes_do_not_tell_and_where_there_is_no_fit() -> None:
    wild = [record("wild", n, 1e-6 * n ** (0.2 if place % 2 else 1.4)) for place, n in enumerate(SIZES)]
    short = [record("short", n, 1.0) for n in SIZES[:2]]
    (table,) = growth(run([*MANY, *wild, *short]))
    text = shown(table)
    found = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith(("wild", "short"))}
    assert found == {"wild": "?", "short": "–"}
    assert "?: the sizes do not tell" in text
    assert "none up to 512" in next(line for line in text.splitlines() if line.startswith("short"))


def test_each_curve_has_a_table_that_names_it() -> None:
    found = growth(run([*MANY, *(r | {"mode": "train", "cell": r["cell"] + "t"} for r in MANY)]))
    assert [str(table.title).rpartition(": ")[2] for table in found if isinstance(table, Table)] == ["mode forward", "mode train"]
