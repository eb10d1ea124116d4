"""What is known of a plan's cells: which are settled and how, what ended which series, and what the next will take."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lisabench.journal import is_settled
from lisabench.measure.latency import Limits
from lisabench.run.forecast import Forecast
from lisabench.sweep import Cell
from lisabench.workload import Grid, Workload

# Forecasts learn of the first cells all, then of some: a journal may have a million.
LEARNT_ALL, LEARNT_OF = 20_000, 16
ENDS_A_SERIES = {"oom": "ran out of memory", "timeout": "went over the time limit"}
ALIKE = ("op", "scope", "mode", "dim", "heads", "dtype", "device", "compiled")


class Ledger:
    """Takes in records as they are read from a journal or come from a device; a million of them take a few hundred MB."""

    def __init__(self, limits: Limits) -> None:
        self.forecasts: dict[str | None, Forecast] = {}
        self.limits = limits
        self.statuses: dict[str, str] = {}  # cell -> status, for the cells that need no more measuring
        self._put_off: set[str] = set()
        self._ended: dict[tuple[Any, ...], list[tuple[int, int, str]]] = {}

    def take(self, record: Mapping[str, Any]) -> None:
        """A record, whole or its head; the last one of a cell counts."""
        cell, status = record["cell"], record["status"]
        if status == "ok" or is_settled(record):
            self.statuses[cell] = sys.intern(status)
            if self._put_off:
                self._put_off.discard(cell)
        else:
            self.statuses.pop(cell, None)
            self._put_off.add(cell)
        if status == "ok":
            if len(self.statuses) < LEARNT_ALL or len(self.statuses) % LEARNT_OF == 0:
                self.forecast(record.get("device_kind")).learn(record)
        elif status in ENDS_A_SERIES:
            grid = Grid(record["height"], record["width"])
            words = Workload(grid=grid, batch=record["batch"]).describe()
            why = f"{words} of the same series {ENDS_A_SERIES[status]} already"
            self._ended.setdefault(_series(record), []).append((record["tokens"], record["batch"], why))

    def __contains__(self, cell: str) -> bool:
        return cell in self.statuses

    def __len__(self) -> int:
        return len(self.statuses)

    def counts(self) -> Counter[str]:
        """How many cells have which status; those that the budget had no room for are skipped."""
        return Counter(self.statuses.values()) + Counter(skipped=len(self._put_off))

    def forecast(self, kind: str | None) -> Forecast:
        """What is foretold of a kind of device, as records name it."""
        if kind not in self.forecasts:
            self.forecasts[kind] = Forecast(self.limits)
        return self.forecasts[kind]

    def ended(self, cell: Cell, kind: str | None) -> str | None:
        """Why a cell is not worth starting on a device of this kind: a smaller one of its series ended badly there."""
        workload = cell.workload
        stated = {"op": cell.op, "options": cell.options, "device_kind": kind} | workload.record_fields()
        for tokens, batch, why in self._ended.get(_series(stated), []):
            if tokens <= workload.tokens and batch <= workload.batch:
                return why
        return None


def _series(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a record shares with the smaller and larger ones of its curve."""
    options = json.dumps(record["options"], sort_keys=True, default=str)
    return (options, record.get("device_kind"), *(record[name] for name in ALIKE))
