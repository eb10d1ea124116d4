"""The fit finds the engine that made-up times prefer, on shapes that it has not seen; real timings are of what runs."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import pytest

from lisabench import registry
from lisabench.measure import tuning
from lisabench.measure.tuning import Point, choice, enough, fit, held_out_regret, measure, on_squares, regret
from lisabench.workload import Grid

EVERYWHERE = {"dense", "mixed", "fft"}  # others need a GPU
TINY = [choice().Shape(Grid(height, 3), "zero", 1, 2, 2, 4, 4, 4) for height in (1, 2, 3)]


def true() -> Any:
    """Coefficients that times are made of: those of the built-in table."""
    return choice().read(choice().BUILT_IN)[0].coefficients


def made(spread: float = 0.0) -> list[Point]:
    """Points of all shapes that are timed, of the sums that the model takes times to be, times noise."""
    noise = random.Random(0)
    points = []
    for shape in tuning.shapes():
        for mode in choice().MODES:
            seconds = choice().seconds_by(true(), shape, mode, "cpu")
            points.append(Point(shape, mode, {engine: s * noise.uniform(1 - spread, 1 + spread) for engine, s in seconds.items()}))
    return points


def test_exact_times_give_their_choices() -> None:
    points = made()
    found = regret(points, fit(points, "cpu"), "cpu")
    assert found is not None
    assert found.worst == pytest.approx(1.0, abs=1e-3)
    assert found.shapes > 100


def test_of_shapes_that_were_not_seen_the_choice_is_near_the_best() -> None:
    found = held_out_regret(made(spread=0.03), "cpu")
    assert found is not None
    assert found.median < 1.005
    assert found.worst < 1.1


def test_a_wrong_model_is_found_out() -> None:
    wrong = {mode: true()[mode] | {"dense": {name: 100 * value for name, value in true()[mode]["dense"].items()}} for mode in true()}
    found = regret(made(), wrong, "cpu")
    assert found is not None
    assert found.worst > 2


def test_an_engine_that_was_timed_at_few_shapes_is_not_told_of() -> None:
    points = made()
    few = [
        point._replace(seconds={e: s for e, s in point.seconds.items() if e != "mixed" or place < 9}) for place, point in enumerate(points)
    ]
    assert [set(engines) for engines in fit(points, "cpu").values()] == [{"dense", "mixed", "fft"}] * 3
    assert [set(engines) for engines in fit(few, "cpu").values()] == [{"dense", "fft"}] * 3


def test_where_there_is_nothing_to_choose_there_is_no_regret() -> None:
    assert regret([Point(TINY[0], "kept", {"fft": 1.0})], true(), "cpu") is None
    assert regret([], true(), "cpu") is None


def test_squares_are_told_as_runs_without_islands() -> None:
    for mode in choice().MODES:
        runs = on_squares(true(), mode, "cpu")
        engines = [engine for engine, _ in runs]
        assert len(engines) == len(set(engines))
        assert engines[0] == "dense"
        assert [tokens for _, tokens in runs] == sorted(tokens for _, tokens in runs)
        assert runs[-1][1] == 128**2
        shape = choice().Shape(Grid(8, 8), "zero", 1, tuning.HEADS, tuning.PATTERNS, tuning.WIDTH, tuning.WIDTH, 4)
        seconds = choice().seconds_by(true(), shape, mode, "cpu")
        assert min(seconds, key=seconds.__getitem__) == "dense"


def test_islands_go_to_their_neighbours() -> None:
    runs = [("dense", 2, 9), ("mixed", 10, 30), ("fft", 31, 31), ("mixed", 32, 35), ("fft", 36, 99)]
    assert tuning._without_islands(runs) == [("dense", 2, 9), ("mixed", 10, 35), ("fft", 36, 99)]


def test_real_timings_are_of_all_engines_in_all_modes() -> None:
    left_out: dict[str, str] = {}
    points = list(measure(TINY, device="cpu", seconds=30, left_out=left_out, so_far=None))
    assert [(point.shape, point.mode) for point in points] == [(shape, mode) for shape in TINY for mode in choice().MODES]
    assert not set(left_out) & EVERYWHERE
    for point in points:
        assert set(point.seconds) >= EVERYWHERE
        assert min(point.seconds.values()) > 0
    assert not enough(points)
    assert enough(2 * points)
    table = tuning.table(points, "cpu", 1)
    assert choice().written([table])
    assert set(table.coefficients) == set(choice().MODES)


def test_an_engine_that_does_not_run_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module(f"{registry.PACKAGE}.lisa"), "ENGINES", ("auto", "fft", "abacus"))
    left_out: dict[str, str] = {}
    points = list(measure(TINY[:1], device="cpu", seconds=30, left_out=left_out, so_far=None))
    assert [set(point.seconds) for point in points] == [{"fft"}] * 3
    assert set(left_out) == {"abacus"}
    assert "abacus" in left_out["abacus"]


def test_what_is_far_too_slow_or_large_is_not_timed() -> None:
    slow = {mode: engines | {"mixed": engines["mixed"] | {"calls": 10.0}} for mode, engines in true().items()}
    points = list(measure(TINY[:1], device="cpu", seconds=30, left_out={}, so_far=slow))
    assert [set(point.seconds) & EVERYWHERE for point in points] == [{"dense", "fft"}] * 3
    wide, large = (choice().Shape(grid, "zero", 1, 3, 4, 64, 64, 4) for grid in (Grid(1, 10_000), Grid(400, 400)))
    assert "mixed" not in tuning._engines(wide, "forward", "cpu", None)
    assert "dense" not in tuning._engines(large, "forward", "cpu", None)
    assert "fft" in tuning._engines(large, "forward", "cpu", None)


def test_no_time_gives_no_points() -> None:
    assert list(measure(TINY, device="cpu", seconds=-1.0, left_out={}, so_far=None)) == []


def test_few_shapes_are_quick() -> None:
    quick, whole = tuning.shapes(quick=True), tuning.shapes()
    assert set(quick) < set(whole)
    assert len(set(whole)) == len(whole)
    assert max(shape.grid.tokens for shape in quick) <= tuning.QUICK_TOKENS
