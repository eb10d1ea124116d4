"""Figures of accuracy against a cost: a point an operator with its intervals, named where it lies. Draws what it is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lisabench.render.callouts import place_callouts
from lisabench.render.curves import SUBJECT_WEIGHT, layer_of
from lisabench.render.labels import Box, Ending, Occupied, Placed, Points
from lisabench.render.marks import Axis, Mark, Panel, cost_limits, cost_ticks, extent, is_below, padded_limits, shows_chance
from lisabench.render.page import INK, Page, Sign, Ticks, columns_of, marker_of
from lisabench.render.palette import LEADING, Font, Style, text_size, wrap
from lisabench.render.plane import Plane, add_axes, page_of, round_ticks, texts_of, width_of

_MARKER = 4.2
_RIM, _MOST_RIMS = 2.8, 3  # points by which a marker is larger for each that lies upon it
_TOP = 10  # the layer of the first marker: above all intervals
_GROWTH = (1.0, 1.3, 1.7, 2.2)  # heights to try until every name has its place, in usual heights
_FEW_LINES = 0.2  # share of the names that may stand off
_TALLEST = 540.0  # points for all rows together: what a page leaves beside a caption


@dataclass(frozen=True)
class _Try:
    """A way to lay a figure out: panels side by side, and a panel's height."""

    columns: int
    height: float


@dataclass(frozen=True)
class _Sheet:
    page: Page
    planes: tuple[Plane, ...]
    ticks: tuple[tuple[Ticks, Ticks], ...]
    names: tuple[tuple[Placed | None, ...], ...]
    narrow: float


def _tries(panels: int, style: Style) -> list[_Try]:
    """The lowest figure first, up to a page's height."""
    usual, tries = columns_of(panels, style), list[_Try]()
    for columns in range(usual, 0, -1):
        rows = -(-panels // columns)
        if columns < usual and rows * 110 > _TALLEST:
            break
        height = float(np.clip(0.62 * (style.width * 72 - 40) / columns, min(125, _TALLEST / rows), 190))
        tries += [_Try(columns, min(growth * height, max(110, _TALLEST / rows))) for growth in _GROWTH]
    tries.sort(key=lambda way: (-(-panels // way.columns) * way.height, -way.columns))
    return list(dict.fromkeys(tries))


def _layout(
    panels: Sequence[Panel], axis: Axis, note: Sequence[str], style: Style, key: Sequence[Sign], way: _Try, *, aside: bool = False
) -> _Sheet:
    """Measures everything and gives every name its place."""
    small, bold = style.font(style.text - 0.5), style.font(style.text - 0.5, weight="bold")
    narrow = min(0.38 * (style.width * 72 - 40) / way.columns, 110)
    gutter, height = 0.0, way.height
    if aside:
        sizes = [[text_size(_wrapped(mark.label, narrow, bold), bold) for mark in panel.marks] for panel in panels]
        gutter = 16 + max(size[0] for part in sizes for size in part)
        height = max(height, *(sum(size[1] for size in part) for part in sizes))
    limits = [padded_limits(extent(panel), height) for panel in panels]
    y_ticks = [round_ticks(*limit, max(3, int(height / 22))) for limit in limits]
    y_ticks = [[tick for tick in ticks if -1e-9 <= tick <= 1 + 1e-9] for ticks in y_ticks]
    y_texts = [texts_of(ticks, percent=True) for ticks in y_ticks]
    width = width_of([text for texts in y_texts for text in texts], style)
    titles = [panel.title for panel in panels]
    page = page_of(titles, note, style, columns=way.columns, tick_width=width, named=True, gutter=gutter, height=height, key=key)
    planes = tuple(
        Plane(box, cost_limits(panel, page.across), limit, log=True) for panel, box, limit in zip(panels, page.boxes, limits, strict=True)
    )
    reach = page.size[0] - 2
    ticks = tuple(
        (cost_ticks(plane, axis, small, reach), (places, texts)) for plane, places, texts in zip(planes, y_ticks, y_texts, strict=True)
    )
    names = tuple(tuple(_place(panel, plane, narrow, style)) for panel, plane in zip(panels, planes, strict=True))
    return _Sheet(page, planes, ticks, names, narrow)


def _wrapped(text: str, width: float, font: Font) -> str:
    return wrap(re.split(r"(?<=[,:/])|(?= \()", text), "", width, font)


def _name_font(style: Style, mark: Mark) -> Font:
    return style.font(style.text - 0.5, weight="bold" if mark.manner.weight == SUBJECT_WEIGHT else "normal")


def _point(mark: Mark, plane: Plane) -> tuple[float, float]:
    """Where the marker lies, on the page; of one below the axis at its lower edge."""
    x, y = plane.at([mark.cost.median], [mark.accuracy.median])[0]
    return float(x), float(max(y, plane.box.bottom + 4))


def _name(mark: Mark, panel: Panel) -> str:
    return f"{mark.label} ({100 * mark.accuracy.median:.1f}%)" if is_below(mark, panel) else mark.label


def _place(panel: Panel, plane: Plane, narrow: float, style: Style) -> list[Placed | None]:
    occupied, faint = Occupied(plane.box), Occupied(plane.box)
    points = [_point(mark, plane) for mark in panel.marks]
    for mark, point in zip(panel.marks, points, strict=True):
        occupied.add_path(np.array([point]), radius=_MARKER / 2 + 1)
        for line in _bars(mark, panel, plane):
            occupied.add_path(line, radius=1)
    if panel.front:
        occupied.add_path(_inside(plane.at(*_steps(panel, plane).T), plane.box), radius=1)
    if shows_chance(panel):
        faint.add_path(plane.at(plane.x, np.full(2, panel.chance)), radius=1)
    endings = []
    for mark, point in zip(panel.marks, points, strict=True):
        font = _name_font(style, mark)
        endings.append(Ending(point, _wrapped(_name(mark, panel), narrow, font), font))
    foreign = [np.array([point for place, point in enumerate(points) if place != own]).reshape(-1, 2) for own in range(len(points))]
    return place_callouts(occupied, endings, foreign, (), faint, strict=True)


def _steps(panel: Panel, plane: Plane) -> Points:
    """The corners of the line that nothing lies above and left of: flat to the right of each point of the front."""
    corners = []
    for place, (x, y) in enumerate(panel.front):
        corners += [(x, y), (panel.front[place + 1][0] if place + 1 < len(panel.front) else plane.x[1], y)]
    return np.array(corners)


def _inside(points: Points, box: Box) -> Points:
    return np.clip(points, [box.left, box.bottom], [box.right, box.top])


def _bars(mark: Mark, panel: Panel, plane: Plane) -> list[Points]:
    """The intervals that are longer than the marker, as lines on the page within the panel: of the cost, of the accuracy."""
    if is_below(mark, panel):
        return []
    lines = []
    for ends in (
        plane.at([mark.cost.low, mark.cost.high], [mark.accuracy.median] * 2),
        plane.at([mark.cost.median] * 2, [mark.accuracy.low, mark.accuracy.high]),
    ):
        if np.isfinite(ends).all() and np.hypot(*(ends[1] - ends[0])) > _MARKER + 1.5:
            lines.append(_inside(ends, plane.box))
    return lines


def _draw_panel(figure: Figure, sheet: _Sheet, panel: Panel, index: int, names: tuple[str, str]) -> None:
    page, plane = sheet.page, sheet.planes[index]
    axes = add_axes(page, figure, index, plane, ticks=sheet.ticks[index], names=names)
    if panel.front:
        axes.plot(*_steps(panel, plane).T, color="#A8A8A8", linewidth=0.7, zorder=1.2, gid="front")
    if shows_chance(panel):
        axes.plot(plane.x, np.full(2, panel.chance), color=INK, linewidth=0.7, linestyle=":", zorder=1.1, gid="chance")
    for place, (mark, size) in enumerate(stacked(panel, plane)):
        _draw_mark(page, figure, mark, panel, plane, size=size, layer=_TOP + place)
    for mark, placed in zip(panel.marks, sheet.names[index], strict=True):
        if placed:
            page.write(figure, placed, f"series-label:{mark.label}", mark.manner.look.ink)
        if placed and placed.leader is not None:
            page.line(figure, placed.leader, color=mark.manner.look.ink, linewidth=0.35, gid="leader", zorder=1)
    _draw_column(figure, sheet, panel, index)


def stacked(panel: Panel, plane: Plane) -> list[tuple[Mark, float]]:
    """The marks as they are drawn, one over the other, with their sizes: one that others lie upon is larger, so that each is seen."""
    ordered = sorted(panel.marks, key=lambda mark: layer_of(mark.manner.weight))
    points = np.array([_point(mark, plane) for mark in ordered])
    upon = [int((np.hypot(*(points[place + 1 :] - point).T) < _MARKER * 0.75).sum()) for place, point in enumerate(points)]
    return [(mark, _MARKER + _RIM * min(count, _MOST_RIMS)) for mark, count in zip(ordered, upon, strict=True)]


def _draw_mark(page: Page, figure: Figure, mark: Mark, panel: Panel, plane: Plane, *, size: float, layer: float) -> None:
    """The intervals under all points; a point with a white rim, which parts it from those that it lies upon."""
    look, box = mark.manner.look, plane.box
    for line in _bars(mark, panel, plane):
        cap = "|" if line[0, 1] == line[1, 1] else "_"
        # A bar that runs out of the panel has no cap there.
        ends = [place for place, (x, y) in enumerate(line) if box.left < x < box.right and box.bottom < y < box.top]
        drawn: dict[str, Any] = {"color": look.colour, "linewidth": 0.6, "marker": cap, "markersize": 3, "markevery": ends}
        page.line(figure, line, **drawn, zorder=3 + layer_of(mark.manner.weight), gid=f"interval:{mark.label}")
    x, y = _point(mark, plane)
    if is_below(mark, panel):
        page.line(figure, [(x, y), (x, y - 7)], color=look.colour, linewidth=0.8, zorder=layer, gid=f"below:{mark.label}")
    rim = replace(look, colour="#FFFFFF", fill="full")
    page.line(figure, [(x, y)], color="#FFFFFF", linestyle="", zorder=layer, gid="rim", **marker_of(rim, size + 1.4))
    page.line(figure, [(x, y)], color=look.colour, linestyle="", zorder=layer + 0.5, gid=f"point:{mark.label}", **marker_of(look, size))


def _draw_column(figure: Figure, sheet: _Sheet, panel: Panel, index: int) -> None:
    """Names that had no place in the panel, right of it: with their markers, the most accurate first."""
    page, plane = sheet.page, sheet.planes[index]
    top = plane.box.top
    unplaced = [mark for mark, placed in zip(panel.marks, sheet.names[index], strict=True) if not placed]
    for mark in sorted(unplaced, key=lambda mark: -mark.accuracy.median):
        font = _name_font(page.style, mark)
        said = _wrapped(_name(mark, panel), sheet.narrow, font)
        width, height = text_size(said, font)
        page.line(
            figure,
            [(plane.box.right + 7, top - LEADING * font.points / 2)],
            color=mark.manner.look.colour,
            gid=f"legend:{mark.label}",
            **marker_of(mark.manner.look, _MARKER),
        )
        place = Box(plane.box.right + 12, top - height, plane.box.right + 12 + width, top)
        page.write(figure, Placed(said, font, place), f"series-label:{mark.label}", mark.manner.look.ink)
        top -= height


def _best(layouts: Sequence[Callable[..., _Sheet]]) -> _Sheet:
    """The first layout in which every name has its place and few stand off; else that with the fewest lines to names; else, where one
    has no room in any, that with the fewest such names, and a column for them."""
    whole: list[tuple[int, _Sheet]] = []
    without = list[int]()
    for layout in layouts:
        sheet = layout()
        placed = [name for names in sheet.names for name in names]
        without.append(placed.count(None))
        lines = sum(name is not None and name.leader is not None for name in placed)
        if None not in placed:
            if lines <= len(placed) * _FEW_LINES:
                return sheet
            whole.append((lines, sheet))
    return min(whole, key=lambda found: found[0])[1] if whole else layouts[without.index(min(without))](aside=True)


def draw_panels(panels: Sequence[Panel], axis: Axis, note: Sequence[str], style: Style, key: Sequence[Sign] = ()) -> Figure:
    """A panel a data set: as tall as it takes to name every point in place, within a page's height; then, names in a column."""
    with mpl.rc_context(style.settings):
        sheet = _best([partial(_layout, panels, axis, note, style, key, way) for way in _tries(len(panels), style)])
        figure = sheet.page.start()
        for index, panel in enumerate(panels):
            _draw_panel(figure, sheet, panel, index, (axis.name, "Top-1 test accuracy"))
        sheet.page.write_key(figure)
        sheet.page.write_footnote(figure)
    return figure
