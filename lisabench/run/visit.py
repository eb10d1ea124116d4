"""A visit to one workload: its operators are opened, sampled in rounds in random order, and accounted for.

All operators of a workload share the rounds and the sentinel between them, and ratios to the baseline are taken within
rounds. The driver keeps the samples: a worker that dies takes the cell with it that it was at, and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from lisabench.journal import Record
from lisabench.measure.conditions import Load, conditions, gpu_conditions, sentinel_conditions
from lisabench.measure.latency import ROUNDS, Limits, Rounds, paired_ratio
from lisabench.measure.nvml import GpuState
from lisabench.results import FIGURES
from lisabench.run.local import Progress, Worker
from lisabench.sweep import Cell


@dataclass
class Place:
    """A cell of the visit. `spent` are the seconds that its requests took."""

    cell: Cell
    record: Record
    rounds: Rounds
    call_seconds: float = 0.0
    load: Load = field(default_factory=Load)
    states: list[GpuState] = field(default_factory=list)
    spent: float = 0.0

    @property
    def enough(self) -> bool:
        """Whether its rounds make a figure."""
        return len(self.rounds.rounds) >= ROUNDS


def uncounted(why: str) -> dict[str, Any]:
    """What the accounting gives where it failed: every figure absent, for the same reason."""
    figures: dict[str, Any] = dict.fromkeys(("latency_kinds_s", "energy_j", "backend", "dispatch", "traffic_bytes"))
    groups = {name: dict.fromkeys(FIGURES[name]) for name in ("memory_bytes", "flops")}
    return {"status": "ok"} | figures | groups | {"conditions": {}, "warnings": [], "absent": dict.fromkeys((*figures, *groups), why)}


class PlaceFailedError(Exception):
    """A cell came to its end without figures: `outcome` has its status and reason."""

    def __init__(self, place: Place, outcome: dict[str, Any]) -> None:
        super().__init__(outcome["reason"])
        self.place, self.outcome = place, outcome


@dataclass(kw_only=True)
class Visit:
    """The cells of one workload in the worker. `time_left(spent)`: seconds that a cell's next request may take."""

    worker: Worker
    limits: Limits
    seed: int
    baseline: str | None
    progress: Callable[[Cell], Progress]
    time_left: Callable[[float], float]
    places: list[Place] = field(default_factory=list)
    sentinels: list[float] = field(default_factory=list)
    load: Load = field(default_factory=Load)

    def open(self, cell: Cell, record: Record) -> Place:
        """Builds, checks and warms up a cell. PlaceFailedError where it does not come to that."""
        place = Place(cell, record, Rounds(self.limits))
        opened = self._request("open", place)
        place.rounds.kind, place.call_seconds = opened["kind"], opened["call_seconds"]
        record |= {"relative_error": opened["relative_error"], "absent": opened["absent"]}
        self.places.append(place)
        return place

    def drop(self, place: Place) -> None:
        """Takes a cell out of the rounds."""
        self.places.remove(place)

    def rounds(self, failed: Callable[[PlaceFailedError], None], *, enough: Callable[[], bool]) -> None:
        """Rounds in random order until no cell wants more or `enough()`; a cell that fails is dropped, and told to `failed`.

        The baseline takes part as long as any cell does, so that every round has a ratio.
        """
        order = Random(f"{self.seed} {self.places[0].cell.workload}" if self.places else self.seed)
        while (wanting := [place for place in self.places if not place.rounds.stopped_by()]) and not enough():
            self._sentinel()
            wanting += [place for place in self.places if place.cell.op == self.baseline and place not in wanting]
            order.shuffle(wanting)
            for place in wanting:
                if place.enough and enough():
                    continue
                try:
                    self._round(place)
                except PlaceFailedError as failure:
                    if failure.outcome["status"] == "timeout" and place.enough:
                        place.rounds.cut_short = True
                    else:
                        self.drop(place)
                        failed(failure)
        if self.places:
            self._sentinel()

    def account(self, place: Place, *, best_sentinel: float | None) -> dict[str, Any]:
        """The measured fields of a cell's record, after the rounds; an accounting that fails costs no latency."""
        try:
            found = self._request("account", place)
        except PlaceFailedError as failure:
            found = uncounted(f"the accounting failed: {failure}")
        latency = place.rounds.latency()
        told, warnings = self._conditions(place, best_sentinel)
        told |= found.pop("conditions")
        latency.warnings.extend(warnings + found.pop("warnings"))
        ratio, why = self._ratio(place)
        absent = place.record["absent"] | found["absent"] | ({"ratio": why} if why else {})
        return found | {"latency_s": latency.record(), "ratio": ratio, "conditions": told, "absent": absent}

    def _sentinel(self) -> None:
        seconds = self.worker.sentinel()
        if seconds is not None:
            self.sentinels.append(seconds)

    def _round(self, place: Place) -> None:
        seconds = place.rounds.slice_seconds()
        try:
            sampled = self._request("sample", place, seconds=seconds)
        except PlaceFailedError as failure:
            if failure.outcome["status"] != "crash" or len(self.places) == 1:
                raise
            # Another cell of the visit may have done the damage: in the new process this one is alone.
            sampled = self._request("sample", place, seconds=seconds)
        place.rounds.add(sampled["samples"], sampled["seconds"])
        place.states += [GpuState(**state) for state in sampled["states"]]
        load = Load(**sampled["load"])
        place.load += load
        self.load += load

    def _conditions(self, place: Place, best_sentinel: float | None) -> tuple[dict[str, Any], list[str]]:
        environment = self.worker.environment
        # On a GPU one thread of the host launches.
        threads = 1 if place.cell.workload.device != "cpu" else environment["cpu"]["threads"]
        told, warnings = conditions(place.load, self.load, threads=threads)
        gpu = environment.get("gpu") or {}
        clock = gpu.get("default_sm_clock_mhz") or gpu.get("max_sm_clock_mhz")
        sentinel = self.sentinels[: len(place.rounds.rounds) + 1]
        more = [gpu_conditions(place.states, clock=clock)]
        if sentinel:
            more.append(sentinel_conditions(sentinel, best=best_sentinel or min(sentinel)))
        for also_told, also_warned in more:
            told, warnings = told | also_told, warnings + also_warned
        return told, warnings

    def _ratio(self, place: Place) -> tuple[dict[str, Any] | None, str]:
        """The paired ratio to the baseline, or why there is none."""
        if self.baseline is None:
            return None, "the run has no baseline"
        if place.cell.op == self.baseline:
            return None, "the operator is the baseline"
        baseline = next((other for other in self.places if other.cell.op == self.baseline), None)
        if baseline is None:
            return None, f"the baseline {self.baseline} was not measured beside it"
        ratio = paired_ratio(place.rounds.medians, baseline.rounds.medians)
        if ratio is None:
            return None, f"too few rounds in common with the baseline {self.baseline}"
        return {"baseline": self.baseline} | asdict(ratio), ""

    def _request(self, do: str, place: Place, **more: Any) -> dict[str, Any]:
        self.worker.ready()  # a new process for another cell's crash is not this one's time
        started = time.monotonic()
        result = self.worker.request(
            do,
            place.cell,
            limits=asdict(self.limits),
            seed=self.seed,
            timeout=self.time_left(place.spent),
            progress=self.progress(place.cell),
            **more,
        )
        place.spent += time.monotonic() - started
        if result["status"] != "ok":
            raise PlaceFailedError(place, result)
        return result
