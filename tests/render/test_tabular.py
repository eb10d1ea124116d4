"""Figures as a table writes them, and which are marked."""

from __future__ import annotations

import math

import pytest

from lisabench.render.tabular import Cell, figure, ranked, unit_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.48193, "0.482"),
        (1.5, "1.50"),
        (24.0, "24.0"),
        (206158.4, "206158"),
        (0.0204, "0.020"),
        (1e-6, "<0.001"),
        (0.0, "0"),
        (999.96, "1000"),
    ],
)
def test_a_figure_has_three_digits_and_at_most_three_decimals(value: float, text: str) -> None:
    assert figure(value).text == text


def test_an_interval_is_as_exact_as_its_figure() -> None:
    assert figure(5.6216, 5.15737, 6.124).interval == "[5.16, 6.12]"
    assert figure(96.444, 94.53, 98.358, decimals=2, plus_minus=True).interval == "±1.91"
    assert figure(99.5, 98.5, 100.0, decimals=2, plus_minus=True).interval == "[98.50, 100.00]"
    assert figure(1.0, math.nan, 2.0).interval == figure(1.0).interval == ""


def test_what_is_not_finite_is_no_figure() -> None:
    assert figure(math.nan, 1.0, 2.0) == figure(math.inf) == Cell()


@pytest.mark.parametrize(
    ("quantity", "values", "unit"),
    [
        ("latency", [2e-5, 3e-3, 1.5], "ms"),
        ("memory", [2**20, 2**31, 2**33], "GiB"),
        ("flops", [3e9], "G"),
        ("flops", [], ""),
        ("energy", [0.0, 2e-7], "µJ"),
    ],
)
def test_the_unit_is_that_of_the_middle_value(quantity: str, values: list[float], unit: str) -> None:
    assert unit_of(quantity, values)[0] == unit


def marks(cells: list[Cell], *, floor: int | None = None, highest: bool = False) -> list[str]:
    return [cell.mark for cell in ranked(cells, candidates=[place != floor for place in range(len(cells))], highest=highest)]


def test_the_best_and_the_second_are_marked() -> None:
    cells = [figure(3.0), figure(1.0), figure(2.0), Cell(text="oom")]
    assert marks(cells) == ["", "best", "second", ""]
    assert marks(cells, highest=True) == ["best", "", "second", ""]
    assert marks(cells, floor=1) == ["", "", "best", ""]


def test_what_an_interval_does_not_tell_apart_shares_the_mark() -> None:
    assert (
        marks([figure(1.0, 0.9, 1.2), figure(1.1, 1.0, 1.3), figure(2.0, 1.9, 2.1), figure(2.1, 2.0, 2.2)]) == ["best"] * 2 + ["second"] * 2
    )
    assert marks([figure(1.0001), figure(1.0002), figure(2.0)]) == ["best", "best", "second"]  # written alike


def test_where_none_is_told_apart_there_is_no_best_and_of_two_none_is_the_second() -> None:
    assert marks([figure(1.0, 0.9, 1.2), figure(1.1, 1.0, 1.3)]) == ["", ""]
    assert marks([figure(1.0), Cell(text="timeout")]) == ["", ""]
    assert marks([figure(1.0), figure(2.0)]) == ["best", ""]
