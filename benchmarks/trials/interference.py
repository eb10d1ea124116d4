"""Trial: a sweep on the quiet machine, and again beside a busy neighbour: do the records tell that something was wrong?

`busy` comes with every cell while others keep over a quarter of a core at work, so that warnings beside a neighbour alone prove
little: the quiet sweep is judged for false alarms, and warnings other than `busy` are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.trials.figures import Target, at_least, at_most, counted, median, off, percent, share, table
from benchmarks.trials.neighbour import KINDS, WORDS, neighbour
from benchmarks.trials.program import Setup, Swept, label, sweep, warnings_of
from lisabench.journal import Record

MOVED, WANTED, FALSE_ALARMS = 0.05, 0.90, 0.10
FULL = ["--op", "all", "--tokens", "64,256,1024", "--mode", "forward,train"]
QUICK = ["--op", "all", "--tokens", "64,256", "--cell-seconds", "0.3"]
PAIRED = ("medians_moved", "ratios_moved", "medians_over", "ratios_over", "worst_median", "worst_ratio")


def measure(setup: Setup) -> dict[str, Any]:
    arguments = QUICK if setup.quick else FULL
    quiet = sweep(setup, "interference quiet", *arguments)
    loud = {}
    for kind in KINDS:
        with neighbour(kind) as busy:
            swept = sweep(setup, f"interference {kind}", *arguments)
        loud[kind] = {"busy_cores": busy.cores, "cells": compared(quiet, swept), "lost": lost(quiet, swept), "warned": _kinds(swept)}
    return {
        "command": f"lisabench scale {' '.join(arguments)} --budget 0",
        "quiet": {"cells": [label(record) | {"warnings": warnings_of(record)} for record in quiet.ok.values()], "warned": _kinds(quiet)},
        "neighbours": loud,
    }


def compared(quiet: Swept, loud: Swept) -> list[dict[str, Any]]:
    """The cells measured both times."""
    return [change(record, loud.ok[cell]) for cell, record in quiet.ok.items() if cell in loud.ok]


def lost(quiet: Swept, loud: Swept) -> list[dict[str, Any]]:
    """The cells that were ok on the quiet machine and not beside the neighbour, with what became of them."""
    return [
        label(record) | {"status": loud.records[cell]["status"] if cell in loud.records else "no record"}
        for cell, record in quiet.ok.items()
        if cell not in loud.ok
    ]


def change(quiet: Record, loud: Record) -> dict[str, Any]:
    """How far a cell's median and its paired ratio moved, as shares, and which warnings the loud record carries."""
    ratios = quiet["ratio"], loud["ratio"]
    return label(quiet) | {
        "moved": loud["latency_s"]["median"] / quiet["latency_s"]["median"] - 1,
        "ratio_moved": ratios[1]["median"] / ratios[0]["median"] - 1 if all(ratios) else None,
        "warnings": warnings_of(loud),
    }


def _kinds(swept: Swept) -> dict[str, int]:
    """How many cells carry each kind of warning."""
    return dict(Counter(kind for record in swept.ok.values() for kind in dict.fromkeys(warnings_of(record))))


def summary(part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each neighbour, and of both together: moved cells, the share of them that warn, and how medians and ratios moved."""
    by_kind = {kind: found["cells"] for kind, found in part["neighbours"].items()}
    every = [cell for cells in by_kind.values() for cell in cells]
    quiet = part["quiet"]["cells"]
    return {kind: _told(cells) for kind, cells in (by_kind | {"all": every}).items()} | {
        "quiet": {"cells": len(quiet), "warned": share(bool(cell["warnings"]) for cell in quiet)}
    }


def _told(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    moved = [cell for cell in cells if abs(cell["moved"]) > MOVED]
    unmoved = [cell for cell in cells if abs(cell["moved"]) <= MOVED]
    paired = [cell for cell in cells if cell["ratio_moved"] is not None]
    return {
        "cells": len(cells),
        "moved": len(moved),
        "moved_and_warned": share(bool(cell["warnings"]) for cell in moved),
        "moved_and_warned_besides_busy": share(any(kind != "busy" for kind in cell["warnings"]) for cell in moved),
        "unmoved": len(unmoved),
        "unmoved_and_warned": share(bool(cell["warnings"]) for cell in unmoved),
        "medians_moved": median(abs(cell["moved"]) for cell in paired),
        "ratios_moved": median(abs(cell["ratio_moved"]) for cell in paired),
        "medians_over": share(abs(cell["moved"]) > MOVED for cell in paired),
        "ratios_over": share(abs(cell["ratio_moved"]) > MOVED for cell in paired),
        "worst_median": max((off(1 + cell["moved"], 1) for cell in paired), default=None),
        "worst_ratio": max((off(1 + cell["ratio_moved"], 1) for cell in paired), default=None),
    }


def targets(part: Mapping[str, Any]) -> list[Target]:
    found, quiet = summary(part)["all"], summary(part)["quiet"]
    return [
        at_least(f"cells moved by over {percent(MOVED)} that carry a warning", found["moved_and_warned"], WANTED, of=found["moved"]),
        at_most("quiet cells that carry a warning", quiet["warned"], FALSE_ALARMS, of=quiet["cells"]),
    ]


def markdown(part: Mapping[str, Any]) -> str:
    found = summary(part)
    kinds = list(part["neighbours"])
    rows = [
        [
            WORDS[kind],
            f"{part['neighbours'][kind]['busy_cores']:.2f}",
            one["cells"],
            len(part["neighbours"][kind]["lost"]),
            one["moved"],
            counted(one["moved_and_warned"], one["moved"]),
            counted(one["moved_and_warned_besides_busy"], one["moved"]),
            counted(one["unmoved_and_warned"], one["unmoved"]),
        ]
        for kind in kinds
        for one in [found[kind]]
    ]
    paired = [[WORDS[kind], *(percent(found[kind][name]) for name in PAIRED)] for kind in kinds]
    counts = {"quiet": part["quiet"]["warned"]} | {kind: part["neighbours"][kind]["warned"] for kind in kinds}
    seen = sorted({kind for one in counts.values() for kind in one})
    quiet = found["quiet"]
    sections = [
        f"`{part['command']}` on the quiet machine, then beside each neighbour. A cell moved when its median differs from the quiet one"
        f" by over {percent(MOVED)}.",
        table(
            [
                "neighbour",
                "cores it kept busy",
                "cells ok both times",
                "ok when quiet only",
                "moved",
                "moved, with a warning",
                "moved, with one other than `busy`",
                "not moved, with a warning",
            ],
            rows,
        ),
        *_lost(part),
        f"False alarms: of the cells of the quiet sweep, {counted(quiet['warned'], quiet['cells'])} carry a warning.",
        "How far plain medians and paired ratios moved, over the cells that have a ratio:",
        table(
            [
                "neighbour",
                "medians",
                "ratios",
                f"medians over {percent(MOVED)}",
                f"ratios over {percent(MOVED)}",
                "worst median",
                "worst ratio",
            ],
            paired,
        ),
    ]
    if seen:
        sections += [
            "Cells that carry a warning, by its kind:",
            table(["", *seen], [[name, *(c.get(k, 0) for k in seen)] for name, c in counts.items()]),
        ]
    return "\n\n".join(sections)


def _lost(part: Mapping[str, Any]) -> list[str]:
    """A list of the cells that a neighbour cost, if any."""
    told = [
        f"- {cell['op']}, {cell['tokens']:,} tokens, {cell['mode']}: {cell['status']} beside {WORDS[kind]}"
        for kind, one in part["neighbours"].items()
        for cell in one["lost"]
    ]
    return ["Not ok beside a neighbour, and so compared with nothing:\n\n" + "\n".join(told)] if told else []
