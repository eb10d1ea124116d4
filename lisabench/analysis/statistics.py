"""Medians and how far to trust them. Only numpy is imported: the measuring process asks here when to stop."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lisabench.errors import InputError

Array = NDArray[np.float64]


def median_interval(samples: Iterable[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the median by binomial order statistics: holds for any distribution of independent samples.

    The coverage is at least `confidence`. Samples that are not finite are left out. With fewer than 6 samples no 95%
    interval exists (2 * 0.5^5 > 5%): the smallest and the largest are returned, as they are where `confidence` is out of reach.

    Raises: InputError when no finite sample is left or `confidence` is not within 0 and 1.
    Source: David and Nagaraja, Order Statistics (2003), section 7.1: P(x_(k) <= median <= x_(n+1-k)) = P(k <= X <= n-k),
    X ~ Binomial(n, 1/2).
    """
    check_settings(confidence=confidence)
    values = np.asarray(samples if isinstance(samples, np.ndarray) else list(samples), dtype=float).ravel()
    values = np.sort(values[np.isfinite(values)])
    count = len(values)
    if count == 0:
        raise InputError("no finite sample given; the interval of a median needs at least one")
    if count < 6:
        return float(values[0]), float(values[-1])
    # Summed from the middle outward: about sqrt(n) steps, and no term underflows as 0.5^n would.
    rank = count // 2
    term = math.exp(math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1) - count * math.log(2))
    covered = term if count % 2 == 0 else 2 * term
    while covered < confidence and rank > 1:
        term *= rank / (count - rank + 1)
        covered += 2 * term
        rank -= 1
    return float(values[rank - 1]), float(values[count - rank])


def resampled_medians(samples: Array, draws: int, generator: np.random.Generator) -> Array:
    """Bootstrap medians of `samples` (finite, at least one): shape [draws], in the samples' unit.

    Same distribution as drawing n samples with replacement and taking their median, without drawing them: the middle order
    statistics of n uniform numbers are beta distributed, and the sorted samples map them to values. O(draws), whatever n is.
    """
    values = np.sort(samples)
    count = len(values)
    half = count // 2
    if count % 2:
        return np.asarray(values[_index(generator.beta(half + 1, half + 1, draws), count)])
    lower = generator.beta(half, half + 1, draws)
    upper = lower + (1 - lower) * generator.beta(1, half, draws)
    return np.asarray((values[_index(lower, count)] + values[_index(upper, count)]) / 2)


def median_errors(samples: Array, draws: int, generator: np.random.Generator) -> Array:
    """Bootstrap errors of the logarithm of the median of positive `samples`: shape [draws]; 0 without samples."""
    return np.log(resampled_medians(samples, draws, generator) / np.median(samples)) if samples.size else np.zeros(draws)


def overstated(count: int) -> float:
    """By what factor the bootstrap overstates the spread of the median of so many samples: its variance by 0.76 / sqrt(n).

    Measured for 5 to 40 normal samples.
    """
    return math.sqrt(1 + 0.76 / math.sqrt(count)) if count else 1.0


def usable(samples: ArrayLike) -> Array:
    """The finite, positive numbers among `samples` (a sequence or one number), as a flat array."""
    values = np.asarray(samples, dtype=float).ravel()
    return np.asarray(values[np.isfinite(values) & (values > 0)])


def check_settings(*, confidence: float, draws: int = 1) -> None:
    """Raises InputError unless 0 < confidence < 1 and draws >= 1."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, given {confidence}; 0.95 is usual")
    if draws < 1:
        raise InputError(f"the bootstrap needs at least one draw, given {draws}; 1000 is usual")


def _index(uniform: Array, count: int) -> NDArray[np.intp]:
    return np.minimum((uniform * count).astype(np.intp), count - 1)
