"""Takes a plan over the stands of a fleet into the journal, visit by visit; alone knows what is done and what is to do."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from lisabench import provenance
from lisabench.errors import InputError, UnavailableError
from lisabench.journal import Journal, Record, blank_record
from lisabench.plans import Visits
from lisabench.run.fleet import Ended, Event, Fleet, Lost, Measured, Phase, Said, Settings, Stand, Started, Surroundings, Task, UnfitError
from lisabench.run.ledger import Ledger
from lisabench.sweep import Cell, spread

# As often a stand may be lost at a cell, or its process killed there, before that is what came of the cell.
MOST_LOSSES = 3
# Of longer plans the seconds that are left are reckoned from so many visits among them.
FORETOLD_VISITS = 50


class Observer(Protocol):
    """Is told how a run goes on; times are in seconds, None where not known. `stand` is where a cell is measured."""

    def settled(self, cells: int) -> None: ...

    def started(self, stand: str, cell: Cell, seconds_left: float | None) -> None: ...

    def progress(self, stand: str, cell: Cell, phase: str, seconds_a_call: float | None) -> None: ...

    def finished(self, stand: str, cell: Cell, record: Record) -> None: ...

    def gone(self, stand: str) -> None: ...

    def said(self, text: str) -> None: ...


def run_cells(visits: Visits, *, journal: Journal, ledger: Ledger, fleet: Fleet, settings: Settings, observer: Observer) -> Counter[str]:
    """Brings every cell that the ledger does not know as settled into the journal; how many have which status now.

    Raises:
        InputError: the one stand that there is measures in other surroundings than the run's, and `settings.mix` is not set.
        UnavailableError: no stand is left; what was measured is kept.
    """
    return _Run(visits, journal=journal, ledger=ledger, fleet=fleet, settings=settings, observer=observer).go()


@dataclass
class _Making:
    """A visit that is being made: its place in the plan, its cells by their keys, those that are not told of, the one at work."""

    place: int
    cells: dict[str, Cell]
    open: set[str]
    at: str | None = None


@dataclass
class _Run:
    visits: Visits
    journal: Journal
    ledger: Ledger
    fleet: Fleet
    settings: Settings
    observer: Observer
    making: dict[Stand, _Making] = field(default_factory=dict)
    again: deque[tuple[int, frozenset[str]]] = field(default_factory=deque)  # visits to make once more: their place, which cells of it
    losses: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    foretold: tuple[float, float | None] = (0.0, None)  # when the seconds left were reckoned last, and what they were

    def __post_init__(self) -> None:
        self.kinds = tuple(dict.fromkeys(kind for part in self.visits.parts for kind in (part.kinds or (None,))))
        self.reached: dict[str | None, int] = dict.fromkeys(self.kinds, 0)

    def go(self) -> Counter[str]:
        if len(self.ledger):
            self.observer.settled(len(self.ledger))
        while True:
            for stand in self.fleet.idle():
                if (task := self._next_task(stand)) is not None:
                    self.fleet.start(stand, task)
            if not self.fleet.busy and self._is_done():
                return self.ledger.counts()
            try:
                self.fleet.turn(self._take)
            except UnavailableError as error:
                kinds = sorted({kind for place, _ in self.again if (kind := self.visits.kind_of(place)) is not None})
                raise UnavailableError(f"{error}; what is left waits for {' and '.join(kinds)}" if kinds else str(error)) from error

    # --- what to measure next ------------------------------------------------------------------------------------------

    def _next_task(self, stand: Stand) -> Task | None:
        """The next visit with cells that are not settled, for a stand of this kind; those of a lost stand come first."""
        kind = stand.kind if stand.kind in self.kinds else None
        if kind not in self.kinds:
            return None
        for place, cells in self._waiting(kind):
            missing = [cell for cell in cells if not self._skip(stand, cell)]
            if missing:
                return self._task(stand, place, missing)
        return None

    def _waiting(self, kind: str | None) -> Iterator[tuple[int, list[Cell]]]:
        """Visits with cells that are to be measured on this kind of device, taken out of those that wait."""
        for _ in range(len(self.again)):
            place, keys = self.again.popleft()
            if self.visits.kind_of(place) == kind:
                yield place, [cell for cell in self.visits[place] if cell.key in keys]
            else:
                self.again.append((place, keys))
        while (place := self.visits.next_missing(self.reached[kind], self.ledger.statuses)) < len(self.visits):
            self.reached[kind] = place + 1
            if self.visits.kind_of(place) == kind:
                yield place, self._missing(place)
        self.reached[kind] = len(self.visits)

    def _missing(self, place: int) -> list[Cell]:
        return [cell for cell in self.visits[place] if cell.key not in self.ledger]

    def _is_done(self) -> bool:
        """Whether nothing waits, for whatever kind of device."""
        for kind in self.kinds:
            if not self.again:
                self.again.extend((place, frozenset(cell.key for cell in cells)) for place, cells in islice(self._waiting(kind), 1))
        return not self.again

    def _task(self, stand: Stand, place: int, cells: Sequence[Cell]) -> Task:
        beside = None
        if all(cell.op != self.settings.baseline for cell in cells):
            measured = (cell for cell in self.visits[place] if self.ledger.statuses.get(cell.key) == "ok")
            beside = next((cell for cell in measured if cell.op == self.settings.baseline), None)
        forecast = self.ledger.forecast(stand.kind)
        foretold = {cell.key: seconds for cell in cells if (seconds := forecast.cell_seconds(cell)) is not None}
        self.making[stand] = _Making(place, {cell.key: cell for cell in cells}, {cell.key for cell in cells})
        return Task(cells=cells, beside=beside, foretold=foretold, seconds_left=self._left(), settings=self.settings)

    def _skip(self, stand: Stand, cell: Cell) -> bool:
        """Records a cell whose series ended before it."""
        why = self.ledger.ended(cell, stand.kind)
        if why:
            self._record(stand, cell, {"status": "skipped", "reason": why})
        return why is not None

    # --- what came of it -----------------------------------------------------------------------------------------------

    def _take(self, stand: Stand, event: Event) -> None:
        match event:
            case Said(text):
                self.observer.said(text)
            case Surroundings(key, environment):
                self._check(stand, key, environment)
                self.journal.add_environment(key, environment)
            case Started(key) | Phase(key):
                self._at_work(stand, event, key)
            case Measured(key, outcome):
                self._measured(stand, key, outcome)
            case Ended():
                self.making.pop(stand, None)
            case Lost():
                self._lost(stand, event)

    def _check(self, stand: Stand, key: str, environment: dict[str, object]) -> None:
        """UnfitError where the stand's times do not belong beside those that are there; each kind of device has a series of its own."""
        kind = stand.kind = provenance.device_kind(environment)
        known = self.journal.environments
        if len(self.kinds) > 1 or self.kinds[0] is not None:
            known = {key: other for key, other in known.items() if provenance.device_kind(other) == kind}
        if key not in known and not self.settings.mix:
            try:
                provenance.check_same(known, environment, run=self.journal.run)
            except InputError as error:
                raise UnfitError(str(error)) from error

    def _at_work(self, stand: Stand, event: Started | Phase, key: str) -> None:
        making = self.making.get(stand)
        if making is None or key not in making.cells:  # the baseline beside
            return
        making.at, cell = key, making.cells[key]
        if isinstance(event, Started):
            self.observer.started(stand.name, cell, self._seconds_left())
        else:
            self.observer.progress(stand.name, cell, event.name, event.seconds_a_call)

    def _measured(self, stand: Stand, key: str, outcome: dict[str, object]) -> None:
        making = self.making.get(stand)
        if making is None or key not in making.open:
            return
        making.open.discard(key)
        if outcome.pop("killed", False) and not self.fleet.alone:
            self.losses[key] += 1
            if self.losses[key] < MOST_LOSSES:
                self.again.append((making.place, frozenset((key,))))
                return
        self._record(stand, making.cells[key], outcome)

    def _lost(self, stand: Stand, event: Lost) -> None:
        self.observer.gone(stand.name)
        making = self.making.pop(stand, None)
        if making is None:
            return
        if making.at in making.open and not event.blameless:
            self.losses[making.at] += 1
            if self.losses[making.at] >= MOST_LOSSES:
                why = f"its worker was lost {MOST_LOSSES} times while measuring it; the last time: {event.why}"
                self._record(stand, making.cells[making.at], {"status": "crash", "reason": why})
                making.open.discard(making.at)
        if making.open:
            self.again.append((making.place, frozenset(making.open)))

    def _record(self, stand: Stand, cell: Cell, outcome: dict[str, object]) -> None:
        record = blank_record(cell.record_fields()) | {"device_kind": cell.kind or stand.kind} | outcome
        if record["status"] != "ok":
            record |= {"relative_error": None, "absent": {}}
        self.journal.append(record)
        self.ledger.take(record)
        self.observer.finished(stand.name, cell, record)

    # --- time ----------------------------------------------------------------------------------------------------------

    def _left(self) -> float:
        """Seconds of the budget."""
        budget = self.settings.budget
        return float(np.inf) if budget is None else budget - (time.monotonic() - self.started)

    def _seconds_left(self) -> float | None:
        """Seconds until all is done, by what is foretold of the cells that are not; reckoned once a second."""
        when, seconds = self.foretold
        if seconds is None or time.monotonic() - when > 1:
            seconds = self._reckoned()
            self.foretold = time.monotonic(), seconds
        return None if seconds is None else min(seconds, max(0.0, self._left()))

    def _reckoned(self) -> float | None:
        missing = [(cell, 1.0) for making in self.making.values() for key, cell in making.cells.items() if key in making.open]
        missing += [(cell, 1.0) for place, keys in self.again for cell in self.visits[place] if cell.key in keys]
        for kind, reached in self.reached.items():
            rest = len(self.visits) - reached
            some = spread(rest, FORETOLD_VISITS)
            places = [reached + place for place in some if self.visits.kind_of(reached + place) == kind]
            missing += [(cell, rest / len(some)) for place in places for cell in self._missing(place)]
        here = next((stand.kind for stand in self.making), None)
        foretold = [(self.ledger.forecast(cell.kind or here).cell_seconds(cell), weight) for cell, weight in missing]
        known = [seconds for seconds, _ in foretold if seconds is not None]
        if not known:
            return None
        return sum((max(known) if seconds is None else seconds) * weight for seconds, weight in foretold) / max(1, len(self.making))
