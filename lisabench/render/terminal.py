"""Records as a table for a terminal, and what must be known beside it."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.journal import BUDGET, Record
from lisabench.measure.roofline import note
from lisabench.results import CURVE, FLOOR, WORKLOAD, Run

CROSS_CHECKED_BYTES, CROSS_CHECKED_WITHIN = 10 * 2**20, 0.1  # smaller ones drown in the pages of everything else
FEW = 6
"""Operators that are told apart at a glance: of more, tables are made to be looked up in."""
MOST_ROWS = 200  # nobody reads more, and laying out 100,000 takes minutes


def results_table(run: Run, *, omitted: Sequence[str] = ()) -> Table:
    """Latency with its interval, ratio to the baseline, memory and FLOPs of every cell, grouped by workload, the fastest first, in
    bold that which mixes something. Of many operators every row tells its workload, and the baseline's says so."""
    groups = _shown(run)
    shown = [record for group in groups for record in group]
    varying = varying_of(shown)
    table = new_table(_heading(shown, varying))
    ratio = [f"/ {run.label(run.baseline)}"] if run.baseline else []
    measured = {"± ratio": "ratio", "energy": "energy_j", "of limit": "roofline", "error": "relative_error"}
    nowhere = {name for name, part in measured.items() if all(record.get(part) is None for record in shown)}
    names = [
        name
        for name in ("time", "±", *ratio, "± ratio", "memory", "energy", "FLOP", "of limit", "error")
        if name not in {*omitted, *nowhere}
    ]
    for name in ("tokens", *varying, "operator", *names):
        table.add_column(name, justify="left" if name == "operator" else "right", no_wrap=True)
    for group in groups:
        medians = {r["op"]: r["latency_s"]["median"] for r in group if r["status"] == "ok"}
        best = min((median for op, median in medians.items() if op != FLOOR), default=None)
        many = len(group) > FEW
        for position, record in enumerate(sorted(group, key=lambda r: (medians.get(r["op"], float("inf")), r["op"]))):
            where = [_tokens(record), *(str(record[name]) for name in varying)] if position == 0 or many else [""] * (1 + len(varying))
            figures = _figures(record, _baseline(group, run))
            style = "bold" if best is not None and medians.get(record["op"]) == best and len(group) > 1 else ""
            row = [figures.get(name, figures["ratio"]) for name in names]
            operator = Text(run.label(record["op"]))
            if many and record["op"] == run.baseline:
                style, operator = f"{style} cyan", operator.append(", baseline")
            told = [Text(text, style="" if position == 0 else "dim") for text in where]
            table.add_row(*told, operator, *row, style=style, end_section=position == len(group) - 1)
    return table


def plan_table(rows: Sequence[Record], *, omitted: Sequence[str] = (), gap: tuple[int, int] = (0, 0)) -> Table:
    """The cells of a plan with their predicted FLOPs and bytes; `grid`, `FLOP` and `memory` can be omitted, a grid only if tokens tell it.

    `gap`: after how many rows cells are left out, and how many. Where the plan has several kinds of devices, each row names its own.
    """
    after, left_out = gap
    varying, count = varying_of(rows), len(rows) + left_out
    table = new_table(f"{count:,} cell{'s' if count != 1 else ''}, in the order in which they run\n{_heading(rows, varying)}")
    axes = ["tokens", "grid", *(name for name in varying if name in CURVE)]
    needed = {"grid"} if "height" in varying else set()
    kinds = ["device_kind"] if any(row.get("device_kind") for row in rows) else []
    names = [name for name in (*axes, "operator", *kinds, "FLOP", "memory") if name not in {*omitted} - needed]
    for name in names:
        words, long = name in ("operator", "mode", "dtype", *kinds), name in ("operator", *kinds)
        title = "on" if name in kinds else name
        table.add_column(title, justify="left" if words else "right", no_wrap=not long, overflow="fold")
    for place, row in enumerate(rows, 1):
        op = row["op"].rpartition(":")[2] if ".py:" in row["op"] else row["op"]
        shown: dict[str, str | Text] = {"tokens": _tokens(row), "grid": f"{row['height']}x{row['width']}", "operator": Text(op)}
        shown |= {"FLOP": units.flops(row["predicted_flops"]), "memory": units.size_in_bytes(row["predicted_bytes"])}
        table.add_row(*(shown.get(name, str(row.get(name))) for name in names), end_section=left_out > 0 and place == after)
    return table


def _figures(record: Record, baseline: float | None) -> dict[str, str]:
    if record["status"] != "ok":
        return {"time": record["status"]} | dict.fromkeys(("±", "ratio", "± ratio", "memory", "energy", "FLOP", "of limit", "error"), "")
    latency, flops, memory = record["latency_s"], record["flops"] or {}, record["memory_bytes"] or {}
    roofline, error, ratio = record.get("roofline"), record["relative_error"], record.get("ratio")
    return {
        "time": units.seconds(latency["median"]) + ("*" if latency["warnings"] else ""),
        "±": units.interval(latency["ci_low"], latency["median"], latency["ci_high"]),
        "ratio": _ratio(record, baseline),
        "± ratio": units.interval(ratio["ci_low"], ratio["median"], ratio["ci_high"]) if ratio else "",
        "memory": units.size_in_bytes(memory.get("transient")),
        "energy": units.energy(record["energy_j"]),
        "FLOP": units.flops(flops.get("torch") if flops.get("analytic") is None else flops["analytic"]),
        "of limit": units.MISSING if roofline is None else f"{units.significant(100 * roofline['share'], 2)}%",
        "error": units.MISSING if error is None else f"{error:.0e}",
    }


def _ratio(record: Record, baseline: float | None) -> str:
    """The ratio to the baseline: paired within rounds, or that of the medians with a ~ where the rounds were not shared."""
    if record.get("ratio"):
        return _times(record["ratio"]["median"])
    if not baseline:
        return units.MISSING
    median = record["latency_s"]["median"]
    return "1.00x" if median == baseline else f"~{_times(median / baseline)}"


def _times(ratio: float) -> str:
    """0.00007 -> '<0.01x', since nothing takes no time at all."""
    return f"{ratio:.2f}x" if ratio >= 0.005 else "<0.01x"


def notes(run: Run, *, caveats: bool = True) -> list[Text]:
    """What a reader must know beside the table: failures with their reasons, warnings, and with `caveats` where a figure is a
    reconstruction."""
    groups = _shown(run)
    shown = sum(map(len, groups))
    left_out = len(run.records) - shown
    lines = [Text(f"{shown:,} of {len(run.records):,} cells are shown; results.csv has all, --where chooses others")] if left_out else []
    lines += _unfinished(run)
    warned = [warning for r in run.records if r["latency_s"] for warning in r["latency_s"]["warnings"]]
    if warned:
        kinds = ", ".join(sorted({warning.partition(":")[0] for warning in warned}))
        count = sum(bool(r["latency_s"] and r["latency_s"]["warnings"]) for r in run.records)
        plural = "s carry warnings" if count > 1 else " carries a warning"
        lines.append(Text(f"* {count} cell{plural} ({kinds}), told in full in results.csv; the first: {warned[0]}"))
    if any(_ratio(r, _baseline(group, run)).startswith("~") for group in groups for r in group if r["status"] == "ok"):
        lines.append(Text("~ a ratio of medians: its rounds were not shared with the baseline's"))
    kept = {r["op"]: r["memory_bytes"]["kept"] for r in run.records if r["memory_bytes"] and r["memory_bytes"].get("kept")}
    lines += [
        Text(f"{run.label(op)} keeps up to {units.size_in_bytes(most)} between calls, beside its memory above") for op, most in kept.items()
    ]
    lines += _cross_check(run)
    over = {words for r in run.records if r.get("roofline") and (words := note(r["roofline"]))}
    lines += [Text(f"of limit over 100%: {words}") for words in sorted(over)]
    for op, stated in run.plan["operators"].items():
        if caveats and stated.get("caveat"):
            lines.append(Text(f"{run.label(op)}: {stated['caveat']}"))
    return lines


def _unfinished(run: Run) -> list[Text]:
    """What was not measured, and why; many cells for which the budget had no room stand in one line."""
    reasons: dict[tuple[str, str], list[int]] = {}
    for record in run.records:
        if record["status"] != "ok":
            reasons.setdefault((f"{run.label(record['op'])} {record['status']}", record["reason"] or ""), []).append(record["tokens"])
    short = {key: where for key, where in reasons.items() if key[1].startswith(f"{BUDGET}:")}
    if len(short) > FEW:
        reasons = {key: where for key, where in reasons.items() if key not in short}
    lines = [Text(f"{what} at {_sizes(where)}: {why}") for (what, why), where in reasons.items()]
    if len(short) > FEW:
        cells = Counter(tokens for where in short.values() for tokens in where)
        counted = ", ".join(f"{count} at {tokens:,}" for tokens, count in cells.items())
        lines.append(Text(f"skipped for want of budget: {counted} tokens; a larger --budget and --resume measures them"))
    return lines


def _sizes(tokens: Sequence[int]) -> str:
    """'768 and 784 tokens, 4 cells', '256 to 16,384 tokens'."""
    sizes = [f"{count:,}" for count in sorted({*tokens})]
    words = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > FEW else " and ".join(filter(None, (", ".join(sizes[:-1]), sizes[-1])))
    return f"{words} tokens" + (f", {len(tokens)} cells" if len(tokens) > len(sizes) else "")


def _cross_check(run: Run) -> list[Text]:
    """How far the two figures of transient memory are apart, over the cells where both are large enough to be compared."""
    pairs = [(r["memory_bytes"]["transient"], r["memory_bytes"].get("resident")) for r in run.records if r["memory_bytes"]]
    ratios = [resident / transient for transient, resident in pairs if resident is not None and transient >= CROSS_CHECKED_BYTES]
    if not ratios:
        return []
    far = max(ratios, key=lambda ratio: abs(ratio - 1))
    over = sum(abs(ratio - 1) > CROSS_CHECKED_WITHIN for ratio in ratios)
    words = f"memory, cross-checked in fresh processes: {len(ratios)} cells over {units.size_in_bytes(CROSS_CHECKED_BYTES)}"
    return [Text(f"{words}, {over} of them over {100 * CROSS_CHECKED_WITHIN:.0f}% apart; the farthest by {100 * (far - 1):+.1f}%")]


def _baseline(group: Sequence[Record], run: Run) -> float | None:
    """The baseline's median among the records of a workload."""
    return next((r["latency_s"]["median"] for r in group if r["op"] == run.baseline and r["status"] == "ok"), None)


def _tokens(record: Record) -> str:
    return f"{record['tokens']:,}"


@functools.lru_cache(maxsize=2)
def _shown(run: Run) -> Sequence[Sequence[Record]]:
    """The records of each workload that a table shows: of the first ones, up to so many rows; of one at least."""
    workload = itemgetter(*WORKLOAD)
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in run.records:
        groups.setdefault(workload(record), []).append(record)
    ordered = sorted(groups.values(), key=lambda group: [group[0][name] for name in ("tokens", "batch", "mode", "dtype", "dim")])
    ends = list(accumulate(map(len, ordered)))
    return ordered[: max(1, bisect_right(ends, MOST_ROWS))]


def varying_of(records: Sequence[Record]) -> list[str]:
    """The fields beside tokens in which the workloads differ, and which the table must therefore name."""
    names = [name for name in CURVE if len({record[name] for record in records}) > 1]
    grids = {record["tokens"]: (record["height"], record["width"]) for record in records}
    return names + (["height", "width"] if any((r["height"], r["width"]) != grids[r["tokens"]] for r in records) else [])


def _heading(records: Sequence[Record], varying: Sequence[str]) -> str:
    if not records:
        return "no records"
    first = records[0]
    words = [f"{name} {first[name]}" if name in ("batch", "dim", "heads") else str(first[name]) for name in CURVE if name not in varying]
    return " · ".join(word for word in words if word not in ("True", "False")) + ("" if not first["compiled"] else " · compiled")


def new_table(title: str) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
