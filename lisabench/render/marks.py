"""What a figure of accuracy against a cost shows: points, the limits that they set, ticks. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lisabench.analysis.accuracy import Span
from lisabench.render.page import Ticks
from lisabench.render.palette import Font, padded, text_size, value_ticks
from lisabench.render.plane import Plane, round_ticks
from lisabench.render.variants import Manner

_PAD = 9.0  # points between the outermost data and the edges of a panel
_LEAST_SPAN = 0.02  # of accuracy: less would make a show of noise
_REACH = 0.04  # of accuracy: so far do intervals widen what a panel shows, however near its points lie to each other
_BODY, _WIDE = 0.3, 0.1  # where all but a few points share less than so much of a range wider than that, these stand at the lower edge


@dataclass(frozen=True)
class Mark:
    """An operator's point: its name, its cost and accuracy with their intervals (NaN for none)."""

    label: str
    manner: Manner
    cost: Span
    accuracy: Span


@dataclass(frozen=True)
class Panel:
    """A data set's points; `front` is the Pareto front, cheap before dear, `chance` what always guessing one class gets."""

    title: tuple[str, ...]
    marks: tuple[Mark, ...]
    front: tuple[tuple[float, float], ...]
    chance: float | None


@dataclass(frozen=True)
class Axis:
    """The cost: its name, the text of a value with so many digits, the base of its ticks."""

    name: str
    text: Callable[[float, int], str]
    base: int = 10


def extent(panel: Panel) -> tuple[float, float]:
    """The lowest and the highest accuracy that a panel shows. Intervals that are much longer than the points are apart run out of it, a
    few points far below all others do not count, and chance does where it is near."""
    means = np.sort([mark.accuracy.median for mark in panel.marks])
    low, high = means[0], means[-1]
    for left_out in range(1, len(means) // 4 + 1):
        if high - low > _WIDE and high - means[left_out] < _BODY * (high - low):
            low = means[left_out]
            break
    reach = max(high - low, _REACH)
    kept = [mark.accuracy for mark in panel.marks if mark.accuracy.median >= low]
    bottom = max(low - reach, np.nanmin([low, *(one.low for one in kept)]))
    top = min(high + reach, np.nanmax([high, *(one.high for one in kept)]))
    if top - bottom < _LEAST_SPAN:
        bottom, top = (bottom + top - _LEAST_SPAN) / 2, (bottom + top + _LEAST_SPAN) / 2
    if panel.chance is not None and 0 < bottom - panel.chance < (top - bottom) / 4:
        bottom = panel.chance
    return float(bottom), float(top)


def shows_chance(panel: Panel) -> bool:
    """Whether chance is within what the panel shows."""
    low, high = extent(panel)
    return panel.chance is not None and low <= panel.chance <= high


def is_below(mark: Mark, panel: Panel) -> bool:
    """Whether the mark is one of the few that lie below what the panel shows."""
    return mark.accuracy.median < extent(panel)[0]


def padded_limits(limits: tuple[float, float], height: float) -> tuple[float, float]:
    margin = _PAD * (limits[1] - limits[0]) / (height - 2 * _PAD)
    return limits[0] - margin, limits[1] + margin


def cost_limits(panel: Panel, width: float) -> tuple[float, float]:
    costs = [value for mark in panel.marks for value in (mark.cost.median, mark.cost.low, mark.cost.high) if value > 0]
    return padded(min(costs), max(costs), width, _PAD, least=1.3)


def cost_ticks(plane: Plane, axis: Axis, font: Font, reach: float = np.inf) -> Ticks:
    """Round values of at most three digits, only as many as have room for their texts; a text that would go beyond `reach` on the page
    is left out."""
    ticks, texts = list[float](), list[str]()
    for ticks in _choices(plane, axis):
        texts = _texts(ticks, axis)
        centres = plane.at(ticks, np.full(len(ticks), plane.y[0]))[:, 0]
        halves = np.array([text_size(text, font)[0] / 2 for text in texts])
        texts = [text if centre + half <= reach else "" for text, centre, half in zip(texts, centres, halves, strict=True)]
        if (np.diff(centres) > halves[1:] + halves[:-1] + 4).all() and any(texts):
            return ticks, texts
    return ticks[-1:], texts[-1:]


def _choices(plane: Plane, axis: Axis) -> Iterator[list[float]]:
    """Sets of ticks, the best first: powers where there are three, else multiples of a power of the base, else of 1, 2 or 5."""
    low, high = plane.x
    wide = [value_ticks(low, high, axis.base, most) for most in (7, 6, 5, 4, 3)]
    multiples = []
    if axis.base == 2:
        steps = 2.0 ** np.arange(np.floor(np.log2(low)) - 4, np.log2(high))
        multiples = [step * np.arange(np.ceil(low / step), np.floor(high / step) + 1) for step in steps]
        multiples = [ticks.tolist() for ticks in multiples if len(ticks) <= 7]
    units = [_unit(end, axis) for end in plane.x]
    rounds = [[unit * tick for tick in round_ticks(low / unit, high / unit, most)] for most in (6, 5, 4, 3, 2) for unit in units]
    for ticks in [each for each in (*wide, *multiples) if len(each) > 2] + [each for each in (*rounds, *multiples[::-1]) if each]:
        if all(_is_short(tick / _unit(tick, axis)) for tick in ticks):
            yield ticks


def _unit(value: float, axis: Axis) -> float:
    """The unit in which a value is told."""
    base = 1000.0 if axis.base == 10 else 1024.0
    return float(base ** np.floor(np.log(value) / np.log(base) + 1e-9))


def _is_short(value: float, digits: int = 3) -> bool:
    return bool(value < 1000 and np.isclose(float(f"{value:.{digits}g}"), value, rtol=1e-6))


def _texts(ticks: Sequence[float], axis: Axis) -> list[str]:
    """The ticks with as many digits as the longest needs."""
    parts = [tick / _unit(tick, axis) for tick in ticks]
    needed = next((digits for digits in (1, 2, 3) if all(_is_short(part, digits) for part in parts)), 3)
    return [axis.text(tick, needed) for tick in ticks]
