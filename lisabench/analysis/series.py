"""A run's records by series: one label's points under one set of conditions, along one axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from lisabench.records import Record, independent_samples
from lisabench.results import CURVE, Run

COLUMNS = {"latency": "latency_s.median", "memory": "memory_bytes.transient", "flops": "flops.analytic", "energy": "energy_j"}
"""What grows, and the column that tells it."""

_KEPT = 6  # of the latest runs: what a report asks for again and again

Points = tuple[tuple[float, tuple[float, ...]], ...]
"""(size, independent samples at that size), in order of size."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """The finished records of one label along one axis: size -> samples of each quantity."""

    op: str
    label: str
    run: str
    where: dict[str, Any]
    points: list[tuple[float, Record]] = field(default_factory=list)

    @functools.cached_property
    def sizes(self) -> int:
        """How many different sizes were measured."""
        return len({size for size, _ in self.points})

    def samples(self, quantity: str) -> Points:
        """The points that have the quantity."""
        found = ((size, _samples(record, quantity)) for size, record in self.points)
        return tuple((size, samples) for size, samples in found if samples)


def all_series(run: Run, axis: str) -> Sequence[Series]:
    """Every label under every condition, each kind of device one, in order of size; those of which nothing was measured have no points."""
    return _all_series(run, "batch" if axis == "batch" else "tokens")


@functools.lru_cache(maxsize=_KEPT)
def _all_series(run: Run, size: str) -> Sequence[Series]:
    fields = [*(name for name in CURVE if name != "batch"), "height", "width"] if size == "batch" else CURVE
    conditions = itemgetter(*fields)
    alike: dict[tuple[Any, ...], list[Record]] = {}
    for record in sorted(run.records, key=itemgetter(size)):
        alike.setdefault((record["op"], record.get("label"), run.device_of(record), conditions(record)), []).append(record)
    found: dict[tuple[Any, ...], Series] = {}
    for (op, _, device, shared), records in alike.items():
        label = run.label_of(records[0])
        series = Series(
            op=op, label=label, run=records[0].get("run", ""), where={"device_name": device, **dict(zip(fields, shared, strict=True))}
        )
        series = found.setdefault((label, device, shared), series)
        series.points.extend((float(record[size]), record) for record in records if record["status"] == "ok")
    for series in found.values():
        series.points.sort(key=itemgetter(0))
    return tuple(found.values())


def _samples(record: Record, quantity: str) -> tuple[float, ...]:
    """Independent samples of the quantity in one record, those that are finite and above 0: of time the medians of the rounds, else
    one number."""
    group, _, name = COLUMNS[quantity].partition(".")
    figures = record.get(group)
    if record["status"] != "ok" or not figures:
        return ()
    found = independent_samples(figures) if quantity == "latency" else [figures.get(name) if name else figures]
    return tuple(float(value) for value in found if value is not None and 0 < value < math.inf)


@functools.lru_cache(maxsize=_KEPT)
def measured(run: Run) -> Sequence[str]:
    """The quantities that any record has; time in any case."""
    return [quantity for quantity in COLUMNS if quantity == "latency" or any(_samples(record, quantity) for record in run.records)]


def differing(wheres: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields in which conditions differ, and which therefore tell curves apart."""
    values: dict[str, set[Any]] = {}
    for where in wheres:
        for name, value in where.items():
            values.setdefault(name, set()).add(value)
    return [name for name, found in values.items() if len(found) > 1]


def named(where: Mapping[str, Any], names: Sequence[str]) -> str:
    """These fields of `where` in words: 'mode train, batch 8'."""
    return ", ".join(f"{name.removesuffix('_name')} {where[name]}" for name in names if name != "device" or "device_name" not in names)
