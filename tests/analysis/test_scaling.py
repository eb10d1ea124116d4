"""The fit against laws whose exponent is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares

from lisabench.analysis.scaling import FitError, fit_power_law
from lisabench.analysis.statistics import Array
from lisabench.errors import InputError, LisaBenchError

SIZES = [256.0 * 2**step for step in range(7)]


def noisy(exponent: float, floor: float, deviation: float, seed: int) -> Array:
    """Floor in multiples of the growing part at the smallest size."""
    size = np.array(SIZES)
    law = floor * size[0] ** exponent + size**exponent
    return np.asarray(law * np.exp(np.random.default_rng(seed).normal(0, deviation, len(size))))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.37, 2.0, 3.0])
@pytest.mark.parametrize("floor", [0.0, 1.0, 300.0])
def test_exact_law_is_found_and_its_interval_collapses(exponent: float, floor: float) -> None:
    offset = floor * 1e-8 * SIZES[0] ** exponent
    law = fit_power_law(SIZES, [offset + 1e-8 * size**exponent for size in SIZES])
    assert law.exponent == pytest.approx(exponent, abs=1e-6)
    assert law.ci_high - law.ci_low < 1e-6
    assert law.offset == pytest.approx(offset, rel=1e-6, abs=1e-12)
    assert law.coefficient == pytest.approx(1e-8, rel=1e-5)
    assert (law.points, law.smallest, law.largest) == (7, 256, 16384)
    assert law.predict(32768) == pytest.approx(offset + 1e-8 * 32768**exponent, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"), [("N", lambda n: n), ("N log N", lambda n: n * math.log(n)), ("N^2", lambda n: n**2)], ids=lambda v: str(v)[:7]
)
@pytest.mark.parametrize("floor", [0.0, 3000.0])
def test_preferred_names_the_true_shape(name: str, shape: Callable[[float], float], floor: float) -> None:
    assert fit_power_law(SIZES, [floor + shape(size) for size in SIZES]).preferred == name


def test_n_log_n_has_its_local_exponent() -> None:
    law = fit_power_law(SIZES, [size * math.log(size) for size in SIZES])
    slopes = [1 + 1 / math.log(size) for size in SIZES]
    assert min(slopes) < law.ci_low < law.exponent < law.ci_high < max(slopes)


def test_launch_floor_does_not_bias_the_exponent() -> None:
    values = noisy(2.0, floor=50.0, deviation=0.01, seed=0)
    plain = np.polyfit(np.log(SIZES), np.log(values), 1)[0]
    law = fit_power_law(SIZES, list(values))
    assert abs(law.exponent - 2) < 0.1 < abs(plain - 2)


# The fit is the least-squares solution: an independent solver from several starts finds none with a smaller error.
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("exponent", "floor"), [(1.0, 0.0), (2.0, 0.0), (1.0, 10.0), (2.0, 300.0)])
def test_no_other_parameters_fit_better(seed: int, exponent: float, floor: float) -> None:
    size, values = np.array(SIZES), noisy(exponent, floor, 0.05, seed)
    law = fit_power_law(SIZES, list(values), draws=1)

    def error(parameters: Array) -> Array:
        offset, coefficient, power = parameters
        return np.asarray(np.log(values / (values[0] * (offset + coefficient * (size / size[0]) ** power))))

    ours = sum(math.log(value / law.predict(n)) ** 2 for n, value in zip(size, values, strict=True))
    starts = [(0.5, 0.5, 1.0), (0.01, 1.0, 2.0), (0.9, 0.1, 2.5)]
    bounds = ([0, 1e-12, 0], [np.inf, np.inf, 4])
    theirs = min(2 * least_squares(error, start, bounds=bounds, x_scale="jac").cost for start in starts)
    assert ours <= theirs * (1 + 1e-6)


# Of 80 draws of 95% all but one in a thousand cover between 86 and 100%; both kinds of interval, where the floor is at its bound
# and where it is not. benchmarks/coverage.py has all cases.
@pytest.mark.parametrize("floor", [0.0, 3.0])
@pytest.mark.parametrize("sampled", [True, False])
def test_interval_covers_the_truth_about_as_often_as_it_says(floor: float, sampled: bool) -> None:
    covered, size = 0, np.array(SIZES)
    generator = np.random.default_rng(0)
    law = floor * size[0] ** 1.5 + size**1.5
    for _ in range(80):
        rounds = law[:, None] * np.exp(generator.normal(0, 0.03, (len(size), 12)))
        fit = fit_power_law(SIZES, list(np.median(rounds, axis=1)), samples=list(rounds) if sampled else None, draws=120)
        covered += fit.ci_low <= 1.5 <= fit.ci_high
    assert 0.86 <= covered / 80 < 1


def test_what_n_log_n_leaves_is_no_chance() -> None:
    size = np.array(SIZES)
    samples = [value * np.exp(np.linspace(-1e-3, 1e-3, 13)) for value in size * np.log(size)]
    values = [float(np.median(raw)) for raw in samples]
    told, untold = fit_power_law(SIZES, values, samples=samples), fit_power_law(SIZES, values)
    assert untold.ci_low < told.ci_low < told.exponent < told.ci_high < untold.ci_high


def test_noise_of_the_samples_widens_the_interval() -> None:
    values = [size**1.5 for size in SIZES]
    generator = np.random.default_rng(0)
    samples = [value * np.exp(generator.normal(0, 0.05, 25)) for value in values]
    bare, measured = fit_power_law(SIZES, values), fit_power_law(SIZES, values, samples=samples)
    assert bare.exponent == measured.exponent
    assert bare.ci_high - bare.ci_low < 1e-6
    assert measured.ci_high - measured.ci_low > 0.01


def test_misfit_counts_beyond_the_noise_of_the_samples() -> None:
    values = list(noisy(1.5, 0.0, 0.05, 1))
    quiet = [np.full(25, value) for value in values]
    assert fit_power_law(SIZES, values, samples=quiet) == fit_power_law(SIZES, values)
    assert fit_power_law(SIZES, values).ci_high - fit_power_law(SIZES, values).ci_low > 0.02


@pytest.mark.parametrize("seed", range(10))
def test_interval_never_excludes_the_estimate_and_keeps_the_bounds(seed: int) -> None:
    law = fit_power_law(SIZES[:5], list(noisy(3.8, 30.0, 0.3, seed)[:5]), draws=50, confidence=0.2)
    assert 0 <= law.ci_low <= law.exponent <= law.ci_high <= 4
    assert law.offset >= 0
    assert law.coefficient > 0


def test_same_seed_same_interval() -> None:
    values = list(noisy(2.0, 1.0, 0.03, 0))
    samples = [[value * 0.98, value, value * 1.02] for value in values]
    assert fit_power_law(SIZES, values, samples=samples) == fit_power_law(SIZES, values, samples=samples)
    assert fit_power_law(SIZES, values, samples=samples) != fit_power_law(SIZES, values, samples=samples, seed=1)


def test_order_does_not_matter() -> None:
    values = list(noisy(2.0, 1.0, 0.03, 0))
    turned = fit_power_law(SIZES[::-1], values[::-1])
    assert turned.exponent == pytest.approx(fit_power_law(SIZES, values).exponent, abs=1e-7)
    assert (turned.smallest, turned.largest) == (256, 16384)


def test_unit_does_not_matter() -> None:
    values = noisy(1.5, 1.0, 0.03, 0)
    small, large = fit_power_law(SIZES, list(values * 1e-9)), fit_power_law(SIZES, list(values * 1e9))
    assert small.exponent == pytest.approx(large.exponent, abs=1e-7)
    assert small.offset * 1e18 == pytest.approx(large.offset, rel=1e-5)


def test_odd_values_are_left_out_with_their_sizes_and_samples() -> None:
    values = list(noisy(2.0, 1.0, 0.03, 0))
    samples = [[value * 0.99, value, value * 1.01] for value in values]
    sizes = [math.nan, 0.0, -4.0, 300.0, 400.0, 500.0, *SIZES]
    odd = [1.0, 1.0, 1.0, math.nan, 0.0, math.inf, *values]
    raw = [[1.0]] * 6 + samples
    assert fit_power_law(sizes, odd, samples=raw) == fit_power_law(SIZES, values, samples=samples)


def test_odd_samples_are_left_out() -> None:
    values = list(noisy(2.0, 1.0, 0.03, 0))
    clean = [[value] for value in values]
    odd = [[math.nan, value, 0.0] for value in values[:-1]] + [[math.nan]]
    assert fit_power_law(SIZES, values, samples=odd) == fit_power_law(SIZES, values, samples=clean)


def test_duplicate_sizes_are_points_of_their_own() -> None:
    values = noisy(2.0, 1.0, 0.02, 0)
    law = fit_power_law(SIZES * 2, [*values, *(values * 1.01)])
    assert law.points == 14
    assert law.exponent == pytest.approx(fit_power_law(SIZES, list(values)).exponent, abs=1e-6)


def test_three_sizes_are_fitted_without_a_floor() -> None:
    values = [5 + size**2 for size in (1.0, 2.0, 4.0)]
    law = fit_power_law([1, 2, 4], values)
    assert law.exponent == pytest.approx(np.polyfit(np.log([1, 2, 4]), np.log(values), 1)[0])
    assert law.offset == 0
    assert law.preferred is None
    assert law.ci_low < law.exponent < law.ci_high
    assert replace(fit_power_law([1, 2, 4] * 2, values * 2), points=3, ci_low=0, ci_high=0) == replace(law, ci_low=0, ci_high=0)


@pytest.mark.parametrize("values", [[2.0] * 7, [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]], ids=["flat", "falling"])
def test_no_growth_is_exponent_zero(values: list[float]) -> None:
    law = fit_power_law(SIZES, values)
    assert law.exponent == 0
    assert law.offset == 0
    assert law.preferred is None


@pytest.mark.parametrize(
    ("sizes", "values"),
    [([], []), ([1], [1]), ([1, 2], [1, 2]), ([1, 1, 2, 2], [1, 1, 2, 2]), ([1, 2, 3], [1, 2, math.nan]), ([1, 2, 3], [0, 0, 0])],
)
def test_too_few_sizes_are_an_error(sizes: list[float], values: list[float]) -> None:
    with pytest.raises(FitError, match="at least 3 distinct sizes"):
        fit_power_law(sizes, values)


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(FitError, match="4 sizes, 3 values"):
        fit_power_law([1, 2, 3, 4], [1, 2, 3])
    with pytest.raises(FitError, match="1 lists of samples"):
        fit_power_law([1, 2, 3], [1, 2, 3], samples=[[1.0]])
    assert issubclass(FitError, LisaBenchError)


def test_bad_settings_are_an_error() -> None:
    with pytest.raises(InputError, match="confidence"):
        fit_power_law([1, 2, 3], [1, 2, 3], confidence=95)
    with pytest.raises(InputError, match="draw"):
        fit_power_law([1, 2, 3], [1, 2, 3], draws=0)
