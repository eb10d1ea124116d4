"""Runs of written-down samples, as a sweep would leave them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lisabench.journal import Journal, blank_record
from lisabench.workload import Workload, most_square


def made_run(
    path: Path,
    medians: Mapping[int, float | str],
    *,
    op: str = "linear",
    options: Mapping[str, Any] | None = None,
    device_name: str = "a CPU",
    spread: float = 0.01,
    content: str = "",
    warnings: Sequence[str] = (),
    axes: Sequence[dict[str, Any]] = ({},),
) -> None:
    """A run with a cell for each of the axes at each number of tokens: its median in seconds, or the status in which it ended.

    `content` stands for the text of an own operator's file: cells of another one are other cells.
    """
    with Journal.create(path, {"kind": "scale", "baseline": None, "operators": {op: {"given": options or {}}}, "cells": []}) as journal:
        journal.add_environment("e", {"device_name": device_name, "machine": "x", "cpu": {"threads": 1}})
        for (tokens, median), of in itertools.product(medians.items(), axes):
            workload = Workload(**{"grid": most_square(tokens), **of})
            fields = {"cell": f"{op} {options} {content} {tokens} {of}", "op": op, "options": options or {}} | workload.record_fields()
            if isinstance(median, str):
                journal.append(blank_record(fields) | {"status": median, "reason": "it was so", "environment": "e"})
                continue
            samples = [median * (1 + spread * (i % 11 - 5) / 5) for i in range(40)]
            latency = {
                "median": median,
                "ci_low": median * 0.999,
                "ci_high": median * 1.001,
                "samples": samples,
                "warnings": list(warnings),
            }
            journal.append(blank_record(fields) | {"status": "ok", "latency_s": latency, "environment": "e"})
