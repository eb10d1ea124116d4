"""Runs of written-down samples, as a sweep would leave them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lisabench.journal import Journal, blank_record
from lisabench.workload import Workload, most_square

H200, A100, EPYC = "NVIDIA H200", "NVIDIA A100", "AMD EPYC, 2 threads"


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


def fleet_run(
    path: Path,
    slowness: Mapping[str, float],
    *,
    ops: Sequence[str] = ("lisa", "softmax"),
    sizes: Sequence[int] = (256, 1024, 4096, 16384, 65536),
    ended: Mapping[tuple[str, str, int], str] | None = None,
    never: Sequence[str] = (),
    of_kind: bool | None = None,
    driver: str = "570.86",
    known: bool = True,
    digest: str | None = None,
    families: Sequence[str] = ("",),
    axes: Sequence[dict[str, Any]] = ({},),
) -> None:
    """A sweep over a fleet: all of it on each kind of device, whose times are so many times as long. The last operator is the baseline.

    The first is linear, the others are quadratic. `ended` maps (kind, operator, tokens) to the status of a cell that failed; on the kinds
    in `never` nothing ran. Keys of cells hold the kind where there are several, or as `of_kind` says; with `known` false, records lack the
    fields that tell their device, as those of older runs do. `digest` is that of the operators' files, `families` are theirs in turn.
    """
    stated = {op: {"given": {}, "family": family, "digest": digest} for op, family in zip(ops, itertools.cycle(families), strict=False)}
    plan = {"kind": "scale", "baseline": ops[-1], "operators": stated, "cells": []}
    of_kind = len(slowness) > 1 if of_kind is None else of_kind
    with Journal.create(path, plan) as journal:
        for kind, op, tokens, of in itertools.product(slowness, ops, sizes, axes):
            environment = environment_of(kind, driver)
            name = f"{kind} {driver}"
            workload = Workload(**{"grid": most_square(tokens), "device": environment["device"], **of})
            record = blank_record(
                {"cell": f"{op.rpartition(':')[2]} {digest} {tokens} {of}{kind * of_kind}", "op": op, "options": {}}
                | workload.record_fields()
            )
            record |= {"host": f"host of {kind}", "device_kind": kind, "device_id": "0"} if known else {}
            if kind in never:
                journal.append(record | {"reason": "its node is gone"} | ({"host": None, "device_id": None} if known else {}))
                continue
            journal.add_environment(name, environment)
            record |= {"environment": name, "status": (ended or {}).get((kind, op, tokens), "ok")}
            if record["status"] != "ok":
                journal.append(record | {"reason": "it was so"})
                continue
            first, last = _seconds(op == ops[0], tokens), _seconds(len(ops) == 1, tokens)
            journal.append(record | _measured(first * slowness[kind], None if op == ops[-1] else last / first, tokens))


def environment_of(kind: str, driver: str = "570.86") -> dict[str, Any]:
    """The environment that a device of that kind is measured in: "NAME, 2 threads" is a CPU, all else a GPU."""
    name, _, threads = kind.partition(", ")
    cpu = {"name": name if threads else "a CPU", "threads": int(threads.split()[0]) if threads else 8}
    known = {"device": "cpu" if threads else "cuda", "device_name": name, "machine": "x86_64", "cpu": cpu, "host": f"host of {kind}"}
    return known | {"libraries": {"torch": "2.13.0"}} | ({} if threads else {"driver": driver, "gpu": {"ecc": True}})


def _seconds(linear: bool, tokens: int) -> float:
    return 2e-5 + (4e-9 * tokens * math.log2(tokens) if linear else 5e-12 * tokens**2)


def _measured(seconds: float, ratio: float | None, tokens: int) -> dict[str, Any]:
    """The figures of a cell that took so long a call; `ratio` is the baseline's time over its own."""
    rounds = [seconds * (1 + 0.01 * (place % 7 - 3)) for place in range(14)]
    latency = {"median": seconds, "ci_low": 0.99 * seconds, "ci_high": 1.01 * seconds, "samples": rounds, "rounds": rounds}
    paired = ratio and {"median": 1 / ratio, "ci_low": 0.98 / ratio, "ci_high": 1.02 / ratio, "rounds": 14}
    roofline = {"flops_per_s": 1e4 * tokens / seconds, "bytes_per_s": 1e3 * tokens / seconds, "share": 0.1, "bound": "memory"}
    return {
        "latency_s": latency | {"count": 14, "kind": "warm", "stopped_by": "time", "warnings": []},
        "ratio": paired,
        "memory_bytes": {"transient": 1000 * tokens},
        "flops": {"analytic": 1e4 * tokens, "torch": None},
        "roofline": roofline | {"limit_s": seconds / 10, "peak_flops_per_s": 4e13, "peak_bytes_per_s": 4e12},
        "relative_error": 1e-6,
    }
