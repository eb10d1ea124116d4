"""Two runs compared, as tables for a terminal: a line a cell, and a line an operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.analysis.compare import Verdict, mean_ratio
from lisabench.records import Record
from lisabench.render.terminal import new_table
from lisabench.results import CURVE, Run

COLOURS = {"faster": "green", "slower": "red"}


def cells_table(rows: Sequence[tuple[Record, Record, Verdict]], new: Run, axes: Sequence[str], omitted: Sequence[str]) -> Table:
    """A line a cell: the axes that vary, the operator, both times, and what became of them. Only the operator's name may be broken."""
    table = new_table("")
    names = [name for name in ("tokens", *axes, "operator", "base", "new", "new / base", "95% interval", "verdict") if name not in omitted]
    for name in names:
        words = name in ("operator", "mode", "dtype", "verdict")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "operator", overflow="fold")
    for before, after, verdict in rows:
        shown: dict[str, str | Text] = {
            "tokens": f"{after['tokens']:,}",
            "operator": Text(new.label_of(after)),
            "verdict": verdict.verdict + ("*" if verdict.verdict in COLOURS and is_warned(before, after) else ""),
        }
        shown |= {name: units.seconds(record["latency_s"]["median"]) for name, record in (("base", before), ("new", after))}
        shown |= {"new / base": f"{verdict.ratio:.2f}", "95% interval": f"{verdict.ci_low:.2f} to {verdict.ci_high:.2f}"}
        shown |= {"grid": f"{after['height']}x{after['width']}"}
        table.add_row(*(shown.get(name, str(after.get(name))) for name in names), style=COLOURS.get(verdict.verdict, ""))
    return table


def axes_of(records: Sequence[Record]) -> list[str]:
    """The fields beside tokens in which the cells differ; the grid where two of as many tokens do."""
    grids = {(record["tokens"], record["height"], record["width"]) for record in records}
    varying = [name for name in CURVE if len({record[name] for record in records}) > 1]
    return [*(["grid"] if len(grids) > len({tokens for tokens, *_ in grids}) else []), *varying]


def operators_table(groups: Mapping[str, Sequence[Verdict]], omitted: Sequence[str]) -> Table:
    """A line an operator: the verdicts' counts and the geometric mean of the ratios, the slowest first."""
    table = new_table("")
    names = ("operator", "cells", "faster", "slower", "same", "can't tell", "mean ratio", "95% interval")
    for name in (kept := [name for name in names if name not in omitted]):
        table.add_column(name, justify="left" if name == "operator" else "right", no_wrap=name != "operator", overflow="fold")
    means = {label: mean_ratio(verdicts) for label, verdicts in groups.items()}
    for label in sorted(groups, key=lambda label: (-means[label][0], label)):
        counts: Counter[str] = Counter(one.verdict for one in groups[label])
        mean, low, high = means[label]
        shown: dict[str, str | Text] = {"operator": Text(label), "cells": f"{len(groups[label]):,}", "mean ratio": f"{mean:.3f}"}
        shown |= {"95% interval": f"{low:.3f} to {high:.3f}"}
        table.add_row(*(shown.get(name, f"{counts[name]:,}") for name in kept))
    return table


def is_warned(before: Record, after: Record) -> bool:
    """Whether either measurement carries a warning."""
    return bool(before["latency_s"].get("warnings") or after["latency_s"].get("warnings"))
