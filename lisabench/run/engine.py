"""Takes a plan cell by cell through a worker into the journal: budget, time limits, and what follows from a failure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from lisabench import registry
from lisabench.journal import BUDGET, Journal, Record, blank_record, now
from lisabench.measure.latency import Limits
from lisabench.run.forecast import Forecast
from lisabench.run.local import Worker
from lisabench.sweep import Cell

# A cell that the budget cuts off gets at least this long: the first cells have no forecast.
LEAST_SECONDS = 5.0
ENDS_A_SERIES = {"oom": "ran out of memory", "timeout": "went over the time limit"}


class Observer(Protocol):
    """Is told how a run goes on; times are in seconds, None where not known."""

    def started(self, cell: Cell, seconds_left: float | None) -> None: ...

    def progress(self, phase: str, seconds_a_call: float | None) -> None: ...

    def finished(self, cell: Cell, record: Record) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long a run may take, in seconds. `budget` None: as long as it needs."""

    budget: float | None
    cell_timeout: float
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


def run_cells(cells: Sequence[Cell], *, journal: Journal, worker: Worker, settings: Settings, observer: Observer) -> Counter[str]:
    """Brings every cell that is not settled in the journal there; how many have which status now."""
    return _Run(cells, journal=journal, worker=worker, settings=settings, observer=observer).go()


class _Run:
    def __init__(self, cells: Sequence[Cell], *, journal: Journal, worker: Worker, settings: Settings, observer: Observer) -> None:
        self.cells, self.journal, self.worker, self.settings, self.observer = cells, journal, worker, settings, observer
        self.forecast = Forecast(settings.limits)
        self.failed: dict[str, list[tuple[Cell, str]]] = {}
        self.started = time.monotonic()

    def go(self) -> Counter[str]:
        settled = self.journal.settled
        statuses: Counter[str] = Counter()
        for number, cell in enumerate(self.cells):
            record = settled.get(cell.key)
            if record is None:
                self.observer.started(cell, self._seconds_left(self.cells[number:], settled))
                record = self._measured(cell)
                self.journal.append(record)
            self._learn(cell, record)
            self.observer.finished(cell, record)
            statuses[record["status"]] += 1
        return statuses

    def _measured(self, cell: Cell) -> Record:
        record = blank_record(cell.record_fields()) | {"started_at": now()}
        why = self._refusal(cell) or self._over_budget(cell)
        if why:
            return record | {"status": why[0], "reason": why[1]}
        self.worker.ready()
        self.journal.add_environment(self.worker.environment_hash, self.worker.environment)
        record["environment"] = self.worker.environment_hash
        timeout = self._timeout()
        limits = asdict(self.settings.limits)
        measured = self.worker.measure(cell, limits=limits, seed=self.settings.seed, timeout=timeout, progress=self.observer.progress)
        if measured["status"] == "timeout" and timeout < self.settings.cell_timeout:
            measured = {"status": "skipped", "reason": f"{BUDGET}: cut off after {timeout:.3g} s, when its time was up; a larger --budget"}
        return record | measured

    def _refusal(self, cell: Cell) -> tuple[str, str] | None:
        """Status and reason of a cell that is not worth starting."""
        why = registry.load(cell.op).refuses(cell.workload, **cell.options)
        if why:
            return "unsupported", why
        for smaller, status in self.failed.get(cell.series, []):
            if smaller.workload.tokens <= cell.workload.tokens and smaller.workload.batch <= cell.workload.batch:
                return "skipped", f"{smaller.workload.describe()} of the same series {ENDS_A_SERIES[status]} already"
        return None

    def _over_budget(self, cell: Cell) -> tuple[str, str] | None:
        budget = self.settings.budget
        if budget is None:
            return None
        left = budget - (time.monotonic() - self.started)
        if left <= 0:
            return "skipped", f"{BUDGET}: the {budget:.0f} s are used up; a larger --budget"
        predicted = self.forecast.cell_seconds(cell)
        if predicted is not None and predicted > left:
            return "skipped", f"{BUDGET}: predicted to take {predicted:.0f} s with {left:.0f} s left; a larger --budget"
        return None

    def _timeout(self) -> float:
        if self.settings.budget is None:
            return self.settings.cell_timeout
        left = self.settings.budget - (time.monotonic() - self.started)
        return min(self.settings.cell_timeout, max(LEAST_SECONDS, left))

    def _learn(self, cell: Cell, record: Record) -> None:
        self.forecast.learn(cell, record)
        if record["status"] in ENDS_A_SERIES:
            self.failed.setdefault(cell.series, []).append((cell, record["status"]))

    def _seconds_left(self, cells: Sequence[Cell], settled: dict[str, Record]) -> float | None:
        predicted = [self.forecast.cell_seconds(cell) for cell in cells if cell.key not in settled]
        known = [seconds for seconds in predicted if seconds is not None]
        if not known:
            return None
        whole = sum(known) + (len(predicted) - len(known)) * max(known)
        budget = self.settings.budget
        return whole if budget is None else min(whole, max(0.0, budget - (time.monotonic() - self.started)))
