"""Whether a new run is faster than an old one, said only when three separate criteria agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu

from lisabench.analysis.statistics import median_interval, resampled_medians, usable
from lisabench.errors import InputError

_DRAWS = 2000
# Below this many samples the median has no 95% interval (see median_interval), so nothing can be told.
_FEWEST = 6


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `compare` found: new / base as a ratio of medians with its 95% interval, and the Mann-Whitney p (two-sided)."""

    verdict: Literal["faster", "slower", "same", "can't tell"]
    ratio: float
    ci_low: float
    ci_high: float
    p_value: float


Interval = tuple[float, float]


def compare(
    base_samples: ArrayLike,
    new_samples: ArrayLike,
    *,
    intervals: tuple[Interval, Interval] | None = None,
    threshold: float = 0.05,
    alpha: float = 0.002,
) -> Verdict:
    """Compares raw samples of two runs of one cell; lower is better, so a ratio new / base below 1 is "faster".

    "faster" and "slower" need all of: the 95% intervals of the two medians are apart, Mann-Whitney gives p < `alpha`, and the
    ratio is beyond `threshold`, that is above 1 + threshold or below its reciprocal (the same factor both ways).
    `intervals`: those of the two medians as they were recorded, which also cover what moved between rounds; without them
    they are made from the samples, as if these were independent of each other.
    "same": the ratio's whole bootstrap interval is within the threshold. Else, and with fewer than 6 samples a side, "can't tell".
    Samples that are not finite and positive are left out.

    Raises: InputError when a run has no usable sample, `threshold` is negative or `alpha` is not within 0 and 1.
    Source: asv (airspeed velocity), which takes p < 0.002 and apart intervals as evidence for a regression.
    """
    if not (threshold >= 0 and 0 < alpha < 1):
        raise InputError(f"compare needs threshold >= 0 and alpha between 0 and 1, given {threshold} and {alpha}")
    base, new = usable(base_samples), usable(new_samples)
    if base.size == 0 or new.size == 0:
        raise InputError(f"compare needs positive samples of both runs, given {base.size} of the old and {new.size} of the new")

    ratio = float(np.median(new) / np.median(base))
    generator = np.random.default_rng(0)
    ratios = resampled_medians(new, _DRAWS, generator) / resampled_medians(base, _DRAWS, generator)
    low, high = (float(end) for end in np.quantile(ratios, (0.025, 0.975)))
    p_value = float(mannwhitneyu(base, new).pvalue)

    (base_low, base_high), (new_low, new_high) = intervals or (median_interval(base), median_interval(new))
    apart = new_high < base_low or base_high < new_low
    bound = 1 + threshold
    verdict: Literal["faster", "slower", "same", "can't tell"] = "can't tell"
    if min(base.size, new.size) >= _FEWEST:
        if apart and p_value < alpha and not 1 / bound <= ratio <= bound:
            verdict = "faster" if ratio < 1 else "slower"
        elif 1 / bound <= low and high <= bound:
            verdict = "same"
    return Verdict(verdict=verdict, ratio=ratio, ci_low=min(low, ratio), ci_high=max(high, ratio), p_value=p_value)
