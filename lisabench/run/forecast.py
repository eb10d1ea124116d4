"""What the next cell will take, from the cells before it."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from typing import Any

import orjson

from lisabench.measure.latency import MINIMUM_SAMPLES, Limits
from lisabench.sweep import Cell

# Beyond warm-up and samples, as measured over visits on a CPU: checks, counters, profiler, journal; on a GPU with energy and the other
# kinds of latency.
OVERHEAD_SECONDS = {"cpu": 0.5, "cuda": 2.0}
AUDIT_CALLS = 11  # warm-up beyond its time, the first outputs, a trace of memory, two FLOP counts
MOST_SEEN = 4096  # points of one operator that are kept; of more every other is dropped


class Forecast:
    """Seconds that a cell will take, by the measured cell of the same operator that is nearest below in FLOPs."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._seen: dict[tuple[Any, ...], list[tuple[float, float]]] = {}

    def learn(self, record: Mapping[str, Any]) -> None:
        """Takes in a measured record; others tell nothing."""
        if record["status"] == "ok" and record["latency_s"]:
            work = (record["flops"] or {}).get("analytic") or float(record["batch"] * record["tokens"] ** 2)
            seen = self._seen.setdefault(_like(record), [])
            insort(seen, (work, record["latency_s"]["median"]))
            if len(seen) > MOST_SEEN:
                del seen[1::2]

    def call_seconds(self, cell: Cell) -> float | None:
        """Seconds of one call, None without anything to go by. Time is taken to grow as FLOPs do, or as N^2 where these are unknown."""
        seen = self._seen.get(_like({"op": cell.op, "options": cell.options} | cell.workload.record_fields()))
        if not seen:
            return None
        work = cell.flops or float(cell.workload.batch * cell.workload.tokens**2)
        known, seconds = seen[max(0, bisect_right(seen, (work, float("inf"))) - 1)]
        return seconds * max(1.0, work / known)

    def cell_seconds(self, cell: Cell) -> float | None:
        """Seconds of the whole cell: warm-up, samples and audits."""
        call = self.call_seconds(cell)
        return None if call is None else self.from_call(call, cell.workload.device) + self.limits.warmup_seconds + call

    def from_call(self, call_seconds: float, device: str) -> float:
        """Seconds that a cell takes once it is warm: samples and audits."""
        sampling = max(self.limits.seconds, MINIMUM_SAMPLES * call_seconds)
        return OVERHEAD_SECONDS[device.partition(":")[0]] + sampling + AUDIT_CALLS * call_seconds


def _like(record: Mapping[str, Any]) -> tuple[Any, ...]:
    options = orjson.dumps(record["options"], str, orjson.OPT_SORT_KEYS)
    return record["op"], options, record["scope"], record["dtype"], record["device"], record["compiled"]
