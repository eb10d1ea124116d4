"""Parts of a sweep as machines would leave them, from records that are written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lisabench.journal import Journal, blank_record
from lisabench.merging.runs import Merged, merge
from lisabench.plans import stated
from lisabench.presets import Shape
from lisabench.provenance import device_kind, fingerprint
from lisabench.sweep import Cell, Sweep
from lisabench.workload import most_square

OPTIONS: dict[str, dict[str, Any]] = {"linear": {"feature": "elu"}, "softmax": {}}
SKIPPED = {"status": "skipped", "reason": "budget: the 60 s are used up; a larger --budget", "latency_s": None, "environment": None}
UNSUPPORTED = {"status": "unsupported", "reason": "no odd grids", "latency_s": None, "environment": None}
SMALL_KIND, LARGE_KIND = "Small CPU, 2 threads", "Large CPU, 2 threads"


def machine(name: str = "Small CPU", *, host: str = "one", torch: str = "2.13.0", **more: Any) -> dict[str, Any]:
    """An environment."""
    known = {"device": "cpu", "device_name": name, "host": host, "machine": "x86_64", "cpu": {"threads": 2}, "libraries": {"torch": torch}}
    return known | more


def a_sweep(**axes: Any) -> Sweep:
    """Two operators at four numbers of tokens."""
    shapes = tuple(Shape(grid=most_square(count), dim=32, heads=2) for count in (16, 32, 64, 128))
    return Sweep(**{"ops": tuple(OPTIONS.items()), "shapes": shapes, **axes})


def plan_of(sweep: Sweep, **fields: Any) -> dict[str, Any]:
    operators = {op: {"options": options, "given": {}, "digest": sweep.digests.get(op)} for op, options in sweep.ops}
    told = {"schema": 1, "kind": "scale", "lisabench": "0.1", "command": ["lisabench", "scale"], "baseline": "softmax", "device": "cpu"}
    return told | {"threads": None, "seed": 0, "operators": operators, "sweeps": [stated(sweep)], "cells": sweep.count} | fields


def write_shard(
    path: Path,
    sweep: Sweep,
    *,
    on: Mapping[str, Any] | None = None,
    came_of: Callable[[Cell], dict[str, Any] | None] = lambda cell: {},
    factor: float = 1.0,
    older: bool = False,
    **plan: Any,
) -> Path:
    """A run of the sweep on one machine. `came_of` a cell: fields of its record over those of one that finished; None: it has no record.

    `factor`: how many times slower than another machine it is. `older`: records and plan as before there were kinds of devices.
    """
    environment = on or machine()
    key = fingerprint({**environment, "device_name": f"{environment['device_name']} {environment['host']}"})
    found = plan_of(sweep, **plan)
    if older:
        found = {name: value for name, value in found.items() if name != "sweeps"} | {"cells": [c.record_fields() for c in sweep.cells()]}
    with Journal.create(path, found) as journal:
        journal.add_environment(key, dict(environment))
        for cell in sweep.cells():
            if (outcome := came_of(cell)) is not None:
                median = factor * 1e-5 * cell.workload.tokens
                record = blank_record(cell.record_fields()) | {"host": environment["host"], "device_kind": device_kind(environment)}
                record |= {"status": "ok", "latency_s": latency(median), "environment": key} | outcome
                record |= {} if record["environment"] else {"host": None, "device_kind": None}
                for name in ("host", "device_kind", "device_id") if older else ():
                    del record[name]
                journal.append(record)
    return path


def latency(median: float) -> dict[str, Any]:
    return {"median": median, "ci_low": median, "ci_high": median, "samples": [median] * 12, "warnings": []}


def lines(run: Path) -> list[str]:
    """The journal's lines."""
    return (run / "journal.jsonl").read_text().splitlines()


def keys(run: Path) -> list[str]:
    """The cells of the journal's records, in order."""
    return [json.loads(line)["cell"] for line in lines(run)]


def plan_on_disk(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "plan.json").read_text())
    return found


def merged(*runs: Path, out: str = "out", **asked: Any) -> Merged:
    """The runs merged into a folder beside the first."""
    return merge(runs, runs[0].parent / out, command=["lisabench", "merge"], **asked)


def shards(folder: Path, parts: int = 2) -> list[Path]:
    """All parts of the sweep, each of a folder that is called by its number."""
    return [write_shard(folder / f"{part}", a_sweep(share=(part, parts))) for part in range(1, parts + 1)]
