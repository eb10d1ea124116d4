"""A plan as it is stated on disk, and the visits that it means."""

from __future__ import annotations

import json

import pytest

from lisabench.axes import resolve_operators
from lisabench.cli.planning import plan_of
from lisabench.errors import InputError
from lisabench.plans import Listed, Visits, stated, sweeps_of, visits_of
from lisabench.presets import Shape
from lisabench.sweep import Sweep
from lisabench.workload import Grid

SHAPES = (Shape(grid=Grid(4, 4), dim=32, heads=2), Shape(grid=Grid(3, 7), dim=64, heads=4))


def sweep(ops: str = "lisa,softmax", **axes: object) -> Sweep:
    return Sweep(ops=tuple(resolve_operators([ops], None, [])), shapes=SHAPES, **axes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "axes", [{}, {"kinds": ("a", "b"), "share": (2, 3), "batches": (4, 1), "modes": ("train",), "seed": 3}], ids=["plain", "all"]
)
def test_a_plan_comes_back_from_disk_as_it_was(axes: dict[str, object]) -> None:
    of = sweep(**axes)
    plan = json.loads(json.dumps(plan_of(of, "softmax", 1, patch=None)))
    assert [cell.key for cell in visits_of(plan, run="run").cells()] == [cell.key for cell in of.cells()]
    assert plan["cells"] == of.count == len(of.cells())
    assert [stated(one) for one in sweeps_of(plan, run="run")] == plan["sweeps"]


def test_visits_of_several_sweeps_follow_each_other() -> None:
    parts = [sweep(), sweep("linear", kinds=("a", "b"))]
    visits = Visits(parts)
    assert [cell.key for cell in visits.cells()] == [cell.key for part in parts for cell in part.cells()]
    assert (len(visits), visits.count) == (6, 8)
    assert [visits.kind_of(place) for place in range(6)] == [None, None, "a", "a", "b", "b"]
    with pytest.raises(IndexError):
        visits[6]


def test_cells_that_are_there_already_make_visits_too() -> None:
    cells = sweep().cells()
    visits = Visits([Listed(cells)])
    assert list(visits.cells()) == cells
    assert [len(visit) for visit in visits] == [2, 2]


def test_a_plan_of_an_older_version_is_told() -> None:
    with pytest.raises(InputError, match="older lisabench"):
        visits_of({"operators": {}, "cells": [{"cell": "x"}]}, run="run")


def test_a_million_cells_are_made_where_they_are_wanted() -> None:
    shapes = tuple(Shape(grid=Grid(1, number), dim=32, heads=2) for number in range(1, 10_001))
    visits = Visits([Sweep(ops=tuple(resolve_operators(["identity"], None, [])), shapes=shapes, batches=tuple(range(1, 101)))])
    assert visits.count == 1_000_000
    (first,), (last,) = visits[0], visits[999_999]
    assert (first.workload.tokens, first.workload.batch) == (1, 1)
    assert (last.workload.tokens, last.workload.batch) == (10_000, 100)
