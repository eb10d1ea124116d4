"""A table before it is text: cells with their intervals and marks, columns under headings, blocks of rows. Knows no format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lisabench import units

MOST_DECIMALS = 3

# Steps of each quantity with the size of one in SI; a table keeps to one of them.
STEPS: Mapping[str, Mapping[str, float]] = {
    "latency": {"s": 1.0, "ms": 1e-3, "µs": 1e-6},
    "memory": {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1.0},
    "flops": {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0},
    "energy": {"J": 1.0, "mJ": 1e-3, "µJ": 1e-6},
    "parameters": {"M": 1e6, "k": 1e3, "": 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure in its column's unit, its 95% interval and how both are written; or a word where there is no figure. `mark` says where it
    stands among its column's."""

    text: str = units.MISSING
    interval: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    mark: Literal["best", "second", ""] = ""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """Words and, where the figures have one, their unit."""

    text: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.unit})" if self.unit else self.text


@dataclass(frozen=True, kw_only=True)
class Column:
    """Its own heading, and the one that it shares with its neighbours."""

    head: Heading
    over: Heading | None = None

    def __str__(self) -> str:
        return f"{self.over}: {self.head}" if self.over else str(self.head)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An operator with a cell a column."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that were measured under equal conditions, which `device` and `title` tell where a table has several."""

    title: str
    rows: tuple[Row, ...]
    device: str = ""

    @property
    def heading(self) -> str:
        """Both in one line."""
        return ", ".join(filter(None, (self.device, self.title)))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table under the name of its files, with the text of its caption. `wide` ones are made for the width of a page, others for a
    column of two; `thin` ones may leave out columns between the first and the last to fit it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    wide: bool = False
    thin: bool = False

    @property
    def heads(self) -> list[str]:
        """A heading for each column in one line; what all columns share is left to the caption, but for its unit."""
        overs = {column.over for column in self.columns}
        shared = overs.pop() if len(overs) == 1 else None
        return [str(replace(column.head, unit=shared.unit)) if shared else str(column) for column in self.columns]

    def only(self, places: Sequence[int]) -> Table:
        """The table with these of its columns."""
        blocks = tuple(
            replace(block, rows=tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in block.rows))
            for block in self.blocks
        )
        return replace(self, columns=tuple(self.columns[place] for place in places), blocks=blocks)


def unit_of(quantity: str, values: Iterable[float]) -> tuple[str, float]:
    """The unit for a table of these, and its size in SI: the largest in which the middle one is at least 1."""
    known = sorted(value for value in values if value > 0)
    middle = known[len(known) // 2] if known else 1.0
    steps = STEPS[quantity]
    return next(((unit, size) for unit, size in steps.items() if middle >= size), list(steps.items())[-1])


def figure(
    value: float, low: float | None = None, high: float | None = None, *, decimals: int | None = None, plus_minus: bool = False
) -> Cell:
    """A figure with its interval in brackets, its ends as exact as itself: three digits, or so many `decimals`. With `plus_minus` an
    interval that is even to both sides is given by half its width.

    NaN and infinity are no figures, and give no interval.
    """
    if not math.isfinite(value):
        return Cell()
    places = _decimals(value) if decimals is None else decimals
    text = f"{value:.{places}f}"
    if value and not float(text):
        text = f"<{10**-places:.{places}f}"
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Cell(text=text, value=value)
    below, above = (f"{abs(end - value):.{places}f}" for end in (low, high))
    interval = f"±{above}" if plus_minus and below == above else f"[{low:.{places}f}, {high:.{places}f}]"
    return Cell(text=text, value=value, low=low, high=high, interval=interval)


def _decimals(value: float) -> int:
    return min(MOST_DECIMALS, len(units.significant(value).partition(".")[2]))


def ranked(cells: Sequence[Cell], *, candidates: Sequence[bool], highest: bool = False) -> list[Cell]:
    """The cells of a column with the best and the second marked.

    Those whose intervals overlap that of the best, or that are written like it, are not told apart from it and share its mark; so do
    those with the second. Where none is told apart nothing is marked, and of two none is the second.
    """
    runners = [place for place, (cell, runs) in enumerate(zip(cells, candidates, strict=True)) if runs and cell.value is not None]
    found = list(cells)
    if not runners:
        return found
    leading = max if highest else min
    best = leading((cells[place] for place in runners), key=_value)
    rest = [place for place in runners if not _alike(cells[place], best)]
    if not rest:
        return found
    for place in runners:
        found[place] = replace(cells[place], mark="" if place in rest else "best")
    if len(runners) > 2:
        second = leading((cells[place] for place in rest), key=_value)
        for place in rest:
            found[place] = replace(cells[place], mark="second" if _alike(cells[place], second) else "")
    return found


def _value(cell: Cell) -> float:
    return math.nan if cell.value is None else cell.value


def _alike(one: Cell, other: Cell) -> bool:
    (least, most), (low, high) = (
        (_value(cell), _value(cell)) if cell.low is None or cell.high is None else (cell.low, cell.high) for cell in (one, other)
    )
    return one.text == other.text or (low <= most and least <= high)
