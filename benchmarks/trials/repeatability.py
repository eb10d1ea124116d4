"""Trial: the same sweep twice by the real program; which cells say the same both times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.trials.figures import Target, at_least, counted, median, none_of, off, overlap, percent, share, table
from benchmarks.trials.program import Setup, label, sweep, warnings_of
from lisabench import units
from lisabench.journal import Record

WITHIN, WANTED = 0.03, 0.95
FULL = ["--op", "all", "--tokens", "64..4096", "--mode", "forward,train"]
QUICK = ["--op", "all", "--tokens", "64,256", "--cell-seconds", "0.3"]
WORST = 8
# What no clock is in: a repetition must give the same number.
EXACT = (("memory_bytes", "transient"), ("memory_bytes", "saved"), ("flops", "torch"), ("flops", "fvcore"))


def measure(setup: Setup) -> dict[str, Any]:
    arguments = QUICK if setup.quick else FULL
    first, second = (sweep(setup, f"repeatability {number}", *arguments) for number in (1, 2))
    both = [cell for cell in first.ok if cell in second.ok]
    statuses = [cell for cell in first.records if first.records[cell]["status"] != second.records.get(cell, {}).get("status")]
    return {
        "command": f"lisabench scale {' '.join(arguments)} --budget 0",
        "seconds": [first.seconds, second.seconds],
        "status_changed": len(statuses),
        "cells": [pair(first.ok[cell], second.ok[cell]) for cell in both],
    }


def pair(first: Record, second: Record) -> dict[str, Any]:
    """A cell measured twice: both medians, whether they agree, and the same of its ratio to the baseline where it has one."""
    return label(first) | {
        "latency": _agreement(first["latency_s"], second["latency_s"]),
        "ratio": _agreement(first["ratio"], second["ratio"]) if first["ratio"] and second["ratio"] else None,
        "warnings": [warnings_of(first), warnings_of(second)],
        "same_counts": _same_counts(first, second),
    }


def _same_counts(first: Record, second: Record) -> bool | None:
    """Whether what both records hold of EXACT is the same; None where they hold nothing in common."""
    both = [(_at(first, path), _at(second, path)) for path in EXACT]
    held = [(one, other) for one, other in both if one is not None and other is not None]
    return all(one == other for one, other in held) if held else None


def _agreement(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    overlaps = overlap((first["ci_low"], first["ci_high"]), (second["ci_low"], second["ci_high"]))
    moved = off(second["median"], first["median"])
    return {
        "medians": [first["median"], second["median"]],
        "moved": moved,
        "overlap": overlaps,
        "agrees": overlaps and moved <= WITHIN,
    }


def _at(record: Record, path: tuple[str, str]) -> Any:
    return (record[path[0]] or {}).get(path[1])


def summary(part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shares over all cells, those without a warning in either run, and the ratios to the baseline."""
    cells = part["cells"]
    quiet = [cell for cell in cells if not any(cell["warnings"])]
    counts = [cell["same_counts"] for cell in cells if cell["same_counts"] is not None]
    return {
        "all": _shares([cell["latency"] for cell in cells]),
        "without warnings": _shares([cell["latency"] for cell in quiet]),
        "ratios": _shares([cell["ratio"] for cell in cells if cell["ratio"]]),
        "counts": {"cells": len(counts), "same": share(counts)},
    }


def _shares(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "cells": len(found),
        "overlap": share(one["overlap"] for one in found),
        "within": share(one["moved"] <= WITHIN for one in found),
        "agrees": share(one["agrees"] for one in found),
        "median_moved": median(one["moved"] for one in found),
        "worst_moved": max((one["moved"] for one in found), default=None),
    }


def targets(part: Mapping[str, Any]) -> list[Target]:
    found = summary(part)
    named = (("all", "repeated cells that agree"), ("without warnings", "the same, cells without warnings"), ("ratios", "the same, ratios"))
    judged = [at_least(what, found[key]["agrees"], WANTED, of=found[key]["cells"]) for key, what in named]
    return [
        *judged,
        at_least("repeated cells with the same bytes and FLOPs", found["counts"]["same"], 1.0, of=found["counts"]["cells"]),
        none_of("repeated cells whose status changed", part["status_changed"]),
    ]


def markdown(part: Mapping[str, Any]) -> str:
    found = summary(part)
    named = (
        ("all", "latency, all cells"),
        ("without warnings", "latency, cells without a warning in either run"),
        ("ratios", "paired ratio"),
    )
    rows = [
        [
            what,
            *(counted(one[name], one["cells"]) for name in ("overlap", "within", "agrees")),
            *(percent(one[name]) for name in ("median_moved", "worst_moved")),
        ]
        for key, what in named
        for one in [found[key]]
    ]
    worst = sorted(part["cells"], key=lambda cell: -cell["latency"]["moved"])[:WORST]
    return "\n\n".join(
        [
            f"`{part['command']}` twice, one after the other ({' and '.join(units.duration(s) for s in part['seconds'])})."
            f" A cell agrees when its 95% intervals overlap and its medians are within {percent(WITHIN)}."
            f" Cells whose status changed: {part['status_changed']}.",
            table(
                ["", "intervals overlap", f"within {percent(WITHIN)}", "agree", "moved, median cell", "moved, worst cell"],
                rows,
            ),
            "The cells that moved most:",
            table(["cell", "first", "second", "moved", "ratio moved", "warnings"], map(_worst_row, worst)),
        ]
    )


def _worst_row(cell: Mapping[str, Any]) -> list[str]:
    first, second = cell["latency"]["medians"]
    kinds = dict.fromkeys(kind for one in cell["warnings"] for kind in one)
    moved = percent(cell["ratio"]["moved"]) if cell["ratio"] else "–"
    name = f"{cell['op']}, {cell['tokens']:,} tokens, {cell['mode']}"
    return [name, units.seconds(first), units.seconds(second), percent(cell["latency"]["moved"]), moved, ", ".join(kinds) or "none"]
