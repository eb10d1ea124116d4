"""The roofline's arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lisabench.measure.roofline import note, product_dtype, roofline

PEAKS = {"flops_per_s_fp32": 1e12, "flops_per_s_bf16": 4e12, "bytes_per_s": 1e11}
RIDGE = 10  # FLOPs a byte of fp32


def figures(flops: float | None = 1e9, bytes_moved: float | None = 1e6, seconds: float | None = 2e-3, **more: Any) -> dict[str, Any]:
    found = roofline(flops, bytes_moved, seconds, **{"peaks": PEAKS, "dtype": "fp32"} | more)
    assert isinstance(found, dict), found
    return found


def reason(flops: float | None = 1e9, bytes_moved: float | None = 1e6, seconds: float | None = 2e-3, **more: Any) -> str:
    found = roofline(flops, bytes_moved, seconds, **{"peaks": PEAKS, "dtype": "fp32"} | more)
    assert isinstance(found, str), found
    assert "\n" not in found
    return found


def test_a_call_above_the_ridge_point() -> None:
    assert figures() == {
        "flops_per_s": pytest.approx(5e11),
        "bytes_per_s": pytest.approx(5e8),
        "limit_s": pytest.approx(1e-3),
        "share": pytest.approx(0.5),
        "bound": "compute",
        "peak_flops_per_s": 1e12,
        "peak_bytes_per_s": 1e11,
    }


def test_a_call_below_the_ridge_point() -> None:
    found = figures(flops=1e6, bytes_moved=1e8)
    assert (found["bound"], found["limit_s"], found["share"]) == ("memory", pytest.approx(1e-3), pytest.approx(0.5))


def test_at_the_ridge_point_both_limits_are_equal() -> None:
    found = figures(flops=RIDGE * 1e8, bytes_moved=1e8)
    assert found["bound"] == "compute"
    assert found["limit_s"] == pytest.approx(1e8 / PEAKS["bytes_per_s"])
    assert figures(flops=RIDGE * 1e8, bytes_moved=1.001e8)["bound"] == "memory"


def test_the_limit_is_the_longer_of_both() -> None:
    for flops in (1e6, 1e8, 1e9, 1e12):
        for moved in (1e4, 1e6, 1e8, 1e10):
            assert figures(flops, moved)["limit_s"] == max(flops / 1e12, moved / 1e11)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_twice_the_work_in_twice_the_time_is_the_same_share(factor: float) -> None:
    one, other = figures(), figures(1e9 * factor, 1e6 * factor, 2e-3 * factor)
    assert other["share"] == pytest.approx(one["share"])
    assert other["limit_s"] == pytest.approx(one["limit_s"] * factor)
    assert other["bound"] == one["bound"]


def test_a_faster_call_has_a_larger_share_and_the_same_limit() -> None:
    slow, fast = figures(seconds=2e-3), figures(seconds=1e-3)
    assert fast["share"] == pytest.approx(2 * slow["share"])
    assert fast["limit_s"] == slow["limit_s"]


def test_the_peak_is_that_of_the_dtype() -> None:
    assert figures(dtype="bf16")["limit_s"] == pytest.approx(figures()["limit_s"] / 4)


def test_a_share_over_one_stands_and_is_explained() -> None:
    cached = figures(flops=1.0, bytes_moved=1e8, seconds=5e-4)
    assert cached["share"] == pytest.approx(2.0)
    assert "cache" in str(note(cached))
    assert "lisabench env" in str(note(figures(seconds=5e-4)))
    assert note(figures()) is None
    assert note(figures(seconds=1e-3)) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flops": None}, "FLOPs are not known"),
        ({"bytes_moved": None}, "bytes moved are not known"),
        ({"seconds": None}, "no latency"),
        ({"dtype": "fp64"}, "fp64 has no measured peak"),
        ({"peaks": {"flops_per_s_fp32": 1e12}}, "bandwidth of this device is not measured"),
        ({"peaks": {}}, "fp32 has no measured peak"),
        ({"coverage": None}, "not checked"),
        ({"coverage": 0.97}, "97.0%"),
        ({"coverage": 1.2}, "120.0%"),
        ({"coverage": math.nan}, "coverage"),
    ],
)
def test_absent_figures_have_their_reason(given: dict[str, Any], words: str) -> None:
    assert words in reason(**given)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["flops", "bytes_moved", "seconds"])
def test_no_figures_of_zero_or_no_number(name: str, value: float) -> None:
    assert "no measure" in reason(**{name: value})
    assert "no measure" in reason(peaks=PEAKS | {"bytes_per_s": value})
    assert "no measure" in reason(peaks=PEAKS | {"flops_per_s_fp32": value})


def test_coverage_within_one_percent_is_full() -> None:
    assert figures(coverage=0.991) == figures(coverage=1.009) == figures()


@pytest.mark.parametrize(
    ("dtype", "environment", "expected"),
    [
        ("fp32", {"device": "cpu"}, "fp32"),
        ("fp32", {"gpu": {"tf32": False}}, "fp32"),
        ("fp32", {"gpu": {"tf32": True}}, "tf32"),
        ("fp32", {"gpu": {"tf32": {"matmul": True, "cudnn": False}}}, "tf32"),
        ("fp32", {"gpu": {"tf32": None}}, "fp32"),
        ("bf16", {"gpu": {"tf32": True}}, "bf16"),
    ],
)
def test_which_peak_products_run_under(dtype: str, environment: dict[str, Any], expected: str) -> None:
    assert product_dtype(dtype, environment) == expected
