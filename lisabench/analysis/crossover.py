"""From which number of tokens on one operator costs less than another, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lisabench.analysis.scaling import FitError
from lisabench.analysis.statistics import Array, check_settings, resampled_medians, usable
from lisabench.errors import unknown

Side = Literal["first", "second"]
_BETTER = {"latency": "faster", "memory": "smaller", "flops": "cheaper", "energy": "more frugal"}


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
        if quantity not in _BETTER:
            raise unknown("quantity", quantity, _BETTER)
        better = _BETTER[quantity]
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
    draws: int = 300,
    seed: int = 0,
) -> Crossover:
    """Size from which the order of the medians stays as it is at the largest common size, by log-log interpolation.

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
    crossing, order = _last_crossing(positions, gaps)
    if crossing is None:
        always = _smaller(order)
        return Crossover(size=None, ci_low=None, ci_high=None, before=None, after=None, up_to=up_to, always=always)

    generator = np.random.default_rng(seed)
    resampled = np.stack(
        [np.log(resampled_medians(left, draws, generator) / resampled_medians(right, draws, generator)) for _, left, right in pairs],
        axis=1,
    )
    found = np.empty(draws)
    for draw, row in enumerate(resampled):
        place, end = _last_crossing(positions, row)
        found[draw] = np.inf if end != order else -np.inf if place is None else place
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


def _last_crossing(positions: Array, gaps: Array) -> tuple[float | None, int]:
    """Position of the last change of sign (None without one) and the last sign that is not 0; `gaps` is log(first / second)."""
    signs = np.sign(gaps)
    decided = np.flatnonzero(signs)
    if decided.size == 0:
        return None, 0
    order = int(signs[decided[-1]])
    against = np.flatnonzero(signs == -order)
    if against.size == 0:
        return None, order
    # Where sizes with equal figures lie between the two orders, the crossing is the last of them: its gap is 0.
    right = int(decided[decided > against[-1]][0])
    left = right - 1
    return float(positions[left] + (positions[right] - positions[left]) * gaps[left] / (gaps[left] - gaps[right])), order


def _smaller(order: int) -> Side | None:
    return None if order == 0 else "second" if order > 0 else "first"
