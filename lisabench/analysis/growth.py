"""What a run tells about growth: each operator's law along an axis, its crossing with the baseline, and both in plain words."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.optimize import brentq

from lisabench.analysis.crossover import BETTER, Crossover, efficiency_length, find_crossover
from lisabench.analysis.scaling import FitError, PowerLaw, fit_power_law
from lisabench.analysis.series import Points, Series, all_series, differing, measured, named
from lisabench.results import Run

AXES = ("tokens", "resolution", "batch")
QUANTITIES = ("latency", "memory", "flops", "energy")
WORDS = {"latency": "time", "memory": "memory", "flops": "FLOPs", "energy": "energy"}
UNDETERMINED = 2.0  # an interval as wide as from constant to quadratic says nothing
FARTHEST = 16.0  # times the largest size: farther out no law is trusted
MOST = 60  # series of a device along an axis that are fitted, those of thirty operators twice: a law takes 10 ms, and nobody reads more


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One operator's curve along one axis, and its law.

    `where` is what all points share: `device_name` and the fields of CURVE; along "batch" `height` and `width` in place of `batch`.
    `sizes` are tokens, pixels a side (patches a side where the plan states no patch size) or images; `values` are in SI units. `law`
    is None where there is none to be had, and `why` says why. Along "resolution" it is the law over tokens, N = (side / patch)^2,
    so its exponent is twice that one's, and `preferred` is still about tokens.
    """

    op: str
    label: str
    where: Mapping[str, Any]
    axis: str
    quantity: str
    sizes: tuple[float, ...]
    values: tuple[float, ...]
    law: PowerLaw | None
    why: str

    @property
    def exponent(self) -> str:
        """The exponent in words: '1.12 (1.08 to 1.15)', without an interval that rounds away; "" without a law."""
        law = self.law
        if law is None:
            return ""
        if not self.determined:
            return f"? ({law.points} sizes do not tell)"
        interval = f" ({law.ci_low:.2f} to {law.ci_high:.2f})" if law.ci_high - law.ci_low >= 0.005 else ""
        return f"{law.exponent:.2f}{interval}"

    @property
    def determined(self) -> bool:
        """Whether the sizes tell the exponent at all."""
        widest = 2 * UNDETERMINED if self.axis == "resolution" else UNDETERMINED
        return self.law is not None and self.law.ci_high - self.law.ci_low <= widest


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """An operator against the baseline along tokens.

    `crossover` is what the sizes that both were measured at hold, None where they are fewer than 2. `extrapolated` is the number of
    tokens beyond them, up to 16 times the largest, at which the two fitted laws meet, None where they do not or where the intervals
    of their exponents overlap. `why` says which of both is meant, or why there is neither; "" for a crossing that was measured.
    `efficiency_length` is CAB's, see `crossover.efficiency_length`.
    """

    op: str
    label: str
    baseline: str
    where: Mapping[str, Any]
    quantity: str
    crossover: Crossover | None
    extrapolated: float | None
    why: str
    efficiency_length: float | None

    def sentence(self, name: str = "") -> str:
        """The finding in words, an extrapolation marked as such; "" where there is none. `name` stands for the label: "it"."""
        found, name = self.crossover, name or self.label
        if found is None:
            return ""
        if found.size is not None:
            return found.sentence(name, self.baseline, quantity=self.quantity)
        better = BETTER[self.quantity]
        if found.always is None:
            said = f"{name} and {self.baseline} are equal"
        else:
            said = f"{name} stays {better} than {self.baseline}" if found.always == "first" else f"{self.baseline} stays {better}"
        return f"{said} up to {found.up_to:,.0f} tokens{f'; {self.why}' if self.extrapolated else ''}"


def growths(run: Run, *, axes: Sequence[str] = AXES) -> list[Growth]:
    """The growth of each device's first MOST series along each axis, in every quantity that was measured, with its law.

    Series that differ in device, shape, mode or batch are curves of their own; two grids with equally many tokens are two points.
    """
    quantities = measured(run)
    return [_growth(series, axis, quantity, run) for axis in axes for series in first_series(run, axis)[0] for quantity in quantities]


def first_series(run: Run, axis: str) -> tuple[Sequence[Series], int]:
    """Each device's first MOST series along an axis, and how many more there are. Where a device has more, those that have sizes enough
    for a law come before the others.

    Along "batch" only series that vary it.
    """
    devices: dict[str, list[Series]] = {}
    for series in all_series(run, axis):
        if axis != "batch" or series.sizes > 1:
            devices.setdefault(series.where["device_name"], []).append(series)
    kept = [one for of in devices.values() for one in (sorted(of, key=lambda one: one.sizes < 3)[:MOST] if len(of) > MOST else of)]
    return kept, sum(map(len, devices.values())) - len(kept)


def crossings(run: Run) -> list[Crossing]:
    """Every series against the baseline's under equal conditions, over tokens; none without a baseline. At most MOST series of a device."""
    everything = all_series(run, "tokens")
    baselines: dict[tuple[Any, ...], list[Series]] = {}
    for series in everything:
        if series.op == run.baseline:
            baselines.setdefault(tuple(series.where.values()), []).append(series)
    devices: dict[str, list[tuple[Series, Series]]] = {}
    for series in everything:
        rivals = baselines.get(tuple(series.where.values()), [])
        if rivals and series.op != run.baseline:
            pair = series, next((rival for rival in rivals if rival.run == series.run), rivals[0])
            devices.setdefault(series.where["device_name"], []).append(pair)
    quantities = measured(run)
    return [_crossing(*pair, quantity) for pairs in devices.values() for pair in pairs[:MOST] for quantity in quantities]


def sentences(run: Run) -> list[str]:
    """The findings about growth in plain words, a sentence a series; what tells several curves apart leads it."""
    against = {(c.label, *c.where.values()): c for c in crossings(run) if c.quantity == "latency"}
    quantities, told = measured(run), []
    untold: dict[str, list[str]] = {}
    for axis in ("tokens", "batch"):
        everything, more = first_series(run, axis)
        names = differing(series.where for series in everything)
        for series in everything:
            where = named(series.where, names)
            lead = f"{where}: " if where else ""
            group = [_growth(series, axis, quantity, run) for quantity in quantities]
            if any(growth.law for growth in group):
                crossing = against.get((series.label, *series.where.values())) if axis == "tokens" else None
                sides = _growth(series, "resolution", quantities[0], run) if axis == "tokens" and run.patch else None
                told.append(lead + _sentence(group, crossing, sides))
            else:
                untold.setdefault(f"{lead}{group[0].why}", []).append(series.label)
        if more:
            told.append(f"{more:,} more series over {axis} are not told")
    return told + [f"{why}: {', '.join(labels)}" for why, labels in untold.items()]


def _growth(series: Series, axis: str, quantity: str, run: Run) -> Growth:
    points = series.samples(quantity)
    law = _law(quantity, points)
    growth = Growth(
        op=series.op,
        label=series.label,
        where=series.where,
        axis=axis,
        quantity=quantity,
        sizes=tuple(size for size, _ in points),
        values=tuple(statistics.median(samples) for _, samples in points),
        law=law,
        why="" if law else f"{('no figure above 0', 'one size', '2 sizes')[len({size for size, _ in points})]}: no fit",
    )
    return _over_sides(growth, run.patch or 1) if axis == "resolution" else growth


@functools.lru_cache(maxsize=4096)
def _law(quantity: str, points: Points) -> PowerLaw | None:
    """The law of 3 sizes or more; None of fewer."""
    values = [statistics.median(samples) for _, samples in points]
    samples = [samples for _, samples in points] if quantity == "latency" else None
    try:
        return fit_power_law([size for size, _ in points], values, samples=samples)
    except FitError:
        return None


def _over_sides(growth: Growth, patch: float) -> Growth:
    """The growth over tokens as one over the side of a square image of as many patches."""
    sizes = tuple(patch * size**0.5 for size in growth.sizes)
    if growth.law is None:
        return replace(growth, sizes=sizes)
    law, exponent = growth.law, 2 * growth.law.exponent
    over_sides = replace(
        law,
        exponent=exponent,
        ci_low=2 * law.ci_low,
        ci_high=2 * law.ci_high,
        coefficient=law.coefficient / patch**exponent,
        smallest=min(sizes),
        largest=max(sizes),
    )
    return replace(growth, sizes=sizes, law=over_sides)


def _crossing(series: Series, rival: Series, quantity: str) -> Crossing:
    ours, theirs = series.samples(quantity), rival.samples(quantity)
    crossover, why = _crossover(ours, theirs)
    extrapolated = None
    if crossover and crossover.size is None:
        extrapolated = _meeting(quantity, ours, theirs, crossover=crossover)
        why = "the fitted laws do not meet, or not surely"
    if crossover and extrapolated:
        why = f"extrapolated, they meet at about {float(f'{extrapolated:.2g}'):,.0f} tokens, beyond the {crossover.up_to:,.0f} measured"
    same: dict[str, Any] = {"op": series.op, "label": series.label, "where": series.where, "baseline": rival.label}
    return Crossing(
        **same,
        quantity=quantity,
        crossover=crossover,
        extrapolated=extrapolated,
        why=why,
        efficiency_length=_efficiency_length(ours, theirs),
    )


@functools.lru_cache(maxsize=4096)
def _crossover(ours: Points, theirs: Points) -> tuple[Crossover | None, str]:
    """Where the first becomes the cheaper one or the dearer one; why not, where there are too few sizes to tell."""
    try:
        return find_crossover({int(size): samples for size, samples in ours}, {int(size): samples for size, samples in theirs}), ""
    except FitError as error:
        return None, str(error)


def _efficiency_length(ours: Points, theirs: Points) -> float | None:
    medians = ({size: statistics.median(samples) for size, samples in points} for points in (ours, theirs))
    try:
        return efficiency_length(*medians)
    except FitError:
        return None


def _meeting(quantity: str, *curves: Points, crossover: Crossover) -> float | None:
    """Where two laws meet beyond the largest common size, if their exponents surely differ and they agree with what was measured."""
    ours, theirs = (_law(quantity, points) for points in curves)
    if not ours or not theirs or max(ours.ci_low, theirs.ci_low) <= min(ours.ci_high, theirs.ci_high):
        return None

    def gap(position: float) -> float:
        return math.log(ours.predict(math.exp(position)) / theirs.predict(math.exp(position)))

    near, far = math.log(crossover.up_to), math.log(FARTHEST * crossover.up_to)
    if (gap(near) < 0) != (crossover.always == "first") or gap(near) * gap(far) >= 0:
        return None
    return math.exp(brentq(gap, near, far))


def _sentence(group: Sequence[Growth], crossing: Crossing | None, sides: Growth | None) -> str:
    """One series: how its quantities grow, the first along the side of an image too, and where it meets the baseline in time."""
    determined = [growth for growth in group if growth.determined]
    first = group[0]
    letter, unit = {"tokens": ("N", "tokens"), "batch": ("B", "images")}[first.axis]
    if first not in determined:
        said = [f"{len(first.sizes)} sizes do not tell how {first.label}'s {WORDS[first.quantity]} grows"]
    else:
        ends = f"from {first.sizes[0]:,.0f} to {first.sizes[-1]:,.0f} {unit}"
        pixels = (
            f" (s^{sides.exponent.split()[0]} in an image's side s, {sides.sizes[0]:,.0f} to {sides.sizes[-1]:,.0f} px)" if sides else ""
        )
        said = [f"{first.label}'s {WORDS[first.quantity]} grows as {letter}^{first.exponent} {ends}{pixels}"]
    said += [f"its {WORDS[growth.quantity]} as {letter}^{growth.exponent}" for growth in determined if growth is not first]
    against = crossing.sentence("it") if crossing else ""
    return "; ".join(filter(None, (", ".join(said), against)))
