"""What a plan will take on each kind of device: by earlier records where these know the operator, else by the cost model.

By the cost model a call takes the time that its analytic FLOPs and bytes need at the device's measured peaks, over the share of
its roofline that the device's records reached in the median. Of the operators of reports/reference-operators-cpu, each left out of
the records in turn, half of the calls so foretold are within 2.4 times of what was measured, and nine in ten within 6 times.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from heapq import heapreplace
from itertools import count, takewhile
from math import inf, isqrt
from pathlib import Path
from typing import Any, NamedTuple

from lisabench import registry
from lisabench.errors import InputError
from lisabench.journal import JOURNAL, Record, read_environments, read_plan
from lisabench.measure import kept_peaks
from lisabench.measure.latency import Limits
from lisabench.measure.roofline import product_dtype
from lisabench.plans import Visits
from lisabench.provenance import Environment, device_kind
from lisabench.records import scan
from lisabench.run.ledger import Ledger
from lisabench.run.local import WORKER_ENVIRONMENT
from lisabench.sweep import Cell
from lisabench.workload import Workload

ASSUMED_SHARE = 0.1  # the median of reports/reference-operators-cpu is 0.11
START_SECONDS = 5.0  # the process, the peaks of a dtype, what the first cell loads: 4 to 6 s on two cores of an AMD EPYC
MOST_CELLS = 10_000  # of an operator whose cost takes long to state, as that of lisa on large grids, in 3 s
LAST_SHARE, SHORTEST_STEP = 8, 11  # of the visits that are looked at, one in eight at the least is one of the plan's last
MOST_DEVICES, GAIN = 64, 0.05
RECORDS, MODEL, REFUSED, ENDED = "records", "model", "refused", "ended"


class Guess(NamedTuple):
    """Seconds of a cell, None where there is nothing to go by. `by`: RECORDS, MODEL, REFUSED or ENDED; for None the reason."""

    seconds: float | None
    by: str


@dataclass(kw_only=True)
class Device:
    """A kind of device, by its name in records, and what is known of it. `device`: torch's name of it. `here`: this machine has it.

    `cell_timeout`: no cell takes longer, in seconds.
    """

    name: str
    device: str
    ledger: Ledger
    cell_timeout: float = inf
    here: bool = False
    peaks: dict[str, float] = field(default_factory=dict)
    environment: Environment = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)
    records: int = 0

    @cached_property
    def share(self) -> float | None:
        """The share of the roofline that its records reached in the median; asked once it has learnt of all of them."""
        return statistics.median(self.shares) if self.shares else None

    @property
    def is_known(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self.records or self.peaks)

    def meet(self, environment: Environment, peaks: Any) -> None:
        """Takes in one of its environments, and of each peak the larger."""
        self.environment = environment
        sound = {name: value for name in kept_peaks.NAMES if isinstance(value := (peaks or {}).get(name), (int, float)) and value > 0}
        self.peaks = {name: max(value, self.peaks.get(name, 0.0)) for name, value in (self.peaks | sound).items()}

    def learn(self, record: Record) -> None:
        """Takes in a record of it."""
        self.ledger.take(record | {"device_kind": None, "device": self.device})
        if record["status"] == "ok":
            self.records += 1
            if limit := record.get("roofline"):
                self.shares.append(limit["share"])

    def guess(self, cell: Cell) -> Guess:
        """What the cell takes on it."""
        if cell.workload.device != self.device:
            cell = replace(cell, workload=replace(cell.workload, device=self.device))
        if registry.load(cell.op).refuses(cell.workload, **cell.options):
            return Guess(0.0, REFUSED)
        if self.ledger.ended(cell, None):
            return Guess(0.0, ENDED)
        forecast = self.ledger.forecast(None)
        if (known := forecast.cell_seconds(cell)) is not None:
            return Guess(min(known, self.cell_timeout), RECORDS)
        if isinstance(limit := self._limit_seconds(cell), str):
            return Guess(None, limit)
        call = limit / (self.share or ASSUMED_SHARE)
        seconds = forecast.from_call(call, self.device) + self.ledger.limits.warmup_seconds + call
        return Guess(min(seconds, self.cell_timeout), MODEL)

    def _limit_seconds(self, cell: Cell) -> float | str:
        """The shortest time that the peaks allow one call, or why it is not known."""
        workload, cost, flops = cell.workload, cell.cost, cell.flops
        if cost is None or flops is None:
            return "their operators state no cost"
        dtype = product_dtype(workload.dtype, self.environment)
        peak, bandwidth = self.peaks.get(f"flops_per_s_{dtype}"), self.peaks.get("bytes_per_s")
        if peak is None or bandwidth is None:
            what = f"peak of {dtype}" if peak is None else "copy bandwidth"
            return f"no {what} is known of the device" + ("; `lisabench env` measures it" if self.here else "")
        traffic = cost.traffic_bytes * (2 if workload.mode == "train" else 1)
        return max(flops / peak, traffic / bandwidth)


def known_devices(
    history: Sequence[Path], *, here: Environment | None, plan_device: str, limits: Limits, cell_timeout: float | None
) -> list[Device]:
    """The kinds of devices that earlier runs were measured on, and this machine's, the last one unless it is among those.

    `here`: this machine's environment, None where it lacks the plan's device. `plan_device` is torch's name of that.

    Raises:
        InputError: one of `history` is no run of `lisabench scale`.
    """
    devices: dict[str, Device] = {}

    def device_of(name: str, device: str) -> Device:
        same = device.partition(":")[0] == plan_device.partition(":")[0]
        made = Device(name=name, device=plan_device if same else device, ledger=Ledger(limits), cell_timeout=cell_timeout or inf)
        return devices.setdefault(name, made)

    for path in history:
        _learn(path, device_of)
    if here is not None:
        device = device_of(device_kind(here), plan_device)
        device.here = True
        device.meet(here, kept_peaks.kept(here))
    return list(devices.values())


def _learn(path: Path, device_of: Callable[[str, str], Device]) -> None:
    """Hands the records of a run to their devices."""
    if read_plan(path)["kind"] != "scale":
        raise InputError(f"--history {str(path)!r} is no run of `lisabench scale`; give one that is")
    environments = read_environments(path)
    met: dict[tuple[Any, ...], Device] = {}

    def take(record: Record) -> None:
        environment = environments.get(record["environment"] or "")
        if environment is None:  # it never ran
            return
        key = (record["environment"], record["device"], kind := record.get("device_kind"))
        if key not in met:
            met[key] = device_of(kind or device_kind(environment), record["device"])
            met[key].meet(environment, environment.get("peaks"))
        met[key].learn(record)

    scan(path / JOURNAL, take)


def this_machine(device: str, threads: int | None) -> Environment | None:
    """The environment that a worker on this machine would tell, without starting one; None where the device is not there."""
    import torch

    from lisabench.measure.environment import VARIABLES, environment

    if device != "cpu" and not torch.cuda.is_available():
        return None
    found = environment(device)
    found["cpu"]["threads"] = threads or found["cpu"]["threads"]
    found["cpu"]["variables"] |= {name: value for name, value in WORKER_ENVIRONMENT.items() if name in VARIABLES}
    return found


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan takes on devices of one kind.

    `on`: number of devices -> seconds until the last of them is done, each taking the next visit when it is free; empty where nothing is
    known. `longest_s`: what the longest visit takes, below which no number of devices comes; `longest` is its workload. `cells`: how many
    of them rest on what, `unknown`: how many are in no figure, by reason. `looked_at`: from how many of the `visits` all this was told.
    """

    device: Device
    on: Mapping[int, float]
    longest_s: float
    longest: Workload | None
    cells: Counter[str]
    unknown: Counter[str]
    looked_at: int
    visits: int


def estimates(visits: Visits, devices: Sequence[Device], *, most: int = MOST_CELLS) -> list[Estimate]:
    """What the plan takes on each of the devices that any of it is for, and on the kinds of devices that it names beside those.

    Of a plan with more cells so many are looked at, at the most.
    """
    places: dict[str | None, list[int]] = {}
    for place in range(len(visits)):
        places.setdefault(visits.kind_of(place), []).append(place)
    most_visits = len(visits) if visits.count <= most else max(1, most * len(visits) // visits.count // len(places))
    visit: Callable[[int], list[Cell]] = cache(visits.__getitem__)  # its cells keep their costs for the next device
    found = []
    for device in [*devices, *_strangers(places, devices)]:
        mine = [*places.get(None, ()), *places.get(device.name, ())]
        if mine:
            looked_at = spread_out(len(mine), most_visits) if device.is_known else []
            found.append(_estimate([(visit(mine[place]), many) for place, many in looked_at], device, visits=len(mine)))
    return found


def _strangers(kinds: Iterable[str | None], devices: Sequence[Device]) -> list[Device]:
    """The kinds of devices that a plan names and nothing is known of."""
    names = {device.name for device in devices}
    return [Device(name=kind, device="", ledger=Ledger(Limits())) for kind in kinds if kind is not None and kind not in names]


def _estimate(looked_at: Sequence[tuple[list[Cell], int]], device: Device, *, visits: int) -> Estimate:
    taken: list[tuple[float, int]] = []
    cells, unknown = Counter[str](), Counter[str]()
    longest_s, longest = -1.0, None
    for visit, many in looked_at:
        guesses = [device.guess(cell) for cell in visit]
        for guess in guesses:
            (unknown if guess.seconds is None else cells)[guess.by] += many
        seconds = sum(guess.seconds or 0.0 for guess in guesses)
        taken.append((seconds, many))
        if seconds > longest_s:
            longest_s, longest = seconds, visit[0].workload
    return Estimate(
        device=device,
        on=_on(taken, visits) if cells else {},
        longest_s=longest_s + START_SECONDS,
        longest=longest,
        cells=cells,
        unknown=unknown,
        looked_at=len(looked_at),
        visits=visits,
    )


def spread_out(whole: int, most: int) -> list[tuple[int, int]]:
    """At most so many places of `whole`, each with the number of places that it stands for: the last ones, which are the longest, for
    themselves, and the others in even steps.

    A plan takes modes, dtypes and batch sizes in turn, of which other steps than those of `_keeps_no_time` might always meet the same.
    """
    if whole <= most:
        return [(place, 1) for place in range(whole)]
    most = max(2, most)
    shortest = max(SHORTEST_STEP, whole // (most - most // LAST_SHARE) + 1)
    step = next(filter(_keeps_no_time, count(shortest)))
    last = max(1, (step * (most - 1) - whole) // (step - 1))
    others = whole - last
    found = [(min(start + step // 2, others - 1), min(step, others - start)) for start in range(0, others, step)]
    return found + [(place, 1) for place in range(others, whole)]


def _keeps_no_time(step: int) -> bool:
    """Whether it is a prime, and none below a power of two: with n batch sizes that double a plan repeats itself after 2^n - 1 visits."""
    return all(step % factor for factor in range(2, isqrt(step) + 1)) and (step & (step + 1)) > 0


def _on(taken: Sequence[tuple[float, int]], visits: int) -> dict[int, float]:
    """Seconds on 1, 2, 4, ... devices while twice as many gain something."""
    found = {1: done_after(taken, 1)}
    for devices in takewhile(lambda devices: devices <= min(MOST_DEVICES, visits), (2**power for power in count(1))):
        seconds = done_after(taken, devices)
        if seconds > (1 - GAIN) * found[devices // 2]:
            break
        found[devices] = seconds
    return {devices: seconds + START_SECONDS for devices, seconds in found.items()}


def done_after(taken: Sequence[tuple[float, int]], devices: int) -> float:
    """Seconds until the last of so many devices is done, each of which takes the next visit when it is free.

    `taken`: the seconds of a visit and how many alike follow each other, in the order of the plan. As many as there are devices are
    taken to go one to each.
    """
    everywhere, busy = 0.0, [0.0] * devices
    for seconds, many in taken:
        rounds, rest = divmod(many, devices)
        everywhere += rounds * seconds
        for _ in range(rest):
            heapreplace(busy, busy[0] + seconds)
    return everywhere + max(busy)
