"""Accuracy over seeds: intervals, differences, the Pareto front, and what joined runs are called."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_trainings import write_run
from scipy import stats

from lisabench.analysis import accuracy
from lisabench.analysis.accuracy import Series, baseline_of, difference, estimate, front, leaders, summarise
from lisabench.results import read_run


def of(tmp_path: Path, accuracies: dict[str, Sequence[float | str]], **plan: Any) -> dict[str, Series]:
    return {one.label: one for one in summarise([write_run(tmp_path / "run", accuracies, **plan)])}


def test_interval_is_students() -> None:
    values = [0.91, 0.93, 0.96, 0.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = estimate(values, images=10_000)
    assert (found.mean, found.low, found.high, found.count) == pytest.approx((np.mean(values), low, high, 4))


@pytest.mark.parametrize(
    ("values", "images", "low", "high"),
    [
        ([0.9, 0.9, 0.9], 100, 0.895, 0.905),  # equal seeds: half an image to both sides
        ([1.0, 1.0], 100, 0.995, 1.0),
        ([0.99, 1.0], 100, 0.995 - 0.005 * stats.t.ppf(0.975, 1), 1.0),
        ([0.01, 0.0], 100, 0.0, 0.005 + 0.005 * stats.t.ppf(0.975, 1)),
        ([0.9, 0.9], None, 0.9, 0.9),  # a run that does not say how many images
    ],
)
def test_interval_at_its_limits(values: list[float], images: int | None, low: float, high: float) -> None:
    found = estimate(values, images=images)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval() -> None:
    assert estimate([0.7], images=100) == accuracy.Estimate(0.7, None, None, 1)


def test_difference_is_welchs(tmp_path: Path) -> None:
    one, other = [0.95, 0.92, 0.97], [0.9, 0.905, 0.91, 0.9]
    series = of(tmp_path, {"lisa": one, "softmax": other})
    found = difference(series["lisa"], series["softmax"])
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(one) - np.mean(other), expected.low, expected.high))


def test_difference_of_equal_seeds_is_known_to_half_an_image_of_each(tmp_path: Path) -> None:
    series = of(tmp_path, {"lisa": [0.9, 0.9], "softmax": [0.8, 0.8], "linear": [0.9], "fnet": ["error", "oom"]})
    found = difference(series["lisa"], series["softmax"])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.1 - 1 / 360, 0.1 + 1 / 360))
    alone = difference(series["linear"], series["softmax"])
    assert alone is not None
    assert alone.mean == pytest.approx(0.1)
    assert (alone.low, alone.high) == (None, None)
    assert difference(series["fnet"], series["softmax"]) is None


def test_leaders_are_the_best_and_what_is_not_apart_from_it(tmp_path: Path) -> None:
    series = of(tmp_path, {"lisa": [0.97, 0.96, 0.98], "nprf": [0.965, 0.96, 0.97], "linear": [0.8, 0.81, 0.8], "fnet": [0.9699]})
    assert {one.label for one in leaders(list(series.values()))} == {"lisa", "nprf"}
    assert leaders([series["fnet"]]) == []
    assert leaders([]) == []


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 0.5), (2, 0.7), (3, 0.6), (4, 0.9)], [0, 1, 3]),
        ([(2, 0.9), (1, 0.9)], [1]),  # as accurate for less
        ([(1, 0.8), (1, 0.9)], [1]),  # more accurate at the same cost
        ([(1, 0.9), (1, 0.9), (2, 0.9)], [0, 1]),  # twins
        ([(3, 0.1)], [0]),
        ([], []),
    ],
)
def test_front(points: list[tuple[float, float]], expected: list[int]) -> None:
    assert front([cost for cost, _ in points], [top1 for _, top1 in points]) == expected


def test_front_is_what_nothing_dominates() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = generator.integers(0, 6, (8, 2)).tolist()
        kept = [
            index
            for index, (cost, gain) in enumerate(points)
            if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        ]
        found = front([cost for cost, _ in points], [gain for _, gain in points])
        assert sorted(found) == kept
        assert [points[index][0] for index in found] == sorted(points[index][0] for index in found)


def test_summary_of_a_run(tmp_path: Path) -> None:
    series = of(
        tmp_path, {"lisa": [0.9, 0.92, "oom"], "softmax": [0.8, 0.9, 0.85], "fnet": ["error"] * 3}, elsewhere={"16 x 16": 0.5}, search=8
    )
    lisa = series["lisa"]
    assert (lisa.seeds, lisa.top1, lisa.failures, lisa.searched) == (3, (0.9, 0.92), {"oom": 1}, 8)
    assert (lisa.chance, lisa.test_images, lisa.latency_batch, lisa.mlp_hidden) == (0.1, 360, 64, 96)
    assert lisa.latency is not None
    assert lisa.latency.low == pytest.approx(0.97 * 2e-3)
    assert lisa.latency.median == pytest.approx(1.01 * 2e-3)
    assert lisa.latency.high == pytest.approx(1.05 * 1.02 * 2e-3)
    assert lisa.elsewhere["16 x 16"].mean == pytest.approx(0.455)
    assert lisa.similarity == {"heads": 0.5, "all": 0.4, "images": 32}
    assert [len(curve) for curve in lisa.curves] == [30, 30]
    assert (lisa.tokens, lisa.warnings) == (16, ())
    assert series["fnet"].accuracy is None
    assert series["fnet"].failures == {"error": 3}
    assert baseline_of(lisa, list(series.values())) is series["softmax"]


def test_variants_of_one_operator_are_apart_and_trials_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"lisa": [0.9], "lisa (patterns=8)": [0.95]}, baseline=None)
    journal = tmp_path / "run/journal.jsonl"
    first = json.loads(journal.read_text().splitlines()[0])
    with journal.open("a") as lines:
        lines.write(json.dumps(first | {"kind": "search", "cell": "another", "top1": 0.1}) + "\n")
    run = read_run(tmp_path / "run", kind="accuracy")
    assert [(one.label, one.top1) for one in summarise([run])] == [("lisa", (0.9,)), ("lisa (patterns=8)", (0.95,))]
    assert len(accuracy.frame([run])) == 3


def test_runs_without_names_for_variants_are_read(tmp_path: Path) -> None:
    """As they were written before one operator could stand in a run several times."""
    run = write_run(tmp_path / "run", {"lisa": [0.9], "own.py:Plain": [0.5]}, baseline=None)
    for key, stated in run.plan["operators"].items():
        del stated["op"]
        stated["given"] = {"patterns": 4} if key == "lisa" else {}
    assert [one.label for one in summarise([run])] == ["lisa (patterns=4)", "Plain"]


def test_joined_runs_keep_their_series_apart(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a/first", {"lisa": [0.9], "softmax": [0.8]}),
        write_run(tmp_path / "a/second", {"lisa": [0.7], "linear": [0.6]}, baseline="linear"),
        write_run(tmp_path / "a/third", {"lisa": [0.7]}, data="structures:offset", baseline=None),
    ]
    series = summarise(runs)
    labels = ["lisa, first", "softmax", "lisa, second", "linear", "lisa"]
    assert [one.label for one in series] == labels
    assert [one and one.label for one in (baseline_of(one, series) for one in series)] == ["softmax", "softmax", "linear", "linear", None]
    assert [[one.label for one in part] for part in accuracy.by_data(series).values()] == [labels[:4], labels[4:]]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / folder / "run", {"lisa": [0.9]}, baseline=None) for folder in "ab"]
    assert [one.label for one in summarise(runs)] == [f"lisa, {tmp_path / folder / 'run'}" for folder in "ab"]


def test_frame_has_a_row_a_record_and_flat_columns(tmp_path: Path) -> None:
    found = accuracy.frame([write_run(tmp_path / "run", {"lisa (patterns=8)": [0.9, "error"]}, baseline=None)])
    assert found["label"].tolist() == ["lisa (patterns=8)"] * 2
    assert found["latency_s.median"].tolist()[0] == pytest.approx(2e-3)
    assert math.isnan(found["top1"][1])
    assert json.loads(found["options"][0]) == {"patterns": "8"}
    assert len(json.loads(found["curve"][0])) == 30
    assert {"flops.analytic", "memory_bytes.transient", "recipe.learning_rate", "model.mlp_hidden", "kernel_similarity.heads"} <= set(found)


@pytest.mark.parametrize(("data", "name"), [("digits", "digits"), ("/a/b/birds/", "birds"), ("hub:owner/set", "hub:owner/set")])
def test_data_name(data: str, name: str) -> None:
    assert accuracy.data_name(data) == name
