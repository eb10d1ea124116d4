"""What operators cost by number of tokens, workload by workload, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lisabench.render import caption
from lisabench.render.curves import SUBJECT, cut, varied
from lisabench.render.families import FAMILIES
from lisabench.render.quantities import QUANTITIES
from lisabench.render.tabular import Block, Cell, Column, Heading, Row, Table, figure, ranked, unit_of
from lisabench.results import FLOOR

COSTS = ("latency", "memory", "flops", "energy")
COLUMNS = [column for quantity in COSTS for column in QUANTITIES[quantity].columns]
Records = Mapping[tuple[str, int], Mapping[str, Any]]
"""The row of each label and number of tokens."""


def table(frame: pd.DataFrame, quantity: str, environments: Mapping[str, Any], *, intervals: bool = False) -> Table:
    """An operator a row, a number of tokens a column; `intervals` gives each median its own, for a page's width."""
    shown = QUANTITIES[quantity]
    unit, size = unit_for(frame, quantity)
    tokens = sorted(int(count) for count in frame["tokens"].unique())
    over = Heading(text=f"{shown.axis.lower()} by number of tokens".replace("flops", "FLOPs"), unit=unit)
    blocks = []
    for device, title, rows in workloads(frame):
        names, records = labels(rows), records_of(rows)
        columns = [cost_cells(names, records, count, quantity, size, intervals=intervals) for count in tokens]
        blocks.append(block(title, names, columns, device=device))
    return Table(
        name=quantity + "-intervals" * intervals,
        caption=caption.sentences(caption.of_costs(frame, quantity, environments, intervals=intervals)),
        columns=tuple(Column(head=Heading(text=str(count)), over=over) for count in tokens),
        blocks=tuple(blocks),
        wide=intervals,
        thin=True,
    )


def workloads(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each workload, behind its kind of device, "" where there is but one, and what else tells it."""
    several = "device_name" in varied(frame)
    for title, rows in cut(frame):
        yield "".join(title[:several]), ", ".join(title[several:]), rows


def block(title: str, names: Sequence[str], columns: Sequence[Sequence[Cell]], *, device: str = "") -> Block:
    """Rows of columns."""
    rows = tuple(Row(label=name, cells=cells) for name, cells in zip(names, zip(*columns, strict=True), strict=True))
    return Block(title=title, rows=rows, device=device)


def unit_for(frame: pd.DataFrame, quantity: str) -> tuple[str, float]:
    """The unit for a quantity of finished rows, and its size in SI; the floor, far below the others, is not asked."""
    asked = frame[(frame["status"] == "ok") & (frame["op"] != FLOOR)]
    return unit_of(quantity, asked[QUANTITIES[quantity].column].dropna())


def labels(rows: pd.DataFrame) -> list[str]:
    """The operators of a workload in a table's order: by family, the subject last."""
    places = {family: place for place, family in enumerate(FAMILIES)}
    known = rows[["label", "op", "family"]].drop_duplicates("label").itertuples(index=False)
    ordered = sorted(known, key=lambda one: (one.op == SUBJECT, places.get(str(one.family), len(places)), str(one.label)))
    return [str(one.label) for one in ordered]


def records_of(rows: pd.DataFrame) -> Records:
    """The rows of a workload by label and tokens; of several grids with as many tokens the one nearest to a square."""
    oblong = np.abs(np.log(rows["height"] / rows["width"]))
    nearest = rows.assign(_oblong=oblong).sort_values(["_oblong", "height"], kind="stable").drop_duplicates(["label", "tokens"])
    found: list[dict[Any, Any]] = nearest.to_dict("records")
    return {(str(row["label"]), int(row["tokens"])): row for row in found}


def cost_cells(names: Sequence[str], records: Records, tokens: int, quantity: str, size: float, *, intervals: bool = False) -> list[Cell]:
    """A column: what each operator costs at so many tokens in units of `size`, the least marked, or how it ended."""
    found = [records.get((name, tokens)) for name in names]
    cells = [cost_cell(record, quantity, size) for record in found]
    marked = ranked(cells, candidates=[record is not None and record["op"] != FLOOR for record in found])
    return marked if intervals else [replace(cell, interval="") for cell in marked]


def cost_cell(record: Mapping[str, Any] | None, quantity: str, size: float) -> Cell:
    """A finished record's cost with its interval; the status of one that failed."""
    if record is None:
        return Cell()
    if record["status"] != "ok":
        return Cell(text=str(record["status"]))
    shown = QUANTITIES[quantity]
    ends = [record[column] / size if column else None for column in (shown.low, shown.high)]
    return figure(record[shown.column] / size, *ends)
