"""How a cost grows with the number of tokens: value = t0 + c * N^p, with an interval for p.

The launch floor t0 is part of the model: without it, points that lie on the floor pull p down (google/benchmark's fit does that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls
from scipy.special import ndtri, stdtrit

from lisabench.analysis.least_squares import LARGEST_EXPONENT, Fit, best_fits, improved, log_shape
from lisabench.analysis.statistics import Array, check_settings, median_errors, overstated, usable
from lisabench.errors import LisaBenchError

_EXACT = 1e-16  # squares of relative errors that are rounding
_UNSUSPICIOUS = 0.9  # of the redrawn curves: residuals that these do not exceed are noise of the medians
_NO_FLOOR = 1e-3  # of the value at the middle size: a floor of less is none
_TRIED = 33  # exponents a zoom: four zooms find an end to 4e-6


class FitError(LisaBenchError):
    """The data do not suffice for a fit or a crossover."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The fitted law value = offset + coefficient * size^exponent; values keep the unit they were given in.

    `ci_low` and `ci_high` bound the exponent. `points` counts what was fitted, from size `smallest` to size `largest`.
    `preferred` is the one of "N", "N log N" and "N^2" (each with a floor) that AIC prefers, None below 4 sizes or without growth.
    """

    exponent: float
    ci_low: float
    ci_high: float
    offset: float
    coefficient: float
    points: int
    smallest: float
    largest: float
    preferred: str | None

    def predict(self, size: float) -> float:
        """The law's value at `size`; outside smallest..largest it is an extrapolation."""
        return float(self.offset + self.coefficient * size**self.exponent)


def fit_power_law(
    sizes: Sequence[float],
    values: Sequence[float],
    *,
    samples: Sequence[ArrayLike] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> PowerLaw:
    """Fits value = t0 + c * N^p with t0 >= 0, c > 0 and 0 <= p <= 4 to relative errors, with a bootstrap interval for p.

    `samples` holds the raw samples behind each value (their median), where there are any. Sizes and values that are not finite
    and positive are left out in pairs. With exactly 3 distinct sizes t0 is 0, as nothing would be left to judge the fit by.

    The interval covers the noise of the medians (raw samples resampled) and, where the residuals exceed that noise, the misfit
    of the model. It collapses for exact data. Where the law is no power law (N log N) it is about the best p for these sizes.

    Raises: FitError with fewer than 3 distinct sizes or lists of unequal length; InputError for a bad `confidence` or `draws`.
    """
    check_settings(confidence=confidence, draws=draws)
    _check_lengths(sizes, values, samples)
    size, value = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    kept = np.flatnonzero(np.isfinite(size) & np.isfinite(value) & (size > 0) & (value > 0))
    size, value = size[kept], value[kept]
    distinct = len(np.unique(size))
    if distinct < 3:
        raise FitError(f"a scaling law needs at least 3 distinct sizes with positive values, given {distinct}; measure more sizes")

    floor_free = distinct > 3
    middle = float(np.sqrt(size.min() * size.max()))
    position, level = np.log(size / middle), np.log(value)
    fit = best_fits(position, level[None, :], floor_free=floor_free)
    share, exponent = float(fit.share[0]), float(fit.exponent[0])
    curve = level - fit.residuals[0]
    total = float(np.exp(np.mean(level - log_shape(position, fit.share, fit.exponent)[:, 0])))

    generator, misfit_generator = np.random.default_rng(seed).spawn(2)
    raw = [usable(samples[index]) if samples is not None else np.empty(0) for index in kept.tolist()]
    noise = np.stack([median_errors(of_point, draws, generator) for of_point in raw], axis=1)
    if share > _NO_FLOOR:
        # Without a floor the bound at 0 and the few sizes that decide the exponent make up for what the bootstrap adds: 94 to 96% are
        # covered. With one it was 97 to 98%.
        noise = noise / np.array([overstated(of_point.size) for of_point in raw])
    errors = _errors_of_shapes(size, value) if floor_free else {}
    low, high = exponent, exponent
    if fit.squares[0] > _EXACT or noise.any():
        misfit = misfit_generator.standard_normal(noise.shape)
        critical = _critical(fit, position, curve, noise, misfit, confidence, errors.get("N log N", np.inf))
        low, high = _ends(fit, position, level, critical)
    return PowerLaw(
        exponent=exponent,
        ci_low=low,
        ci_high=high,
        offset=total * share,
        coefficient=total * (1 - share) / middle**exponent,
        points=len(size),
        smallest=float(size.min()),
        largest=float(size.max()),
        preferred=_preferred(errors, len(size)) if floor_free else None,
    )


def _check_lengths(sizes: Sequence[float], values: Sequence[float], samples: Sequence[ArrayLike] | None) -> None:
    if len(sizes) != len(values) or (samples is not None and len(samples) != len(sizes)):
        lengths = f"{len(sizes)} sizes, {len(values)} values" + ("" if samples is None else f", {len(samples)} lists of samples")
        raise FitError(f"a fit needs one value for each size, given {lengths}")


def _critical(fit: Fit, position: Array, curve: Array, noise: Array, misfit: Array, confidence: float, log_squares: float) -> float:
    """By how much the squares of the residuals may grow while the exponent is held at a value of the interval.

    The quantile of that growth over curves redrawn about the fitted `curve` (log values) and refitted, with the exponent free and
    held at the fit's. Percentiles of refitted exponents would miss 5 to 15% where there is no floor, all on one side: at its bound
    of 0 the floor can only err upward, and the exponent with it.

    Misfit counts only where the residuals exceed those of 9 in 10 redrawn curves, and those of N log N with a floor do too
    (`log_squares`: what such a law explains is no chance). It is normal, and its quantile is widened by (Student's t / normal
    quantile)^2 for the one to five degrees of freedom that are left.
    """
    squares, left = float(fit.squares[0]), np.zeros(1)
    if noise.any():
        grown, left = _growth(fit, position, curve + noise)
        if min(squares, log_squares) <= np.quantile(left, _UNSUSPICIOUS):
            return float(np.quantile(grown, confidence))
    freedom, quantile = len(position) - (3 if fit.floor_free else 2), (1 + confidence) / 2
    excess = max(0.0, squares - float(np.mean(left))) / freedom
    grown, _ = _growth(fit, position, curve + noise + np.sqrt(excess) * misfit)
    return float(np.quantile(grown, confidence) * (stdtrit(freedom, quantile) / ndtri(quantile)) ** 2)


def _growth(fit: Fit, position: Array, levels: Array) -> tuple[Array, Array]:
    """How much larger the squares of each row are with `fit`'s exponent than with the row's own, and the latter."""
    start = np.repeat(fit.share, len(levels)), np.repeat(fit.exponent, len(levels))
    free = improved(position, levels, *start, floor_free=fit.floor_free)
    held = improved(position, levels, *start, floor_free=fit.floor_free, exponent_free=False)
    return np.maximum(held.squares - free.squares, 0), free.squares


def _ends(fit: Fit, position: Array, level: Array, critical: float) -> tuple[float, float]:
    """The exponents below and above the best with which the squares have grown by `critical`; else the exponent's bounds."""
    near, far = np.repeat(fit.exponent, 2), np.array([0.0, LARGEST_EXPONENT])
    for _ in range(4):
        tried = np.linspace(near, far, _TRIED, axis=1)
        start = np.repeat(fit.share, tried.size), tried.ravel()
        levels = np.broadcast_to(level, (tried.size, len(level)))
        held = improved(position, levels, *start, floor_free=fit.floor_free, exponent_free=False)
        outside = held.squares.reshape(tried.shape) - fit.squares > critical
        outside[:, -1] = True
        first = np.argmax(outside[:, 1:], axis=1) + 1
        near, far = tried[[0, 1], first - 1], tried[[0, 1], first]
    return float(far[0]), float(far[1])


def _errors_of_shapes(size: Array, value: Array) -> dict[str, float]:
    """Squares of the relative errors that each fixed shape, with a floor, leaves at its best.

    Relative errors, not their logarithms: then the floor and the coefficient are a linear problem.
    """
    flat = np.full(len(value), value.min())
    shapes = {"flat": flat, "N": size, "N log N": size * np.log(np.maximum(size, 1)), "N^2": size**2}
    columns = {name: np.stack((flat, shape * (value.max() / shape.max()))[name == "flat" :], axis=1) for name, shape in shapes.items()}
    return {name: float(nnls(terms / value[:, None], np.ones(len(value)))[1] ** 2) for name, terms in columns.items()}


def _preferred(errors: Mapping[str, float], points: int) -> str | None:
    """Which shape has the lowest AIC; None where it is the flat line, with one parameter less."""
    # Rounding is no evidence: exact data of two shapes that both fit are told apart by their parameters alone.
    criteria = {name: points * np.log(error + 1e-24) + (2 if name == "flat" else 4) for name, error in errors.items()}
    best = min(criteria, key=lambda name: criteria[name])
    return None if best == "flat" else best
