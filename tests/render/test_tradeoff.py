"""Figures of accuracy against a cost: which point a name belongs to, points that lie upon others, round ticks within the page."""

from __future__ import annotations

import numpy as np
import pytest
from field_figures import lines
from made_trainings import ABLATION, accuracies, write_run

from lisabench.analysis.accuracy import Series, Span, summarise
from lisabench.render import accuracy
from lisabench.render.callouts import place_callouts
from lisabench.render.labels import Box, Ending, Occupied, Points, along
from lisabench.render.marks import Mark, Panel, cost_ticks
from lisabench.render.palette import CVPR_FULL, Look
from lisabench.render.plane import Plane
from lisabench.render.tradeoff import stacked
from lisabench.render.variants import Manner

COSTS = {cost.name: cost for cost in accuracy.COSTS}


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    return summarise([write_run(tmp_path_factory.mktemp("ablation") / "run", accuracies(ABLATION, spread=0.01))])


def passed(points: Points, *, strict: bool) -> int:
    """How many foreign points the lines to the names of these run through."""
    occupied, font = Occupied(Box(0, 0, 300, 160)), CVPR_FULL.font(7)
    for point in points:
        occupied.add_path(point[None], radius=3)
    wanted = [Ending((float(x), float(y)), f"operator {place}", font) for place, (x, y) in enumerate(points)]
    placed = place_callouts(occupied, wanted, [np.delete(points, place, axis=0) for place in range(len(points))], strict=strict)
    count = 0
    for place, name in enumerate(placed):
        if name and name.leader is not None:
            others = points[np.hypot(*(points - points[place]).T) > 1]  # a point at the same place is no other one
            apart = along(name.leader)[:, None] - others[None]
            count += int((np.hypot(apart[..., 0], apart[..., 1]).min(axis=0) < 3.5).sum())
    return count


def test_in_a_crowd_no_line_runs_through_a_foreign_point() -> None:
    crowds = [np.random.default_rng(seed).normal((150, 80), (9, 22), (12, 2)) for seed in range(6)]
    assert sum(passed(points, strict=False) for points in crowds) > 0
    assert sum(passed(points, strict=True) for points in crowds) == 0


def test_no_line_to_a_name_runs_through_a_foreign_point(ablation: list[Series]) -> None:
    seen = 0
    for cost in ("flops", "latency", "parameters"):
        figure = accuracy.draw(ablation, COSTS[cost])
        assert figure is not None
        size = 72 * figure.get_size_inches()
        points = np.array([np.column_stack(line.get_data())[0] for one in ablation for line in lines(figure, f"point:{one.label}")]) * size
        for line in lines(figure, "leader"):
            seen += 1
            start, end = np.column_stack(line.get_data()) * size
            way = (end - start) / np.hypot(*(end - start))
            own = start - 3 * way  # a line begins 3 points off the point that it leads from
            assert np.hypot(*(points - own).T).min() < 0.1
            others = points[np.hypot(*(points - own).T) > 1.0]
            along = np.clip((others - start) @ way, 0, np.hypot(*(end - start)))
            assert np.hypot(*(start + along[:, None] * way - others).T).min() > 4
    assert seen > 4


def test_a_marker_under_another_is_larger() -> None:
    manner = Manner(Look("#000000", "o"), "-", 1.0)
    marks = [
        Mark(str(place), manner, Span(1.0, np.nan, np.nan), Span(mean, mean, mean)) for place, mean in enumerate([0.9, 0.9, 0.9, 0.95])
    ]
    stack = Panel((), tuple(marks), (), None)
    plane = Plane(Box(0, 0, 300, 100), (0.5, 2.0), (0.88, 0.96), log=True)
    sizes = [size for _, size in stacked(stack, plane)]
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (740, 2500, ["768 KiB", "1.00 MiB", "1.25 MiB", "1.50 MiB", "1.75 MiB", "2.00 MiB", "2.25 MiB"]),
        (100, 9000, ["128 KiB", "256 KiB", "512 KiB", "1.00 MiB", "2.00 MiB", "4.00 MiB", "8.00 MiB"]),
        (1040, 1360, ["1.05 MiB", "1.10 MiB", "1.15 MiB", "1.20 MiB", "1.25 MiB", "1.30 MiB"]),
        (990, 1290, ["1.00 MiB", "1.05 MiB", "1.10 MiB", "1.15 MiB", "1.20 MiB", "1.25 MiB"]),
    ],
)
def test_ticks_of_memory_are_round_in_their_unit(low: float, high: float, expected: list[str]) -> None:
    plane = Plane(Box(0, 0, 900, 100), (1024 * low, 1024 * high), (0, 1), log=True)
    places, told = cost_ticks(plane, COSTS["memory"].axis, CVPR_FULL.font(7))
    assert list(told) == expected
    assert len(places) == len(told)


def test_no_text_of_a_tick_leaves_the_page(ablation: list[Series]) -> None:
    plane = Plane(Box(0, 0, 500, 100), (0.95e6, 3.51e6), (0, 1), log=True)
    places, told = cost_ticks(plane, COSTS["flops"].axis, CVPR_FULL.font(7), 502)
    assert (places[-1], told[0], told[-1]) == (3.5e6, "1.0 MFLOP", "")
    figure = accuracy.draw(ablation, COSTS["latency"])
    assert figure is not None
    figure.canvas.draw()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.get_xticklabels() if text.get_text()]
    assert boxes
    assert all(0 <= box.x0 <= box.x1 <= figure.bbox.width for box in boxes)
