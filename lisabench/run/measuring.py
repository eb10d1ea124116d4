"""A stand's side of a visit: budget, refusals, rounds and what follows from a failure, beside the device."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lisabench import registry
from lisabench.journal import BUDGET, Record, now
from lisabench.measure import kept_peaks
from lisabench.measure.roofline import product_dtype, roofline
from lisabench.provenance import device_id, device_kind
from lisabench.run.fleet import Event, Measured, Phase, Started, Surroundings, Task
from lisabench.run.forecast import Forecast
from lisabench.run.local import Progress, Worker
from lisabench.run.resident import transient_resident
from lisabench.run.visit import Place, PlaceFailedError, Visit
from lisabench.sweep import Cell

# A cell that the budget cuts off gets at least this long: the first cells have no forecast.
LEAST_SECONDS = 5.0
HALF = ("bf16", "fp16")


class Measurer:
    """A worker, and what is kept from visit to visit: the device's peaks, and its best sentinel."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.peaks: dict[str, float] = {}
        self.peaked: set[str] = set()
        self.best_sentinel: float | None = None
        self.told: tuple[str, dict[str, float]] | None = None

    def visit(self, task: Task, tell: Callable[[Event], None]) -> None:
        """Makes the visit; every cell of the task is told of as measured."""
        _Visiting(self, task, tell).go()

    def surroundings(self, tell: Callable[[Event], None]) -> None:
        """Has the worker ready, and tells its environment where that is news."""
        self.worker.ready()
        if self.told != (self.worker.environment_hash, self.peaks):
            tell(Surroundings(self.worker.environment_hash, self.worker.environment | {"peaks": self.peaks}))
            self.told = self.worker.environment_hash, self.peaks

    def measure_peaks(self, dtypes: set[str]) -> None:
        """The device's peaks, once for each dtype, whatever is kept: what a busy minute kept too low is mended by the next run."""
        self.peaks = kept_peaks.keep(self.worker.environment, self.worker.peaks(sorted(dtypes - self.peaked)))
        self.peaked |= dtypes


class _Visiting:
    def __init__(self, measurer: Measurer, task: Task, tell: Callable[[Event], None]) -> None:
        self.measurer, self.task, self.tell = measurer, task, tell
        self.worker, self.settings = measurer.worker, task.settings
        self.forecast = Forecast(self.settings.limits)
        self.deadline = time.monotonic() + task.seconds_left
        self.done: set[str] = set()

    def go(self) -> None:
        visit = Visit(
            worker=self.worker,
            limits=self.settings.limits,
            seed=self.settings.seed,
            baseline=self.settings.baseline,
            progress=self._progress,
            time_left=self._time_left,
        )
        for cell in self.task.cells:
            self._open(visit, cell)
        if visit.places and self.task.beside is not None:
            with contextlib.suppress(PlaceFailedError):
                visit.open(self.task.beside, {})
        visit.rounds(self._fail, enough=lambda: self._left() <= 0)
        if visit.sentinels:
            self.measurer.best_sentinel = min(self.measurer.best_sentinel or np.inf, float(np.median(visit.sentinels)))
        for place in list(visit.places):
            if place.cell is not self.task.beside:
                self._finish(place.cell, place.record, self._figures(visit, place) if place.enough else self._cut_off(place))
        self.worker.close_cells()

    def _open(self, visit: Visit, cell: Cell) -> None:
        self.tell(Started(cell.key))
        record: Record = {"started_at": now()}
        committed = sum(self._predicted(place) for place in visit.places)
        why = self._refusal(cell) or self._over_budget(self.task.foretold.get(cell.key), committed)
        if why:
            self._finish(cell, record, why)
            return
        self._ready(cell)
        environment = self.worker.environment
        record |= {"environment": self.worker.environment_hash, "host": environment["host"]}
        record |= {"device_kind": device_kind(environment), "device_id": device_id(environment)}
        try:
            place = visit.open(cell, record)
        except PlaceFailedError as failure:
            self._fail(failure)
            return
        why = self._over_budget(self._predicted(place), committed)
        if why:
            visit.drop(place)
            self._finish(cell, record, why)

    def _ready(self, cell: Cell) -> None:
        """The worker, its environment told, and the device's peaks for the cell's dtype."""
        self.measurer.surroundings(self.tell)
        wanted = {product_dtype(cell.workload.dtype, self.worker.environment), *(["fp32"] if cell.workload.dtype in HALF else [])}
        if not wanted <= self.measurer.peaked:
            self.tell(Phase(cell.key, "measuring peaks", None))
            self.measurer.measure_peaks(wanted)
            self.measurer.surroundings(self.tell)

    def _figures(self, visit: Visit, place: Place) -> Record:
        """What was measured of a cell, with what follows from it."""
        found = visit.account(place, best_sentinel=self.measurer.best_sentinel)
        absent = found["absent"]
        counted = found["flops"]
        limit = roofline(
            counted["analytic"],
            found.pop("traffic_bytes"),
            found["latency_s"]["median"],
            peaks=self.measurer.peaks,
            dtype=self._peak_dtype(place.cell, found["dispatch"]),
            coverage=counted["coverage"],
        )
        if isinstance(limit, str):
            absent["roofline"] = limit
        resident: int | str = "measured with --cross-check only"
        if self.settings.cross_check:
            timeout = self._time_left(place.spent)
            resident = transient_resident(place.cell, seed=self.settings.seed, threads=self.worker.threads, timeout=timeout)
        if isinstance(resident, str):
            absent["memory_bytes.resident"] = resident
        else:
            found["memory_bytes"]["resident"] = resident
        return found | {"roofline": None if isinstance(limit, str) else limit}

    def _peak_dtype(self, cell: Cell, dispatch: dict[str, Any] | None) -> str:
        """Under which peak a cell stands: that of its products' dtype, or of float32 where its FFTs, of which there are no shorter, are its work."""
        by_fft = dispatch is not None and dispatch["fft_dtype"] == "float32"
        return "fp32" if by_fft else product_dtype(cell.workload.dtype, self.worker.environment)

    def _progress(self, cell: Cell) -> Progress:
        return lambda phase, seconds: self.tell(Phase(cell.key, phase, seconds))

    def _fail(self, failure: PlaceFailedError) -> None:
        place, outcome = failure.place, failure.outcome
        if place.cell.key in self.done or place.cell is self.task.beside:
            return
        if outcome["status"] == "timeout":
            limit = self.settings.cell_timeout
            went_over = f"over the time limit of {limit:.3g} s; a larger --cell-timeout, in a new run, lets it go on"
            outcome = outcome | {"reason": went_over} if place.spent >= limit else self._cut_off(place)
        self._finish(place.cell, place.record, outcome)

    def _cut_off(self, place: Place) -> Record:
        return {"status": "skipped", "reason": f"{BUDGET}: cut off after {place.spent:.3g} s, when its time was up; a larger --budget"}

    def _finish(self, cell: Cell, record: Record, outcome: dict[str, Any]) -> None:
        self.done.add(cell.key)
        self.tell(Measured(cell.key, record | outcome))

    def _refusal(self, cell: Cell) -> dict[str, Any] | None:
        """Status and reason of a cell that its operator does not do."""
        why = registry.load(cell.op).refuses(cell.workload, **cell.options)
        return {"status": "unsupported", "reason": why} if why else None

    def _over_budget(self, predicted: float | None, committed: float) -> dict[str, Any] | None:
        """Skips a cell that the budget has no room for beside the cells that it was given to already."""
        left = self._left()
        if left <= 0:
            return {"status": "skipped", "reason": f"{BUDGET}: the {self.settings.budget:.0f} s are used up; a larger --budget"}
        if predicted is not None and predicted > left - committed:
            room = max(0.0, left - committed)
            why = f"{BUDGET}: predicted to take {predicted:.0f} s with {room:.0f} s left; a larger --budget"
            return {"status": "skipped", "reason": why}
        return None

    def _predicted(self, place: Place) -> float:
        """Seconds that an open cell still needs."""
        return self.forecast.from_call(place.call_seconds, place.cell.workload.device)

    def _left(self) -> float:
        """Seconds of the budget."""
        return self.deadline - time.monotonic()

    def _time_left(self, spent: float) -> float:
        """How long a cell's next request may take."""
        return min(self.settings.cell_timeout - spent, max(LEAST_SECONDS, self._left()))
