"""The table `crossovers`: from how many tokens on each operator is cheaper than the baseline, by the order of medians and in CAB's sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lisabench.render import caption
from lisabench.render.cost_table import block, labels, records_of, workloads
from lisabench.render.summary_table import SHORT, Laws
from lisabench.render.tabular import Cell, Column, Heading, Table
from lisabench.results import FLOOR, Run

QUADRATIC = "quadratic"  # the family
QUANTITIES = ("latency", "memory", "energy")


def table(frame: pd.DataFrame, run: Run, laws: Laws) -> Table | None:
    """An operator a row; None without a baseline or another operator."""
    baseline = run.baseline
    quantities = [quantity for quantity in QUANTITIES if any(one.quantity == quantity for one in laws.crossings)]
    if baseline is None or not quantities:
        return None
    blocks = []
    for device, title, rows in workloads(frame):
        names = [name for name in labels(rows) if not set(rows.loc[rows["label"] == name, "op"]) & {baseline, FLOOR}]
        columns = _columns(names, rows, laws, quantities)
        if names:
            blocks.append(block(title, names, columns, device=device))
    if not blocks:
        return None
    heads = [
        Column(head=Heading(text=head), over=Heading(text=SHORT.get(quantity, quantity)))
        for quantity in quantities
        for head in ("cheaper from", "efficiency length")
    ]
    told = caption.sentences(caption.of_crossovers(frame, run.environments, baseline=run.label(baseline)))
    return Table(name="crossovers", caption=told, columns=tuple(heads), blocks=tuple(blocks))


def _columns(names: Sequence[str], rows: pd.DataFrame, laws: Laws, quantities: Sequence[str]) -> list[list[Any]]:
    any_of: dict[str, Mapping[str, Any]] = {}
    for (label, _), record in records_of(rows).items():
        any_of.setdefault(label, record)
    columns = []
    for quantity in quantities:
        columns.append([laws.crossover(any_of[name], quantity) for name in names])
        # CAB compares operators of linear cost with quadratic attention.
        columns.append(
            [Cell() if any_of[name]["family"] == QUADRATIC else laws.efficiency_length(any_of[name], quantity) for name in names]
        )
    return columns
