"""Takes a plan through a worker into the journal, workload by workload: budget, time limits, and what follows from a failure."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from lisabench import provenance, registry
from lisabench.journal import BUDGET, Journal, Record, blank_record, now
from lisabench.measure import kept_peaks
from lisabench.measure.latency import Limits
from lisabench.measure.roofline import product_dtype, roofline
from lisabench.run.forecast import Forecast
from lisabench.run.local import Progress, Worker
from lisabench.run.resident import transient_resident
from lisabench.run.visit import Place, PlaceFailedError, Visit
from lisabench.sweep import Cell

# A cell that the budget cuts off gets at least this long: the first cells have no forecast.
LEAST_SECONDS = 5.0
HALF = ("bf16", "fp16")
ENDS_A_SERIES = {"oom": "ran out of memory", "timeout": "went over the time limit"}


class Observer(Protocol):
    """Is told how a run goes on; times are in seconds, None where not known."""

    def started(self, cell: Cell, seconds_left: float | None) -> None: ...

    def progress(self, cell: Cell, phase: str, seconds_a_call: float | None) -> None: ...

    def finished(self, cell: Cell, record: Record) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long a run may take, in seconds, and what it compares with. `budget` None: as long as it needs.

    `cross_check`: every CPU cell's memory is measured again in a fresh process. `mix`: go on with a run from another machine.
    """

    budget: float | None
    cell_timeout: float
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    baseline: str | None = None
    cross_check: bool = False
    mix: bool = False


def run_cells(cells: Sequence[Cell], *, journal: Journal, worker: Worker, settings: Settings, observer: Observer) -> Counter[str]:
    """Brings every cell that is not settled in the journal there; how many have which status now."""
    return _Run(cells, journal=journal, worker=worker, settings=settings, observer=observer).go()


class _Run:
    def __init__(self, cells: Sequence[Cell], *, journal: Journal, worker: Worker, settings: Settings, observer: Observer) -> None:
        self.cells, self.journal, self.worker, self.settings, self.observer = cells, journal, worker, settings, observer
        self.forecast = Forecast(settings.limits)
        self.failed: dict[str, list[tuple[Cell, str]]] = {}
        self.statuses: Counter[str] = Counter()
        self.done: dict[str, str] = {}  # cell -> status
        self.peaks: dict[str, float] = {}
        self.peaked: set[str] = set()
        self.best_sentinel: float | None = None
        self.started = time.monotonic()

    def go(self) -> Counter[str]:
        settled = self.journal.settled
        for _, group in groupby(self.cells, key=lambda cell: cell.workload):
            visited = list(group)
            for cell in visited:
                if cell.key in settled:
                    self._close(cell, settled[cell.key])
            missing = [cell for cell in visited if cell.key not in settled]
            if missing:
                self._visit(missing)
        return self.statuses

    def _visit(self, cells: Sequence[Cell]) -> None:
        """Measures the cells of one workload, and records each."""
        visit = Visit(
            worker=self.worker,
            limits=self.settings.limits,
            seed=self.settings.seed,
            baseline=self.settings.baseline,
            progress=self._progress,
            time_left=self._time_left,
        )
        for cell in cells:
            self._open(visit, cell)
        self._open_baseline(visit)
        visit.rounds(self._fail, enough=lambda: self._left() <= 0)
        if visit.sentinels:
            self.best_sentinel = min(self.best_sentinel or np.inf, float(np.median(visit.sentinels)))
        for place in list(visit.places):
            if place.cell.key not in self.done:  # else it is there for the ratios of the others only
                self._finish(place.cell, place.record, self._figures(visit, place) if place.enough else self._cut_off(place))
        self.worker.close_cells()

    def _open(self, visit: Visit, cell: Cell) -> None:
        self.observer.started(cell, self._seconds_left())
        record = blank_record(cell.record_fields()) | {"started_at": now()}
        committed = sum(self._predicted(place) for place in visit.places)
        why = self._refusal(cell) or self._over_budget(self.forecast.cell_seconds(cell), committed)
        if why:
            self._finish(cell, record, why)
            return
        self._ready(cell)
        record["environment"] = self.worker.environment_hash
        try:
            place = visit.open(cell, record)
        except PlaceFailedError as failure:
            self._fail(failure)
            return
        why = self._over_budget(self._predicted(place), committed)
        if why:
            visit.drop(place)
            self._finish(cell, record, why)

    def _open_baseline(self, visit: Visit) -> None:
        """Where the baseline was measured before the run was stopped, it takes part again, unrecorded: ratios need common rounds."""
        if visit.places and all(place.cell.op != self.settings.baseline for place in visit.places):
            workload = visit.places[0].cell.workload
            settled = (cell for cell in self.cells if cell.workload == workload and cell.op == self.settings.baseline)
            for cell in settled:
                if self.done.get(cell.key) == "ok":
                    with contextlib.suppress(PlaceFailedError):
                        visit.open(cell, {})

    def _ready(self, cell: Cell) -> None:
        """The worker, its environment in the journal, and the device's peaks for the cell's dtype."""
        self.worker.ready()
        environment = self.worker.environment
        if self.worker.environment_hash not in self.journal.environments and not self.settings.mix:
            provenance.check_same(self.journal.environments, environment, run=self.journal.run)
        # Once a run, whatever is kept: what a busy minute kept too low is mended by the next run.
        wanted = {product_dtype(cell.workload.dtype, environment), *(["fp32"] if cell.workload.dtype in HALF else [])}
        if not wanted <= self.peaked:
            self.observer.progress(cell, "measuring peaks", None)
            self.peaks = kept_peaks.keep(environment, self.worker.peaks(sorted(wanted - self.peaked)))
            self.peaked |= wanted
        self.journal.add_environment(self.worker.environment_hash, environment | {"peaks": self.peaks})

    def _figures(self, visit: Visit, place: Place) -> Record:
        """What was measured of a cell, with what follows from it."""
        found = visit.account(place, best_sentinel=self.best_sentinel)
        absent = found["absent"]
        counted = found["flops"]
        limit = roofline(
            counted["analytic"],
            found.pop("traffic_bytes"),
            found["latency_s"]["median"],
            peaks=self.peaks,
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
        return lambda phase, seconds: self.observer.progress(cell, phase, seconds)

    def _fail(self, failure: PlaceFailedError) -> None:
        place, outcome = failure.place, failure.outcome
        if place.cell.key in self.done:
            return
        if outcome["status"] == "timeout":
            limit = self.settings.cell_timeout
            went_over = f"over the time limit of {limit:.3g} s; a larger --cell-timeout, in a new run, lets it go on"
            outcome = outcome | {"reason": went_over} if place.spent >= limit else self._cut_off(place)
        self._finish(place.cell, place.record, outcome)

    def _cut_off(self, place: Place) -> Record:
        return {"status": "skipped", "reason": f"{BUDGET}: cut off after {place.spent:.3g} s, when its time was up; a larger --budget"}

    def _finish(self, cell: Cell, record: Record, outcome: dict[str, Any]) -> None:
        record |= outcome
        if record["status"] != "ok":
            record |= {"relative_error": None, "absent": {}}
        self.journal.append(record)
        self._close(cell, record)

    def _close(self, cell: Cell, record: Record) -> None:
        """Takes in a record, old or new."""
        self.done[cell.key] = record["status"]
        self.forecast.learn(cell, record)
        if record["status"] in ENDS_A_SERIES:
            self.failed.setdefault(cell.series, []).append((cell, record["status"]))
        self.observer.finished(cell, record)
        self.statuses[record["status"]] += 1

    def _refusal(self, cell: Cell) -> dict[str, Any] | None:
        """Status and reason of a cell that is not worth starting."""
        why = registry.load(cell.op).refuses(cell.workload, **cell.options)
        if why:
            return {"status": "unsupported", "reason": why}
        for smaller, status in self.failed.get(cell.series, []):
            if smaller.workload.tokens <= cell.workload.tokens and smaller.workload.batch <= cell.workload.batch:
                already = f"{smaller.workload.describe()} of the same series {ENDS_A_SERIES[status]} already"
                return {"status": "skipped", "reason": already}
        return None

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
        budget = self.settings.budget
        return np.inf if budget is None else budget - (time.monotonic() - self.started)

    def _time_left(self, spent: float) -> float:
        """How long a cell's next request may take."""
        return min(self.settings.cell_timeout - spent, max(LEAST_SECONDS, self._left()))

    def _seconds_left(self) -> float | None:
        predicted = [self.forecast.cell_seconds(cell) for cell in self.cells if cell.key not in self.done]
        known = [seconds for seconds in predicted if seconds is not None]
        if not known:
            return None
        whole = sum(known) + (len(predicted) - len(known)) * max(known)
        return min(whole, max(0.0, self._left()))
