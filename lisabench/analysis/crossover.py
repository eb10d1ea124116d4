"""From which number of tokens on one operator costs less than another, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lisabench.analysis.scaling import FitError
from lisabench.analysis.statistics import Array, check_settings, median_errors, overstated, usable
from lisabench.errors import unknown

Side = Literal["first", "second"]
BETTER = {"latency": "faster", "memory": "smaller", "flops": "cheaper", "energy": "more frugal"}


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where the order of two operators turns for good, within the sizes that both were measured at.

    `size` is None where it never turns; then `always` names the one that is smaller throughout (None: equal at every size).
    Where it turns, `before` and `after` name the smaller one below and above `size`. `ci_low` is None where the interval starts
    below the smallest common size, `ci_high` where it ends above `up_to`, the largest.
    """

    size: float | None
    ci_low: float | None
    ci_high: float | None
    before: Side | None
    after: Side | None
    up_to: float
    always: Side | None

    def sentence(self, first_name: str, second_name: str, *, quantity: str) -> str:
        """The finding in words; `quantity` is "latency", "memory", "flops" or "energy". Raises InputError for another."""
        if quantity not in BETTER:
            raise unknown("quantity", quantity, BETTER)
        better = BETTER[quantity]
        if self.size is None:
            if self.always is None:
                return f"none up to {self.up_to:,.0f} tokens: {first_name} and {second_name} are equal"
            return f"none up to {self.up_to:,.0f} tokens: {first_name if self.always == 'first' else second_name} stays {better}"
        where = self.where
        if self.after == "second":
            return f"{first_name} is {better} than {second_name} only up to {where}"
        if quantity == "latency":
            return f"{first_name} overtakes {second_name} at {where}"
        return f"{first_name} becomes {better} than {second_name} at {where}"

    @property
    def where(self) -> str:
        """Size and interval, to the first digit of the interval's width but no less than two: '5,900 tokens (5,500 to 6,300)'."""
        size = self.size
        if size is None:
            return "nowhere"
        smallest = self.ci_low or size
        width = (self.ci_high or self.up_to) - smallest
        step = 10 ** math.floor(math.log10(max(1, min(width, smallest / 10))))
        middle, low, high = (None if end is None else f"{round(end / step) * step:,}" for end in (size, self.ci_low, self.ci_high))
        if low == high == middle:
            return f"{middle} tokens"
        if low is None and high is None:
            return f"about {middle} tokens (too noisy for an interval)"
        if low is None:
            return f"{middle} tokens (at most {high})"
        return f"{middle} tokens ({low} to {high or f'over {self.up_to:,.0f}'})"


def find_crossover(
    first: Mapping[int, ArrayLike],
    second: Mapping[int, ArrayLike],
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Crossover:
    """Size from which the order of the medians stays as it is at the largest common size, by a cubic through the log ratios at the sizes around.

    Both map size to raw samples, or to one number where the figure is exact; only common sizes with a positive finite figure
    count. Of several crossings the last is reported, as earlier ones do not tell who wins in the end. Touching is no crossing.

    The interval resamples the raw samples. Draws that cross beyond the largest size, or are back to the old order there, count
    as above `up_to`; draws in the new order from the start count as below the smallest size. It does not cover the error of
    interpolating between two sizes.

    Raises: FitError with fewer than 2 common sizes; InputError for a bad `confidence` or `draws`.
    """
    check_settings(confidence=confidence, draws=draws)
    pairs = [(size, usable(first[size]), usable(second[size])) for size in sorted(first.keys() & second.keys()) if size > 0]
    pairs = [(size, left, right) for size, left, right in pairs if left.size and right.size]
    if len(pairs) < 2:
        raise FitError(f"a crossover needs at least 2 sizes at which both were measured, given {len(pairs)}; measure more sizes")
    positions = np.log([size for size, _, _ in pairs])
    up_to = float(pairs[-1][0])
    gaps = np.array([np.log(np.median(left) / np.median(right)) for _, left, right in pairs])
    (crossing,), (order,) = _last_crossings(positions, gaps[None, :])
    if np.isinf(crossing):
        always = _smaller(order)
        return Crossover(size=None, ci_low=None, ci_high=None, before=None, after=None, up_to=up_to, always=always)

    if all(left.size == right.size == 1 for _, left, right in pairs):
        draws = 1  # exact figures: all draws would be alike
    generator = np.random.default_rng(seed)
    errors = [_errors(left, draws, generator) - _errors(right, draws, generator) for _, left, right in pairs]
    found, orders = _last_crossings(positions, gaps + np.stack(errors, axis=1))
    found[orders != order] = np.inf
    # No interpolation between draws: some are infinite.
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return Crossover(
        size=float(np.exp(crossing)),
        ci_low=float(np.exp(min(low, crossing))) if np.isfinite(low) else None,
        ci_high=float(np.exp(max(high, crossing))) if np.isfinite(high) else None,
        before=_smaller(-order),
        after=_smaller(order),
        up_to=up_to,
        always=None,
    )


def efficiency_length(efficient: Mapping[float, float], vanilla: Mapping[float, float]) -> float | None:
    """From how many tokens on an operator of linear cost is cheaper than vanilla attention, in the sense of CAB; None if from none on.

    Both map tokens to a cost, time or memory, in one unit. A parabola is fitted to vanilla attention's cost and a straight line to the
    operator's, by ordinary least squares over the sizes of each; where the two meet for the last time is the efficiency length. It may
    lie beyond what was measured. `find_crossover` needs no such shapes, tells an interval and is what lisabench reports; this one is
    for figures to be set beside CAB's. Unlike there, a length of 0 or less is None, and so is a parabola that ends below the line.

    Raises: FitError with fewer than 3 sizes of vanilla attention or 2 of the operator.
    Source: Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling, ICML 2023, and its
    scripts/efficiency_length at github.com/Shark-NLP/CAB.
    """
    if len(vanilla) < 3 or len(efficient) < 2:
        raise FitError(
            f"an efficiency length needs 3 sizes of vanilla attention and 2 of the other, given {len(vanilla)} and {len(efficient)}"
        )
    parabola, line = (
        np.polynomial.Polynomial.fit(list(costs), list(costs.values()), degree).convert()
        for costs, degree in ((vanilla, 2), (efficient, 1))
    )
    gap = parabola - line
    last = max((float(root.real) for root in gap.roots() if np.isreal(root)), default=0.0)
    return last if last > 0 and gap(2 * last) > 0 else None


def _last_crossings(positions: Array, gaps: Array) -> tuple[Array, Array]:
    """For each row of `gaps`, log(first / second): position of its last change of sign (-inf without one), last sign that is not 0."""
    signs, places = np.sign(gaps), np.arange(len(positions))
    rows = np.arange(len(gaps))
    orders = signs[rows, np.max(np.where(signs != 0, places, 0), axis=1)]
    against = np.max(np.where(signs == -orders[:, None], places, -1), axis=1)
    against[orders == 0] = -1
    # Where sizes with equal figures lie between the two orders, the crossing is the last of them: its gap is 0.
    right = np.argmax((signs == orders[:, None]) & (places > against[:, None]), axis=1)
    return np.where(against >= 0, _roots(positions, gaps, right), -np.inf), orders


def _roots(positions: Array, gaps: Array, right: NDArray[np.intp]) -> Array:
    """Where each row of `gaps` crosses 0 left of its place `right`, by the cubic through the four places around (fewer at the ends).

    Straight lines would miss crossings near a launch floor by up to 6%, where gaps bend between two sizes.
    """
    count = len(positions)
    first = np.clip(right - 2, 0, max(count - 4, 0))
    around = first[:, None] + np.arange(min(4, count))
    rows = np.arange(len(gaps))[:, None]
    nodes, terms = positions[around], _divided(positions[around], gaps[rows, around])
    low, high = positions[np.maximum(right - 1, 0)], positions[right]
    sign = np.sign(gaps[rows[:, 0], right])
    for _ in range(30):
        middle = (low + high) / 2
        beyond = np.sign(_interpolated(nodes, terms, middle)) == sign
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


def _divided(nodes: Array, values: Array) -> Array:
    """Newton's divided differences of each row: the terms of the polynomial through (nodes, values)."""
    terms = values.copy()
    for order in range(1, nodes.shape[1]):
        terms[:, order:] = (terms[:, order:] - terms[:, order - 1 : -1]) / (nodes[:, order:] - nodes[:, :-order])
    return terms


def _interpolated(nodes: Array, terms: Array, at: Array) -> Array:
    """The polynomial of each row's terms, at one position a row."""
    total = terms[:, -1]
    for place in range(nodes.shape[1] - 2, -1, -1):
        total = total * (at - nodes[:, place]) + terms[:, place]
    return total


def _errors(samples: Array, draws: int, generator: np.random.Generator) -> Array:
    """Errors of the log median, less what the bootstrap adds to them: with that the intervals covered 98%."""
    return median_errors(samples, draws, generator) / overstated(samples.size)


def _smaller(order: float) -> Side | None:
    return None if order == 0 else "second" if order > 0 else "first"
