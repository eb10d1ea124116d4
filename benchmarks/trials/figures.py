"""The arithmetic that the trials share, and their verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of the verdict: `met` None where there was nothing to judge."""

    what: str
    target: str
    result: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: NOT_MEASURED}[self.met]

    def record(self) -> dict[str, Any]:
        return {"what": self.what, "target": self.target, "result": self.result, "verdict": self.verdict}


def at_most(what: str, value: float | None, bound: float, *, of: int | None = None) -> Target:
    """A share, of `of` cells where that is given, that must not be over `bound`."""
    met = None if value is None else value <= bound
    result = percent(value, beside=bound) if of is None else counted(value, of, beside=bound)
    return Target(what=what, target=f"at most {percent(bound)}", result=result, met=met)


def at_least(what: str, value: float | None, bound: float, *, of: int) -> Target:
    """A share of `of` cells that must not be under `bound`."""
    met = None if value is None else value >= bound
    return Target(what=what, target=f"at least {percent(bound)}" if bound < 1 else "all", result=counted(value, of, beside=bound), met=met)


def none_of(what: str, count: int) -> Target:
    """A number that must be 0."""
    return Target(what=what, target="none", result=str(count), met=count == 0)


def counted(share: float | None, of: int, *, beside: float | None = None) -> str:
    """A share of `of` with its count: '66 of 70 (94%)', which a rounded share alone would hide."""
    return NOT_MEASURED if share is None else f"{round(share * of)} of {of} ({percent(share, beside=beside)})"


def percent(share: float | None, *, beside: float | None = None) -> str:
    """0.0312 -> '3.1%'; small shares keep two digits, and one near the bound `beside` as many as show on which side of it it is."""
    if share is None:
        return NOT_MEASURED
    value = 100 * share
    for decimals in range(6):
        shown = f"{value:.{decimals}f}"
        enough = abs(value) >= 10 ** (1 - decimals) or round(value, decimals) == value
        if enough and (beside is None or _side(float(shown), 100 * beside) == _side(value, 100 * beside)):
            return f"{shown}%"
        if decimals == 3 and not enough:
            return "under 0.001%"
    return f"{shown}%"


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)


def off(value: float, known: float) -> float:
    """How far a value is from the known one, as a share of that, without its sign."""
    return abs(value / known - 1)


def median(values: Iterable[float]) -> float | None:
    """The median; None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def share(found: Iterable[bool]) -> float | None:
    """Which share is true; None of nothing."""
    told = list(found)
    return sum(told) / len(told) if told else None


def overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two intervals (low, high) have a point in common."""
    return first[0] <= second[1] and second[0] <= first[1]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns after the first are set to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
