"""Verdicts on runs whose difference is known."""

import math

import numpy as np
import pytest

from lisabench.analysis.compare import compare
from lisabench.analysis.statistics import Array
from lisabench.errors import InputError


def run(median: float, deviation: float, seed: int, count: int = 40) -> Array:
    return np.asarray(median * np.exp(np.random.default_rng(seed).normal(0, deviation, count)))


@pytest.mark.parametrize(
    ("median", "deviation", "verdict"),
    [(1.2, 0.02, "slower"), (0.8, 0.02, "faster"), (1.0, 0.02, "same"), (1.03, 0.005, "same"), (1.05, 0.3, "can't tell")],
)
def test_known_differences(median: float, deviation: float, verdict: str) -> None:
    found = compare(run(1.0, deviation, 1), run(median, deviation, 2))
    assert found.verdict == verdict
    assert found.ci_low <= found.ratio <= found.ci_high
    assert found.ratio == pytest.approx(median, rel=3 * deviation)


def test_ratio_interval_holds_the_true_ratio() -> None:
    held = [compare(run(1.0, 0.05, seed), run(1.3, 0.05, 1000 + seed)) for seed in range(60)]
    assert 52 <= sum(found.ci_low <= 1.3 <= found.ci_high for found in held) < 60


@pytest.mark.parametrize(("median", "back"), [(1.2, "faster"), (0.8, "slower"), (1.0, "same")])
def test_swapped_runs_get_the_opposite_verdict(median: float, back: str) -> None:
    base, new = run(1.0, 0.02, 1), run(median, 0.02, 2)
    forth = compare(base, new)
    assert compare(new, base).verdict == back
    assert compare(new, base).ratio == pytest.approx(1 / forth.ratio)
    assert compare(new, base).p_value == pytest.approx(forth.p_value)


def test_two_runs_of_the_same_thing_are_never_faster_or_slower() -> None:
    verdicts = {compare(run(1.0, 0.1, seed), run(1.0, 0.1, 1000 + seed)).verdict for seed in range(100)}
    assert verdicts <= {"same", "can't tell"}


# Each of the three criteria alone withholds "slower".
def test_threshold_withholds() -> None:
    base, new = run(1.0, 0.005, 1), run(1.08, 0.005, 2)
    found = compare(base, new)
    assert found.verdict == "slower"
    assert compare(base, new, threshold=0.2).verdict == "same"
    assert compare(base, new, threshold=found.ratio - 1 + 1e-6).verdict == "can't tell"


def test_mann_whitney_withholds() -> None:
    base, new = run(1.0, 0.01, 1, count=8), run(1.3, 0.01, 2, count=8)
    assert compare(base, new).verdict == "slower"
    assert compare(base, new, alpha=1e-5).verdict == "can't tell"


def test_overlapping_intervals_withhold() -> None:
    # The bulk of the new run is far above, but so few samples decide the median that its interval reaches down to the old one.
    base = np.linspace(0.99, 1.01, 40)
    new = np.concatenate((np.linspace(1.0, 1.003, 19), np.linspace(1.5, 1.6, 21)))
    found = compare(base, new)
    assert found.p_value < 0.002
    assert found.ratio > 1.05
    assert found.verdict == "can't tell"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_samples_cannot_tell(count: int) -> None:
    assert compare([1.0] * count, [1.0] * 40).verdict == "can't tell"
    assert compare([1.0] * 40, [9.0] * count).verdict == "can't tell"


def test_constant_samples() -> None:
    assert compare([1.0] * 20, [1.0] * 20).verdict == "same"
    assert compare([1.0] * 20, [2.0] * 20).verdict == "slower"


def test_odd_samples_are_left_out_and_order_does_not_matter() -> None:
    base, new = run(1.0, 0.02, 1), run(1.2, 0.02, 2)
    assert compare([math.nan, *base[::-1], 0.0, -1.0], [*new, math.inf]) == compare(base, new)


@pytest.mark.parametrize(("base", "new"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([0.0], [1.0])])
def test_nothing_usable_is_an_error(base: list[float], new: list[float]) -> None:
    with pytest.raises(InputError, match="positive samples of both runs"):
        compare(base, new)


@pytest.mark.parametrize("settings", [{"threshold": -0.1}, {"threshold": math.nan}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_bad_settings_are_an_error(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="threshold"):
        compare([1.0], [1.0], **settings)


def test_intervals_that_touch_withhold_the_verdict_that_samples_alone_would_give() -> None:
    """Samples 10% apart, each run of one mood: the recorded intervals know what moved between rounds."""
    base, new = [1.0 + 1e-4 * k for k in range(50)], [1.1 + 1e-4 * k for k in range(50)]
    assert compare(base, new).verdict == "slower"
    assert compare(base, new, intervals=((0.9, 1.12), (1.0, 1.2))).verdict == "can't tell"
    assert compare(base, new, intervals=((0.99, 1.01), (1.09, 1.12))).verdict == "slower"
