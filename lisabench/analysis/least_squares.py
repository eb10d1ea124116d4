"""The floor's share and the exponent of value = t0 + c * N^p by least squares of log values, for many curves over the same sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisabench.analysis.statistics import Array

LARGEST_EXPONENT = 4.0
_LARGEST_SHARE = 1 - 1e-7
# Starts for the solver: floor's share at the middle size, and exponent. Fine enough that the best cell leads to the global
# minimum: on 40 noisy curves scipy's least_squares from 12 starts found no error smaller by 1e-14 of it.
_SHARES, _EXPONENTS = (
    axis.ravel()
    for axis in np.meshgrid(np.append(0.0, 1 / (1 + np.exp(-np.linspace(-7, 7, 29)))), np.linspace(0, LARGEST_EXPONENT, 41), indexing="ij")
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fits of one or more rows: floor's share of the value at the middle size, exponent, log residuals [rows, points], their squares' sum."""

    share: Array
    exponent: Array
    residuals: Array
    squares: Array
    floor_free: bool


# Within, a curve is a column: few points and many curves are summed along the points four times as fast as across.
def log_shape(position: Array, share: Array, exponent: Array) -> Array:
    """log(share + (1 - share) * x^exponent) as [points, curves]; `position` is log x, 0 at the middle size."""
    return np.asarray(np.log(share + (1 - share) * np.exp(position[:, None] * exponent)))


def _centred(columns: Array) -> Array:
    return np.asarray(columns - columns.mean(axis=0))


def _derivatives(position: Array, share: Array, exponent: Array) -> tuple[Array, Array]:
    """Of the centred log shape, by share and by exponent, as [points, curves]."""
    growth = np.exp(position[:, None] * exponent)
    shape = share + (1 - share) * growth
    return _centred((1 - growth) / shape), _centred((1 - share) * growth * position[:, None] / shape)


def best_fits(position: Array, levels: Array, *, floor_free: bool) -> Fit:
    """The best fit for each row of `levels` (log values, [rows, points])."""
    target = _centred(levels.T)
    shares, exponents = (_SHARES, _EXPONENTS) if floor_free else (_SHARES[_SHARES == 0], _EXPONENTS[_SHARES == 0])
    starts = _centred(log_shape(position, shares, exponents))
    nearest = np.argmin(np.sum(starts**2, axis=0) - 2 * target.T @ starts, axis=1)
    return improved(position, levels, shares[nearest], exponents[nearest], floor_free=floor_free)


def improved(position: Array, levels: Array, share: Array, exponent: Array, *, floor_free: bool, exponent_free: bool = True) -> Fit:
    """The fit for each row of `levels` (log values, [rows, points]) that lies nearest to the given share and exponent.

    Levenberg-Marquardt on all rows at once: scipy's least_squares takes 200 times as long. The overall scale has a closed form
    (rows are centred), so two bounded parameters remain; the share of the floor at the middle size, rather than t0 itself, keeps
    them well conditioned.
    """
    target = _centred(np.ascontiguousarray(levels.T))
    residuals = target - _centred(log_shape(position, share, exponent))
    squares = np.sum(residuals**2, axis=0)
    damping = np.full(len(levels), 1e-3)
    for _ in range(60):
        by_share, by_exponent = _derivatives(position, share, exponent)
        share_pull, exponent_pull = np.sum(by_share * residuals, axis=0), np.sum(by_exponent * residuals, axis=0)
        # A parameter that stands at its bound and is pulled outward stays there.
        share_held = ((share <= 0) & (share_pull <= 0)) | ((share >= _LARGEST_SHARE) & (share_pull >= 0)) | (not floor_free)
        exponent_held = (
            ((exponent <= 0) & (exponent_pull <= 0)) | ((exponent >= LARGEST_EXPONENT) & (exponent_pull >= 0)) | (not exponent_free)
        )
        share_pull, exponent_pull = np.where(share_held, 0, share_pull), np.where(exponent_held, 0, exponent_pull)
        a = np.sum(by_share**2, axis=0) * (1 + damping) + 1e-300
        b = np.where(share_held | exponent_held, 0, np.sum(by_share * by_exponent, axis=0))
        d = np.sum(by_exponent**2, axis=0) * (1 + damping) + 1e-300
        determinant = a * d - b * b
        next_share = np.clip(share + (d * share_pull - b * exponent_pull) / determinant, 0, _LARGEST_SHARE)
        next_exponent = np.clip(exponent + (a * exponent_pull - b * share_pull) / determinant, 0, LARGEST_EXPONENT)
        still = (np.abs(next_share - share) < 1e-9) & (np.abs(next_exponent - exponent) < 1e-9)
        next_residuals = target - _centred(log_shape(position, next_share, next_exponent))
        next_squares = np.sum(next_residuals**2, axis=0)
        better = next_squares <= squares
        settled = still | (better & (squares - next_squares <= 1e-9 * squares))
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-12, 1e8)
        share, exponent = np.where(better, next_share, share), np.where(better, next_exponent, exponent)
        squares, residuals = np.where(better, next_squares, squares), np.where(better, next_residuals, residuals)
        if settled.all():
            break
    return Fit(share=share, exponent=exponent, residuals=residuals.T, squares=squares, floor_free=floor_free)
