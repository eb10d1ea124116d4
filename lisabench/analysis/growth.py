"""What a run tells about growth: each operator's law along an axis, its crossing with the baseline, and both in plain words."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.optimize import brentq

from lisabench.analysis.crossover import BETTER, Crossover, find_crossover
from lisabench.analysis.scaling import FitError, PowerLaw, fit_power_law
from lisabench.analysis.series import Points, Series, all_series, differing, measured, named
from lisabench.results import Run

AXES = ("tokens", "resolution", "batch")
QUANTITIES = ("latency", "memory", "flops", "energy")
WORDS = {"latency": "time", "memory": "memory", "flops": "FLOPs", "energy": "energy"}
UNDETERMINED = 2.0  # an interval as wide as from constant to quadratic says nothing
FARTHEST = 16.0  # times the largest size: farther out no law is trusted
MOST = 100  # series whose laws are fitted: a law takes 10 ms, and nobody reads more


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
        return self.law is not None and self.law.ci_high - self.law.ci_low <= UNDETERMINED


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """An operator against the baseline along tokens.

    `crossover` is what the sizes that both were measured at hold, None where they are fewer than 2. `extrapolated` is the number of
    tokens beyond them, up to 16 times the largest, at which the two fitted laws meet, None where they do not or where the intervals
    of their exponents overlap. `why` says which of both is meant, or why there is neither; "" for a crossing that was measured.
    """

    op: str
    label: str
    baseline: str
    where: Mapping[str, Any]
    quantity: str
    crossover: Crossover | None
    extrapolated: float | None
    why: str

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
    """The growth of every series along each axis, in every quantity that was measured, with its law.

    Series that differ in device, shape, mode or batch are curves of their own; two grids with equally many tokens are two points.
    Along "batch" only those that vary it. Of more than MOST series the first MOST are fitted, and the others' `why` says so.
    """
    found, quantities = [], measured(run)
    for axis in axes:
        number = 0
        for series in all_series(run, axis):
            if axis == "batch" and series.sizes < 2:
                continue
            number += series.sizes >= 3
            found += [_growth(series, axis, quantity, fitted=number <= MOST) for quantity in quantities]
    return [_over_sides(growth, run.plan.get("patch") or 1) if growth.axis == "resolution" else growth for growth in found]


def crossings(run: Run) -> list[Crossing]:
    """Every series against the baseline's under equal conditions, over tokens; none without a baseline. At most MOST series."""
    everything = all_series(run, "tokens")
    baselines: dict[tuple[Any, ...], list[Series]] = {}
    for series in everything:
        if series.op == run.baseline:
            baselines.setdefault(tuple(series.where.values()), []).append(series)
    pairs = []
    for series in everything:
        rivals = baselines.get(tuple(series.where.values()), [])
        if rivals and series.op != run.baseline:
            pairs.append((series, next((rival for rival in rivals if rival.run == series.run), rivals[0])))
    quantities = measured(run)
    return [_crossing(series, rival, quantity) for series, rival in pairs[:MOST] for quantity in quantities]


def sentences(run: Run) -> list[str]:
    """The findings about growth in plain words, a sentence a series; what tells several curves apart leads it."""
    against = {(c.label, *c.where.values()): c for c in crossings(run) if c.quantity == "latency"}
    told: list[str] = []
    untold: dict[tuple[str, str], list[str]] = {}
    for axis in ("tokens", "batch"):
        by_series: dict[tuple[Any, ...], list[Growth]] = {}
        for growth in growths(run, axes=(axis,)):
            by_series.setdefault((growth.label, *growth.where.values()), []).append(growth)
        names = differing(group[0].where for group in by_series.values())
        for key, group in by_series.items():
            where = named(group[0].where, names)
            if any(growth.law for growth in group):
                told.append(_led(where, _sentence(group, against.get(key) if axis == "tokens" else None)))
            elif axis == "tokens":
                untold.setdefault((where, group[0].why), []).append(group[0].label)
    return told + [_led(where, f"{why}: {', '.join(labels)}") for (where, why), labels in untold.items()]


def _growth(series: Series, axis: str, quantity: str, *, fitted: bool) -> Growth:
    points = series.samples(quantity)
    sizes = tuple(size for size, _ in points)
    law, why = None, ""
    if not fitted:
        why = f"not fitted, being one of over {MOST} series; report fewer at once"
    elif (law := _law(quantity, points)) is None:
        why = f"{('no figure above 0', 'one size', '2 sizes')[len(set(sizes))]}: no fit"
    values = tuple(statistics.median(samples) for _, samples in points)
    same: dict[str, Any] = {"op": series.op, "label": series.label, "where": series.where}
    return Growth(**same, axis=axis, quantity=quantity, sizes=sizes, values=values, law=law, why=why)


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
    crossover, extrapolated, why = None, None, ""
    try:
        crossover = find_crossover({int(size): samples for size, samples in ours}, {int(size): samples for size, samples in theirs})
    except FitError as error:
        why = str(error)
    if crossover and crossover.size is None:
        extrapolated = _meeting(quantity, ours, theirs, crossover=crossover)
        why = "the fitted laws do not meet, or not surely"
    if crossover and extrapolated:
        why = f"extrapolated, they meet at about {float(f'{extrapolated:.2g}'):,.0f} tokens, beyond the {crossover.up_to:,.0f} measured"
    same: dict[str, Any] = {"op": series.op, "label": series.label, "where": series.where, "baseline": rival.label}
    return Crossing(**same, quantity=quantity, crossover=crossover, extrapolated=extrapolated, why=why)


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


def _sentence(group: Sequence[Growth], crossing: Crossing | None) -> str:
    """One series: how its quantities grow, and where it meets the baseline in time."""
    determined = [growth for growth in group if growth.determined]
    first = group[0]
    letter, unit = {"tokens": ("N", "tokens"), "batch": ("B", "images")}[first.axis]
    if first not in determined:
        said = [f"{len(first.sizes)} sizes do not tell how {first.label}'s {WORDS[first.quantity]} grows"]
    else:
        ends = f"from {first.sizes[0]:,.0f} to {first.sizes[-1]:,.0f} {unit}"
        said = [f"{first.label}'s {WORDS[first.quantity]} grows as {letter}^{first.exponent} {ends}"]
    said += [f"its {WORDS[growth.quantity]} as {letter}^{growth.exponent}" for growth in determined if growth is not first]
    against = crossing.sentence("it") if crossing else ""
    return "; ".join(filter(None, (", ".join(said), against)))


def _led(where: str, sentence: str) -> str:
    return f"{where}: {sentence}" if where else sentence
