"""Figures of one measured quantity against another, both axes logarithmic: an operator's points joined in the order of tokens, growing
with them, and named where there are most. Draws what it is given; `roofline` and `error` say what that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisabench.render.callouts import halved, place_callouts, place_pairs, place_roof
from lisabench.render.context import draw_context
from lisabench.render.curves import SUBJECT_WEIGHT, layer_of
from lisabench.render.labels import Area, Box, Ending, Occupied, Placed, Points
from lisabench.render.page import INK, Page, Ticks, arrange, columns_of, marker_of
from lisabench.render.palette import LEADING, Font, Style, padded, text_size, value_ticks, wrap
from lisabench.render.traces import Field, Plot, Roof, Trace, token_texts, tokens_of

_PAD = 8.0  # points between the outermost data and the edges of a panel
_GAP = 12.0  # points between panels: room for half a tick's text of each
_ROOF = INK
_GROWTH = (1.0, 1.3, 1.7, 2.2)  # heights to try until every name has its place, in usual heights
# Points for all rows together: what a page leaves beside a caption; of small panels, which have more titles; and for a row of those.
_TALLEST, _TALLEST_SMALL, _FLATTEST = 560.0, 420.0, 60.0
_FEW = 6  # traces in a panel whose token counts are written
_FLAT = 0.15  # share of the width that is right of every ridge, where there is one
_SMALLEST, _LARGEST = 2.2, 4.4  # markers


@dataclass(frozen=True)
class _Texts:
    """What is written in a panel and where: by the roof's parts, each trace's name (None for no room), and token counts by trace."""

    roof: tuple[Placed | None, ...]
    names: tuple[Placed | None, ...]
    counts: tuple[tuple[int, Placed], ...]

    @property
    def whole(self) -> bool:
        """Whether everything that must be said has a place in the panel."""
        return all([*self.roof, *self.names])


@dataclass(frozen=True)
class _Sheet:
    page: Page
    plot: Plot
    fields: tuple[Field, ...]
    areas: tuple[Area, ...]
    texts: tuple[_Texts, ...]
    x_ticks: Ticks
    y_ticks: Ticks
    sizes: dict[int, float]
    narrow: float


def _small(fields: Sequence[Field]) -> bool:
    """Whether these are small multiples: each shows a part of what there is."""
    return any(field.context for field in fields)


def _name_font(style: Style, one: Trace) -> Font:
    return style.font(style.text - 0.5, weight="bold" if one.variant.weight >= SUBJECT_WEIGHT else "normal")


def _wrapped(text: str, width: float, font: Font) -> str:
    return wrap(re.split(r"(?<=[,:/])|(?= \()", text), "", width, font)


def _limits(fields: Sequence[Field], width: float, height: float, style: Style) -> tuple[tuple[float, float], tuple[float, float]]:
    """The limits of x and y: all data are inside, of a roof its ridge with enough of both parts that they can be named."""
    roofs = [field.roof for field in fields if field.roof]
    traces = [one for field in fields for one in field.traces]
    xs = np.concatenate([*(np.concatenate([one.x, one.spans.ravel(), one.others[:, 0]]) for one in traces), [roof.ridge for roof in roofs]])
    ys = np.concatenate([*(np.concatenate([one.y, one.others[:, 1]]) for one in traces), *([roof.peak, roof.peak / 8] for roof in roofs)])
    room = LEADING * style.text + 6  # a name over the highest point, or over the roof
    low, high = padded(float(np.nanmin(xs)), float(np.nanmax(xs)), width, _PAD, least=6)
    if roofs:
        texts = [roof.slope_text for roof in roofs]
        one, two = (max(text_size(text, style.font(style.small))[0] for text in said) for said in (texts, [halved(text) for text in texts]))
        need = min(one + 10, max(0.25 * width, two + 10)) / width  # of the width is left of every ridge
        first, last = min(roof.ridge for roof in roofs), max(roof.ridge for roof in roofs)
        high = max(high, float(low * (last / low) ** (1 / (1 - _FLAT))))
        low = min(low, float(np.exp((np.log(first) - need * np.log(high)) / (1 - need))))
    return (low, high), padded(float(ys.min()), float(ys.max()), height, room, least=6)


def _x_ticks(plot: Plot, area: Area, font: Font) -> Ticks:
    """Round values, as many as have room for their texts; none whose text would reach far out of the panel."""
    for most in range(7, 0, -1):
        ticks = value_ticks(*area.tokens, 10, most)
        texts = [plot.x_text(tick) for tick in ticks]
        centres = area.at(ticks, np.full(len(ticks), area.values[0]))[:, 0]
        halves = np.array([text_size(text, font)[0] / 2 for text in texts])
        if (np.diff(centres) > halves[1:] + halves[:-1] + 4).all():
            break
    else:
        texts = [*[""] * (len(texts) - 1), texts[-1]]
    inside = (centres - halves > area.box.left - _GAP / 2) & (centres + halves < area.box.right + _GAP / 2 - 2)
    return ticks, [text if shown else "" for text, shown in zip(texts, inside, strict=True)]


@dataclass(frozen=True)
class _Try:
    """A way to lay a figure out: panels side by side, a panel's height, and whether names without a place go right of the panels."""

    columns: int
    height: float
    aside: bool = False


def _tries(panels: int, style: Style, *, small: bool) -> list[_Try]:
    """As small as it can be, then taller, then fewer side by side, all within a page; at last with names aside."""
    usual, tries = columns_of(panels, style, small=small), list[_Try]()
    tallest = _TALLEST_SMALL if small else _TALLEST
    for columns in range(usual, 0, -1):
        rows = -(-panels // columns)
        if columns < usual and rows * (_FLATTEST if small else 125) > tallest:
            break
        height = float(np.clip(0.62 * (style.width * 72 - 40) / columns, min(125, tallest / rows), tallest / rows if small else 190))
        tries += [_Try(columns, min(growth * height, max(height if small else 125, tallest / rows))) for growth in _GROWTH]
    last = _Try(1, max(_FLATTEST, tallest / panels)) if small else tries[-3]
    return [*dict.fromkeys(tries), replace(last, aside=True)]


def _layout(plot: Plot, fields: Sequence[Field], note: Sequence[str], style: Style, way: _Try) -> _Sheet:
    """Measures everything and gives every text its place."""
    font = style.font(style.text - 0.5, weight="bold")  # the widest that a label can be
    cell, height = (style.width * 72 - 40) / way.columns, way.height
    narrow = min((0.5 if _small(fields) else 0.38) * cell, 100)
    labels = {one.variant.label: _wrapped(one.variant.label, narrow, font) for field in fields for one in field.traces}
    gutter = 0.0
    if way.aside:
        fine = style.font(style.small)
        roofs = [halved(text) for field in fields if field.roof for text in (field.roof.peak_text, field.roof.slope_text)]
        gutter = 22 + max([text_size(text, font)[0] for text in labels.values()] + [text_size(text, fine)[0] - 12 for text in roofs])
        height = max(
            height,
            *(
                (0 if _small(fields) else 40) + sum(text_size(labels[one.variant.label], font)[1] for one in field.traces)
                for field in fields
            ),
        )
    y_limits = _limits(fields, cell, height, style)[1]
    y_ticks = value_ticks(*y_limits, 10)
    left = 1.2 * style.text + 8 + max(text_size(plot.y_text(tick), font)[0] for tick in y_ticks)
    titles, small = [field.title for field in fields], _small(fields)
    page = arrange(titles, note, style, columns=way.columns, left=left, gutter=gutter, height=height, gap=_GAP, key=plot.key, small=small)
    x_limits = _limits(fields, page.across, height, style)[0]
    areas = tuple(Area(box, x_limits, y_limits) for box in page.boxes)
    tokens = tokens_of(fields)
    share = np.log(np.divide(tokens, tokens[0])) / np.log(tokens[-1] / tokens[0]) if len(tokens) > 1 else np.array([0.7])
    sizes = dict(zip(tokens, (_SMALLEST + share * (_LARGEST - _SMALLEST)).tolist(), strict=True))
    texts = tuple(_place(field, area, labels, sizes, style) for field, area in zip(fields, areas, strict=True))
    x_ticks = _x_ticks(plot, areas[0], style.font(style.text - 0.5))
    return _Sheet(page, plot, tuple(fields), areas, texts, x_ticks, (y_ticks, [plot.y_text(tick) for tick in y_ticks]), sizes, narrow)


def _place(field: Field, area: Area, labels: dict[str, str], sizes: dict[int, float], style: Style) -> _Texts:
    """Places for a panel's texts: first the roof's, then the names, then first and last token counts where there still is room."""
    occupied, faint = Occupied(area.box), Occupied(area.box)
    for one in field.context:
        faint.add_path(area.at(one.x, one.y), radius=1)
    for one in field.known:
        occupied.add_path(area.at(one.x, one.y), radius=2)
    paths = [area.at(one.x, one.y) for one in field.traces]
    for one, path in zip(field.traces, paths, strict=True):
        occupied.add_path(path, radius=1)
        for count, point in zip(one.tokens, path, strict=True):
            occupied.add_path(point[None], radius=sizes[int(count)] / 2 + 1)
        for point in area.at(*one.others.T):
            occupied.add_path(point[None], radius=_SMALLEST)
        for (low, high), y in zip(one.spans, one.y, strict=True):
            if low > 0:
                occupied.add_path(area.at([low, high], [y, y]), radius=1)
    roof: list[Placed | None] = []
    if field.roof:
        line = _roof_line(field.roof, area)
        occupied.add_path(area.at(*line.T), radius=1)
        roof = place_roof(occupied, (field.roof.peak_text, field.roof.slope_text), area.at(*line.T), style.font(style.small))
    endings = [
        Ending((float(path[-1, 0]), float(path[-1, 1])), labels[one.variant.label], _name_font(style, one))
        for one, path in zip(field.traces, paths, strict=True)
    ]
    foreign = [np.concatenate([np.empty((0, 2)), *(path for path in paths if path is not own)]) for own in paths]
    names = place_callouts(occupied, endings, foreign, [placed.box for placed in roof if placed], faint)
    fine = style.font(style.small)
    few = len(field.traces) <= _FEW and not field.context  # of many, only what stands out: the others' counts would hide more than they say
    long = [index for index, one in enumerate(field.traces) if len(one.tokens) > 1 and (few or one.variant.weight > 1)]
    pairs = []
    for index in long:
        texts = token_texts([int(count) for count in field.traces[index].tokens], style)
        first, last = paths[index][0].tolist(), paths[index][-1].tolist()
        pairs.append((Ending(tuple(first), texts[0], fine), Ending(tuple(last), texts[-1], fine)))
    counts = place_pairs(occupied, pairs)
    return _Texts(tuple(roof), tuple(names), tuple((long[pair], placed) for pair, placed in counts))


def _roof_line(roof: Roof, area: Area) -> Points:
    """The corners of the roof in x and y, as far as the panel shows it."""
    low, high = area.tokens
    corners = sorted({max(low, min(area.values[0] / roof.slope, roof.ridge)), min(max(roof.ridge, low), high), high})
    return np.array([(x, min(roof.peak, roof.slope * x)) for x in corners])


def _draw_trace(axes: Axes, sheet: _Sheet, area: Area, one: Trace) -> None:
    """Points that grow with the tokens, joined thinly, with intervals where they are wider than their point."""
    colour, label, layer = one.look.colour, one.variant.label, 2 + layer_of(one.variant.weight)
    line: dict[str, Any] = {"linestyle": one.variant.dashes, "linewidth": 0.55 * one.variant.weight, "gid": f"series:{label}"}
    axes.plot(one.x, one.y, color=colour, zorder=layer, **line)
    for x, y, (low, high), count in zip(one.x, one.y, one.spans, one.tokens, strict=True):
        size = sheet.sizes[int(count)]
        ends = area.at([low, high], [y, y])[:, 0]
        if ends[1] - ends[0] > size + 1.5:
            axes.plot([low, high], [y, y], color=colour, linewidth=0.6, marker="|", markersize=3, zorder=layer, gid=f"interval:{label}")
        axes.plot([x], [y], color=colour, linestyle="", zorder=layer, gid=f"point:{label}", **marker_of(one.look, size))
    axes.plot(*one.others.T, color=colour, linestyle="", zorder=layer, gid=f"other-grid:{label}", **marker_of(one.look, _SMALLEST))


def _draw_panel(figure: Figure, sheet: _Sheet, index: int) -> None:
    page, plot, field, area, texts = sheet.page, sheet.plot, sheet.fields[index], sheet.areas[index], sheet.texts[index]
    limits, ticks = (area.tokens, area.values), (sheet.x_ticks, sheet.y_ticks)
    axes = page.add_axes(figure, index, limits=limits, ticks=ticks, names=(plot.x_axis, plot.y_axis))
    if field.roof:
        corners = _roof_line(field.roof, area)
        axes.fill_between(corners[:, 0], corners[:, 1], area.values[1], color="#F5F5F5", linewidth=0, zorder=0, gid="above-roof")
        axes.plot(*corners.T, color=_ROOF, linewidth=1.0, zorder=1.5, gid="roof")
    draw_context(axes, ((one.label, one.x, one.y) for one in field.context), marker="o", markersize=1.2)
    for one in field.known:
        line: dict[str, Any] = {"linestyle": one.variant.dashes, "linewidth": 0.5, "zorder": 2, "gid": f"known:{one.label}"}
        axes.plot(one.x, one.y, color=one.look.colour, **line, **marker_of(one.look, 1.8))
    for one in field.traces:
        _draw_trace(axes, sheet, area, one)
    for placed in texts.roof:
        if placed:
            page.write(figure, placed, "roof-label", _ROOF)
    for one, placed in zip(field.traces, texts.names, strict=True):
        if placed:
            page.write(figure, placed, f"series-label:{one.variant.label}", one.look.ink)
        if placed and placed.leader is not None:
            page.line(figure, placed.leader, color=one.look.ink, linewidth=0.35, gid="leader", zorder=1)
    for trace_index, placed in texts.counts:
        page.write(figure, placed, "tokens", field.traces[trace_index].look.ink)
    _draw_column(figure, sheet, index)


def _draw_column(figure: Figure, sheet: _Sheet, index: int) -> None:
    """What had no place in the panel, right of it: markers with their names, high points first."""
    page, field, texts, box = sheet.page, sheet.fields[index], sheet.texts[index], sheet.areas[index].box
    top = box.top
    for text, placed in zip((field.roof.peak_text, field.roof.slope_text) if field.roof else (), texts.roof, strict=True):
        if not placed:
            font = page.style.font(page.style.small)
            said = halved(text)
            width, height = text_size(said, font)
            page.write(figure, Placed(said, font, Box(box.right + 6, top - height, box.right + 6 + width, top)), "roof-label", _ROOF)
            top -= height
    unplaced = [one for one, placed in zip(field.traces, texts.names, strict=True) if not placed]
    for one in sorted(unplaced, key=lambda one: -one.y[-1]):
        font = _name_font(page.style, one)
        said = _wrapped(one.variant.label, sheet.narrow, font)
        width, height = text_size(said, font)
        y, line = top - height / 2, {"color": one.look.colour, "linewidth": 0.55 * one.variant.weight}
        page.line(figure, [(box.right + 4, y), (box.right + 17, y)], linestyle=one.variant.dashes, gid="legend-line", **line)
        page.line(figure, [(box.right + 10.5, y)], gid=f"legend:{one.variant.label}", **line, **marker_of(one.look, _LARGEST))
        place = Box(box.right + 20, top - height, box.right + 20 + width, top)
        page.write(figure, Placed(said, font, place), f"series-label:{one.variant.label}", one.look.ink)
        top -= height


def draw_fields(plot: Plot, fields: Sequence[Field], note: Sequence[str], style: Style) -> Figure:
    """A panel a field: as tall as it takes to name every point in place, within a page's height; then, names in a column."""
    with mpl.rc_context(style.settings):
        for way in _tries(len(fields), style, small=_small(fields)):
            sheet = _layout(plot, fields, note, style, way)
            if all(texts.whole for texts in sheet.texts):
                break
        figure = sheet.page.start()
        for index in range(len(fields)):
            _draw_panel(figure, sheet, index)
        sheet.page.write_key(figure)
        sheet.page.write_footnote(figure)
    return figure
