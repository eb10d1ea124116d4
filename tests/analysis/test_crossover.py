"""Crossings that are known on paper."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from lisabench.analysis.crossover import Crossover, Side, efficiency_length, find_crossover
from lisabench.analysis.scaling import FitError
from lisabench.analysis.statistics import Array
from lisabench.errors import InputError

SIZES = [256 * 2**step for step in range(7)]
FOUND = Crossover(size=5912, ci_low=5488, ci_high=6310, before="second", after="first", up_to=16384, always=None)
NONE = Crossover(size=None, ci_low=None, ci_high=None, before=None, after=None, up_to=16384, always="second")


def noisy(law: Callable[[int], float], deviation: float, seed: int) -> dict[int, Array]:
    generator = np.random.default_rng(seed)
    return {size: law(size) * np.exp(generator.normal(0, deviation, 30)) for size in SIZES}


def ends(crossover: Crossover) -> tuple[float, float, float]:
    """Low end, size and high end, where a crossing was found with a closed interval."""
    assert crossover.ci_low is not None
    assert crossover.size is not None
    assert crossover.ci_high is not None
    return crossover.ci_low, crossover.size, crossover.ci_high


# Two power laws are straight in log-log, so interpolation is exact.
@pytest.mark.parametrize("truth", [300.0, 1500.0, 6000.0, 16000.0])
def test_exact_figures_cross_where_they_should(truth: float) -> None:
    linear, square = {size: truth * size for size in SIZES}, {size: float(size**2) for size in SIZES}
    found = find_crossover(linear, square)
    assert found.size == found.ci_low == found.ci_high == pytest.approx(truth)
    assert (found.before, found.after, found.always, found.up_to) == ("second", "first", None, 16384)
    swapped = find_crossover(square, linear)
    assert swapped.size == pytest.approx(truth)
    assert (swapped.before, swapped.after) == ("first", "second")


def test_interval_holds_the_truth_and_grows_with_noise() -> None:
    widths = []
    for deviation in (0.02, 0.2):
        linear, square = noisy(lambda n: 3000.0 * n, deviation, 1), noisy(lambda n: float(n**2), deviation, 2)
        low, size, high = ends(find_crossover(linear, square))
        assert low < 3000 < high
        assert low < size < high
        widths.append(high - low)
    assert widths[0] < widths[1] / 3


def test_same_seed_same_interval() -> None:
    linear, square = noisy(lambda n: 3000.0 * n, 0.1, 1), noisy(lambda n: float(n**2), 0.1, 2)
    assert find_crossover(linear, square) == find_crossover(linear, square)
    assert find_crossover(linear, square) != find_crossover(linear, square, seed=1)


def test_of_several_crossings_the_last_counts() -> None:
    found = find_crossover({1: 1, 2: 3, 4: 1, 8: 3}, {1: 2, 2: 2, 4: 2, 8: 2})
    assert 4 < ends(found)[1] < 8
    assert (found.before, found.after) == ("first", "second")


@pytest.mark.parametrize(
    ("first", "second", "always"),
    [
        ([1, 2, 3], [2, 3, 4], "first"),
        ([2, 3, 4], [1, 2, 3], "second"),
        ([1, 3, 3], [2, 3, 4], "first"),
        ([2, 3, 3], [2, 4, 5], "first"),
        ([1, 2, 4], [2, 3, 4], "first"),
        ([1, 2, 3], [1, 2, 3], None),
    ],
    ids=["below", "above", "touches", "parts", "meets", "equal"],
)
def test_touching_is_no_crossing(first: list[float], second: list[float], always: Side | None) -> None:
    found = find_crossover(dict(zip((1, 2, 4), first, strict=True)), dict(zip((1, 2, 4), second, strict=True)))
    assert found == replace(NONE, up_to=4, always=always)


def test_crossing_through_equal_sizes_is_at_the_last_of_them() -> None:
    found = find_crossover({1: 1, 2: 2, 4: 2, 8: 3}, {1: 2, 2: 2, 4: 2, 8: 2})
    assert found.size == pytest.approx(4)


def test_only_common_sizes_with_usable_figures_count_in_any_order() -> None:
    first = {8: [4.0, math.nan], 4: [3.0], 2: [1.0], 16: [math.nan], 64: [1.0], 1: []}
    second = {1: [1.0], 2: [2.0], 4: [2.0], 8: [2.0], 16: [1.0], 32: [1.0]}
    assert find_crossover(first, second) == find_crossover({2: 1, 4: 3, 8: 4}, {2: 2, 4: 2, 8: 2})


def test_interval_is_open_where_draws_do_not_cross() -> None:
    high = find_crossover({1: [1.0] * 9, 2: [1.99, 2.1, 1.9, 2.2, 1.8]}, {1: [2.0] * 9, 2: [1.98] * 5})
    assert (high.size is None, high.ci_low is None, high.ci_high is None) == (False, False, True)
    low = find_crossover({1: [1.99, 2.1, 1.9, 2.2, 1.8], 2: [1.0] * 9}, {1: [1.98] * 5, 2: [2.0] * 9})
    assert (low.size is None, low.ci_low is None, low.ci_high is None) == (False, True, False)


@pytest.mark.parametrize(
    ("first", "second"), [({}, {}), ({1: 1, 2: 2}, {2: 1, 3: 2}), ({1: 1, 2: [math.nan]}, {1: 1, 2: 2}), ({1: 0, 2: 2}, {1: 1, 2: 2})]
)
def test_fewer_than_two_common_sizes_are_an_error(first: dict[int, ArrayLike], second: dict[int, ArrayLike]) -> None:
    with pytest.raises(FitError, match="at least 2 sizes"):
        find_crossover(first, second)


def test_bad_settings_are_an_error() -> None:
    with pytest.raises(InputError, match="confidence"):
        find_crossover({1: 1, 2: 2}, {1: 2, 2: 1}, confidence=1.5)


@pytest.mark.parametrize(
    ("crossover", "quantity", "text"),
    [
        (FOUND, "latency", "lisa overtakes softmax at 5,900 tokens (5,500 to 6,300)"),
        (FOUND, "memory", "lisa becomes smaller than softmax at 5,900 tokens (5,500 to 6,300)"),
        (FOUND, "flops", "lisa becomes cheaper than softmax at 5,900 tokens (5,500 to 6,300)"),
        (
            replace(FOUND, before="first", after="second"),
            "latency",
            "lisa is faster than softmax only up to 5,900 tokens (5,500 to 6,300)",
        ),
        (replace(FOUND, ci_low=5912.0, ci_high=5912.0), "flops", "lisa becomes cheaper than softmax at 5,912 tokens"),
        (replace(FOUND, ci_low=1499.0, ci_high=15800.0), "latency", "lisa overtakes softmax at 5,900 tokens (1,500 to 15,800)"),
        (replace(FOUND, ci_high=None), "latency", "lisa overtakes softmax at 5,900 tokens (5,500 to over 16,384)"),
        (replace(FOUND, ci_low=None), "latency", "lisa overtakes softmax at 5,900 tokens (at most 6,300)"),
        (replace(FOUND, ci_low=None, ci_high=None), "latency", "lisa overtakes softmax at about 5,900 tokens (too noisy for an interval)"),
        (NONE, "latency", "none up to 16,384 tokens: softmax stays faster"),
        (replace(NONE, always="first"), "memory", "none up to 16,384 tokens: lisa stays smaller"),
        (NONE, "energy", "none up to 16,384 tokens: softmax stays more frugal"),
        (replace(NONE, always=None), "flops", "none up to 16,384 tokens: lisa and softmax are equal"),
    ],
)
def test_sentence(crossover: Crossover, quantity: str, text: str) -> None:
    assert crossover.sentence("lisa", "softmax", quantity=quantity) == text


def test_unknown_quantity_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match="latency, memory, flops, energy"):
        FOUND.sentence("lisa", "softmax", quantity="speed")


@pytest.mark.parametrize("scale", [1e-9, 1.0])
def test_efficiency_length_is_where_line_and_parabola_meet_for_the_last_time(scale: float) -> None:
    vanilla = {size: scale * (size**2 + 500 * size + 1e6) for size in SIZES}
    assert efficiency_length({size: scale * (30500.0 * size + 1e6) for size in SIZES[:3]}, vanilla) == pytest.approx(30000)
    assert efficiency_length({size: scale * (5500.0 * size - 3e6) for size in SIZES}, vanilla) == pytest.approx(4000)


@pytest.mark.parametrize("cost", [lambda n: 1.0 * n, lambda n: 300.0 * n + 995e3], ids=["apart", "meets below 0"])
def test_no_efficiency_length_where_the_operator_is_cheaper_from_the_start(cost: Callable[[int], float]) -> None:
    assert efficiency_length({size: cost(size) for size in SIZES}, {size: size**2 + 500.0 * size + 1e6 for size in SIZES}) is None


def test_efficiency_length_needs_sizes() -> None:
    with pytest.raises(FitError, match="3 sizes of vanilla attention and 2 of the other, given 2 and 1"):
        efficiency_length({1: 1.0}, {1: 1.0, 2: 2.0})


# Of 150 draws of 95% all but one in a thousand cover between 88 and 100%.
@pytest.mark.parametrize("rounds", [12, 30])
def test_interval_covers_the_truth_as_often_as_it_says(rounds: int) -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(150):
        linear, square = (
            {size: law(size) * np.exp(generator.normal(0, 0.03, rounds)) for size in SIZES}
            for law in (lambda n: 3000.0 * n, lambda n: float(n**2))
        )
        low, _, high = ends(find_crossover(linear, square, draws=300))
        covered += low <= 3000 <= high
    assert 0.88 <= covered / 150 < 1
