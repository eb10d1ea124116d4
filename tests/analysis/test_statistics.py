"""The median's interval and its bootstrap."""

import math
import subprocess
import sys

import numpy as np
import pytest

from lisabench.analysis.statistics import check_settings, median_interval, resampled_medians, usable
from lisabench.errors import InputError


# The usual ranks of the 95% interval: the widest tails P(X < rank) <= 2.5%, X ~ Binomial(n, 1/2).
@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (30, 10), (100, 40)])
def test_interval_has_the_tabulated_ranks(count: int, rank: int) -> None:
    assert median_interval(np.arange(1.0, count + 1)) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [6, 7, 31, 64, 501])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_interval_is_the_narrowest_with_enough_coverage(count: int, confidence: float) -> None:
    low, high = median_interval(range(1, count + 1), confidence)
    covered = sum(math.comb(count, k) for k in range(int(low), int(high))) / 2**count
    narrower = sum(math.comb(count, k) for k in range(int(low) + 1, int(high) - 1)) / 2**count
    assert covered >= confidence > narrower


def test_many_samples_do_not_underflow() -> None:
    low, high = median_interval(np.arange(20001.0))
    assert low == pytest.approx(10000 - 1.96 * math.sqrt(20001) / 2, abs=1.5)
    assert low + high == 20000


@pytest.mark.parametrize("samples", [[3.0], [3.0, 1.0], [5.0, 1.0, 2.0, 4.0, 3.0]])
def test_few_samples_give_their_range(samples: list[float]) -> None:
    assert median_interval(samples) == (min(samples), max(samples))


def test_confidence_out_of_reach_gives_the_range() -> None:
    assert median_interval(range(8), 0.999) == (0, 7)


def test_order_and_odd_numbers_do_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert median_interval([*values, math.nan, math.inf]) == median_interval(np.sort(values))


@pytest.mark.parametrize("samples", [[], [math.nan]])
def test_nothing_finite_is_an_error(samples: list[float]) -> None:
    with pytest.raises(InputError, match="no finite sample"):
        median_interval(samples)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_bad_confidence_is_an_error(confidence: float) -> None:
    with pytest.raises(InputError, match="confidence"):
        median_interval([1.0], confidence)


def test_bad_draws_are_an_error() -> None:
    with pytest.raises(InputError, match="draw"):
        check_settings(confidence=0.95, draws=0)


@pytest.mark.parametrize("count", [2, 5, 6, 21, 40])
def test_resampled_medians_are_distributed_as_those_of_a_plain_bootstrap(count: int) -> None:
    generator = np.random.default_rng(count)
    samples = generator.lognormal(size=count)
    plain = np.median(generator.choice(samples, size=(20000, count)), axis=1)
    direct = resampled_medians(samples, 20000, generator)
    probabilities = [(plain <= bound).mean() - (direct <= bound).mean() for bound in np.unique(plain)]
    assert np.max(np.abs(probabilities)) < 0.02


def test_one_sample_never_varies() -> None:
    assert set(resampled_medians(np.array([2.5]), 50, np.random.default_rng(0))) == {2.5}


def test_usable_keeps_positive_finite_numbers() -> None:
    assert usable([1.0, 0.0, -1.0, math.nan, math.inf, 2.0]).tolist() == [1.0, 2.0]
    assert usable(3).tolist() == [3.0]


def test_importing_it_does_not_import_scipy() -> None:
    code = "import sys, lisabench.analysis.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
