from __future__ import annotations

import pytest

from lisabench import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123, "1.23 ms"),
        (1.5, "1.50 s"),
        (2.5e-6, "2.50 µs"),
        (9.9996e-4, "1.00 ms"),
        (120.0, "120 s"),
        (3e-9, "3.00 ns"),
        (0, "0 s"),
        (None, "–"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(100, "100 B"), (1536, "1.50 KiB"), (3 * 2**20, "3.00 MiB"), (2**40, "1.00 TiB"), (None, "–"), (float("nan"), "–")]
)
def test_size_in_bytes(value: float | None, text: str) -> None:
    assert units.size_in_bytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(2.5e9, "2.50 G"), (12, "12.0"), (1.234e13, "12.3 T"), (None, "–")])
def test_flops(value: float | None, text: str) -> None:
    assert units.flops(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.4, "0 s"), (75, "1 min 15 s"), (3700, "1 h 01 min"), (-2, "0 s")])
def test_duration(value: float, text: str) -> None:
    assert units.duration(value) == text


def test_interval_is_half_the_width_in_percent() -> None:
    assert units.interval(0.99, 1.0, 1.01) == "±1.0%"
