"""How a cost grows with the number of tokens: value = t0 + c * N^p, with an interval for p.

The launch floor t0 is part of the model: without it, points that lie on the floor pull p down (google/benchmark's fit does that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls
from scipy.special import ndtri, stdtrit

from lisabench.analysis.statistics import Array, check_settings, resampled_medians, usable
from lisabench.errors import LisaBenchError

_LARGEST_EXPONENT = 4.0
_LARGEST_SHARE = 1 - 1e-7
# Starts for the solver: floor's share at the middle size, and exponent. Fine enough that the best cell leads to the global
# minimum: on 40 noisy curves scipy's least_squares from 12 starts found no error smaller by 1e-14 of it.
_SHARES, _EXPONENTS = (
    axis.ravel()
    for axis in np.meshgrid(np.append(0.0, 1 / (1 + np.exp(-np.linspace(-7, 7, 29)))), np.linspace(0, _LARGEST_EXPONENT, 41), indexing="ij")
)


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
    draws: int = 300,
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
    if len(sizes) != len(values) or (samples is not None and len(samples) != len(sizes)):
        lengths = f"{len(sizes)} sizes, {len(values)} values" + ("" if samples is None else f", {len(samples)} lists of samples")
        raise FitError(f"a fit needs one value for each size, given {lengths}")
    size, value = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    kept = np.flatnonzero(np.isfinite(size) & np.isfinite(value) & (size > 0) & (value > 0))
    size, value = size[kept], value[kept]
    distinct = len(np.unique(size))
    if distinct < 3:
        raise FitError(f"a scaling law needs at least 3 distinct sizes with positive values, given {distinct}; measure more sizes")

    floor_free = distinct > 3
    middle = float(np.sqrt(size.min() * size.max()))
    position, level = np.log(size / middle), np.log(value)
    fit = _least_squares(position, level[None, :], floor_free=floor_free)
    share, exponent = float(fit.share[0]), float(fit.exponent[0])
    curve = level - fit.residuals[0]
    total = float(np.exp(np.mean(level - _log_shape(position, fit.share, fit.exponent)[0])))

    # Two streams: giving samples that do not vary changes nothing.
    generator, misfit_generator = np.random.default_rng(seed).spawn(2)
    noise = np.zeros((draws, len(size)))
    if samples is not None:
        for column, raw in enumerate(usable(samples[index]) for index in kept.tolist()):
            if raw.size:
                noise[:, column] = np.log(resampled_medians(raw, draws, generator) / np.median(raw))
    exponents = _resampled_exponents(fit, position, curve, noise, confidence, misfit_generator)
    low, high = np.quantile(exponents, [(1 - confidence) / 2, (1 + confidence) / 2])
    return PowerLaw(
        exponent=exponent,
        ci_low=float(min(low, exponent)),
        ci_high=float(max(high, exponent)),
        offset=total * share,
        coefficient=total * (1 - share) / middle**exponent,
        points=len(size),
        smallest=float(size.min()),
        largest=float(size.max()),
        preferred=_preferred(size, value) if floor_free else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Fits of one or more rows: floor's share of the value at the middle size, exponent, log residuals [rows, points]."""

    share: Array
    exponent: Array
    residuals: Array
    floor_free: bool


def _resampled_exponents(
    fit: _Fit, position: Array, curve: Array, noise: Array, confidence: float, generator: np.random.Generator
) -> Array:
    """Exponents refitted to the fitted `curve` (log values) under noise of the medians and, if need be, misfit.

    Misfit is normal, with the residuals' variance widened by (Student's t / normal quantile)^2 for the one to five degrees of
    freedom that are left (resampling the residuals themselves would not widen it), less the variance that the medians' noise
    explains. Without raw samples all is misfit. With them, it counts only where the residuals exceed the median of what noise
    alone leaves: adding it always covered 99% where there was none.
    """
    draws, points = noise.shape
    freedom = points - (3 if fit.floor_free else 2)
    squares = float(np.sum(fit.residuals**2))
    refitted = _least_squares(position, curve + noise, floor_free=fit.floor_free)
    explained = np.sum(refitted.residuals**2, axis=1)
    if squares <= np.median(explained):
        return refitted.exponent
    quantile = (1 + confidence) / 2
    widening = float(stdtrit(freedom, quantile) / ndtri(quantile))
    excess = max(0.0, widening**2 * squares - float(np.mean(explained))) / freedom
    misfit = np.sqrt(excess) * _even_normals(fit, position, draws, generator)
    return _least_squares(position, curve + noise + misfit, floor_free=fit.floor_free).exponent


def _even_normals(fit: _Fit, position: Array, draws: int, generator: np.random.Generator) -> Array:
    """Normal numbers [draws, points] in opposite pairs, spread evenly along the directions that move the exponent.

    There are two: with the floor free and with the floor held at 0. Plain normal numbers moved the coverage by 2% either way
    with the seed, at 300 draws.
    """
    pairs = (draws + 1) // 2
    half = generator.standard_normal((pairs, len(position)))
    by_share, by_exponent = (rows[0] for rows in _derivatives(position, fit.share, fit.exponent))
    even = ndtri((np.arange(pairs) + 0.5) / pairs)
    for direction in (by_exponent, by_exponent - by_share * (by_share @ by_exponent) / (by_share @ by_share + 1e-300)) * 3:
        unit = direction / (np.sqrt(direction @ direction) + 1e-300)
        along = half @ unit
        half += np.outer(even[np.argsort(np.argsort(along))] - along, unit)
    return np.concatenate((half, -half))[:draws]


def _log_shape(position: Array, share: Array, exponent: Array) -> Array:
    """log(share + (1 - share) * x^exponent) for each row of parameters; `position` is log x, 0 at the middle size."""
    return np.asarray(np.log(share[:, None] + (1 - share[:, None]) * np.exp(exponent[:, None] * position)))


def _centred(rows: Array) -> Array:
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _derivatives(position: Array, share: Array, exponent: Array) -> tuple[Array, Array]:
    """Of the centred log shape, by share and by exponent, for each row of parameters."""
    growth = np.exp(exponent[:, None] * position)
    shape = share[:, None] + (1 - share[:, None]) * growth
    return _centred((1 - growth) / shape), _centred((1 - share[:, None]) * growth * position / shape)


def _least_squares(position: Array, levels: Array, *, floor_free: bool) -> _Fit:
    """The best fit for each row of `levels` (log values, [rows, points]).

    Levenberg-Marquardt on all rows at once: 300 rows of 8 points take 7 ms, scipy's least_squares from 3 starts each 1.4 s.
    The overall scale has a closed form (rows are centred), so two bounded parameters remain; the share of the floor at the
    middle size, rather than t0 itself, keeps them well conditioned.
    """
    target = _centred(levels)
    shares, exponents = (_SHARES, _EXPONENTS) if floor_free else (_SHARES[_SHARES == 0], _EXPONENTS[_SHARES == 0])
    starts = _centred(_log_shape(position, shares, exponents))
    nearest = np.argmin(np.sum(starts**2, axis=1) - 2 * target @ starts.T, axis=1)
    share, exponent, residuals = shares[nearest], exponents[nearest], target - starts[nearest]
    squares = np.sum(residuals**2, axis=1)
    damping = np.full(len(target), 1e-3)
    for _ in range(60):
        by_share, by_exponent = _derivatives(position, share, exponent)
        share_pull, exponent_pull = np.sum(by_share * residuals, axis=1), np.sum(by_exponent * residuals, axis=1)
        # A parameter that stands at its bound and is pulled outward stays there.
        share_held = ((share <= 0) & (share_pull <= 0)) | ((share >= _LARGEST_SHARE) & (share_pull >= 0)) | (not floor_free)
        exponent_held = ((exponent <= 0) & (exponent_pull <= 0)) | ((exponent >= _LARGEST_EXPONENT) & (exponent_pull >= 0))
        share_pull, exponent_pull = np.where(share_held, 0, share_pull), np.where(exponent_held, 0, exponent_pull)
        a = np.sum(by_share**2, axis=1) * (1 + damping) + 1e-300
        b = np.where(share_held | exponent_held, 0, np.sum(by_share * by_exponent, axis=1))
        d = np.sum(by_exponent**2, axis=1) * (1 + damping) + 1e-300
        determinant = a * d - b * b
        next_share = np.clip(share + (d * share_pull - b * exponent_pull) / determinant, 0, _LARGEST_SHARE)
        next_exponent = np.clip(exponent + (a * exponent_pull - b * share_pull) / determinant, 0, _LARGEST_EXPONENT)
        step = max(np.max(np.abs(next_share - share)), np.max(np.abs(next_exponent - exponent)))
        next_residuals = target - _centred(_log_shape(position, next_share, next_exponent))
        next_squares = np.sum(next_residuals**2, axis=1)
        better = next_squares <= squares
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-12, 1e8)
        share, exponent = np.where(better, next_share, share), np.where(better, next_exponent, exponent)
        squares, residuals = np.where(better, next_squares, squares), np.where(better[:, None], next_residuals, residuals)
        if step < 1e-9:
            break
    return _Fit(share=share, exponent=exponent, residuals=residuals, floor_free=floor_free)


def _preferred(size: Array, value: Array) -> str | None:
    """Which fixed shape, with a floor, has the lowest AIC; None where a flat line, with one parameter less, has it.

    On relative error, not its logarithm: then the floor and the coefficient are a linear problem.
    """

    def akaike(*columns: Array) -> float:
        _, error = nnls(np.stack(columns, axis=1) / value[:, None], np.ones(len(value)))
        # Rounding is no evidence: exact data of two shapes that both fit are told apart by their parameters alone.
        return float(len(value) * np.log(error**2 + 1e-24) + 2 * len(columns))

    flat = np.full(len(value), value.min())
    shapes = {"N": size, "N log N": size * np.log(np.maximum(size, 1)), "N^2": size**2}
    criteria = {name: akaike(flat, shape * (value.max() / shape.max())) for name, shape in shapes.items()}
    best = min(criteria, key=lambda name: criteria[name])
    return best if criteria[best] < akaike(flat) else None
