"""Scaling figures for a paper: latency, memory and FLOPs against tokens, log-log, as matplotlib figures and files.

Everything is laid out in points (1/72 inch) before matplotlib draws: only so can each text be given a place that is free. No pyplot and
no global state: a `Style` is a value, and matplotlib's settings hold only while a figure is drawn or saved.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisabench.errors import unknown
from lisabench.files import write_whole
from lisabench.render import labels
from lisabench.render.curves import QUANTITIES, SUBJECT_WEIGHT, Panel, Quantity, Series, complete, footnote, panels_of
from lisabench.render.labels import Area, Box, Ending, Occupied, Placed
from lisabench.render.palette import (
    CVPR_FULL,
    FAILURES,
    LEADING,
    Style,
    padded,
    text_size,
    token_labels,
    value_ticks,
    wrap,
)

# A font that is not there costs a line a text; the families below fall back to what matplotlib brings.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_DPI = 200


_TEXT_GAP = 7.0  # points between a panel and the labels on its right
_PAD = 6.0  # points between the outermost data and the edges of a panel


@dataclass(frozen=True)
class _Sheet:
    """A figure's measures in points, found before anything is drawn."""

    style: Style
    panels: tuple[Panel, ...]
    areas: tuple[Area, ...]
    bottom_row: tuple[bool, ...]
    titles: tuple[str, ...]
    labels: Mapping[str, str]
    footnote: str
    tokens: tuple[int, ...]
    size: tuple[float, float]

    def write(self, figure: Figure, placed: Placed, kind: str, colour: str) -> None:
        """Writes a text into its place; its gid says what it is."""
        at = placed.box.left / self.size[0], (placed.box.bottom + placed.box.top) / 2 / self.size[1]
        figure.text(
            *at,
            placed.text,
            fontproperties=placed.font.properties,
            va="center",
            linespacing=LEADING,
            color=colour,
            gid=kind,
            parse_math=False,
        )


def _layout(panels: list[Panel], quantity: Quantity, footnote: Sequence[str], style: Style) -> _Sheet:
    """Measures everything: as many panels side by side as keep 2 inches each, each as tall as its labels need."""
    font, small = style.font(style.text), style.font(style.small)
    label_font = style.font(style.text - 0.5, weight="bold")  # the widest that a label can be
    width = style.width * 72
    most = max(1, min(3, int(style.width / 2)))
    columns = min(most, len(panels)) if len(panels) != 4 else min(most, 2)
    rows = -(-len(panels) // columns)

    series = [one for panel in panels for one in panel.series]
    tokens = sorted({int(count) for one in series for count in [*one.tokens, one.end[0]]})
    values = np.concatenate([np.empty(0), *(part for one in series for part in (one.values, one.low, one.high, [one.end[1]]))])
    values = values[values > 0] if (values > 0).any() else np.array([1.0])

    cell = (width - 40) / columns
    narrow = min(0.38 * cell, 100)
    texts = {one.label: wrap(re.split(r"(?<=[,:/])|(?= \()", one.label), "", narrow, label_font) for one in series}
    suffixes = {one: f"\n({FAILURES[one.failure[0]][1]})" if one.failure else "" for one in series}
    sizes = {one: text_size(texts[one.label] + suffix, label_font) for one, suffix in suffixes.items()}
    height = max(float(np.clip(0.62 * cell, 125, 175)), *(10 + sum(sizes[one][1] for one in panel.series) for panel in panels))
    value_limits = padded(values.min(), values.max(), height, _PAD, least=6)
    ticks = [quantity.text(tick, 1) for tick in value_ticks(*value_limits, quantity.base)]
    left = 1.2 * style.text + 8 + max(text_size(tick, label_font)[0] for tick in ticks)
    cell = (width - left) / columns
    gutter = _TEXT_GAP + 3 + max([size[0] for size in sizes.values()], default=0)
    across = cell - gutter - 4
    token_limits = padded(tokens[0], tokens[-1], across, _PAD, least=1.1) if tokens else (1.0, 2.0)

    titles = [wrap(panel.title, ", ", cell - 8, font) for panel in panels]
    title_height = max(text_size(title, font)[1] for title in titles) + 3 if any(titles) else 3
    note = wrap(footnote, " · ", width - 4, small)
    note_height = text_size(note, small)[1]
    under = 2.4 * style.text + 8  # tick labels and the axis label
    has_axis = [index + columns >= len(panels) for index in range(len(panels))]
    top = note_height + 4
    bottoms: list[float] = [0.0] * rows
    for row in reversed(range(rows)):
        top += under if any(has_axis[row * columns : (row + 1) * columns]) else 6
        bottoms[row] = top
        top += height + title_height
    areas = []
    for index in range(len(panels)):
        x, y = left + index % columns * cell, bottoms[index // columns]
        areas.append(Area(Box(x, y, x + across, y + height), token_limits, value_limits))
    return _Sheet(style, tuple(panels), tuple(areas), tuple(has_axis), tuple(titles), texts, note, tuple(tokens), (width, top))


def _draw_axes(figure: Figure, axes: Axes, sheet: _Sheet, index: int, quantity: Quantity) -> None:
    """Scales, ticks, a light grid and what is written around them."""
    area, font, small = sheet.areas[index], sheet.style.font(sheet.style.text), sheet.style.font(sheet.style.text - 0.5)
    box = area.box
    axes.set(xscale="log", yscale="log", xlim=area.tokens, ylim=area.values)
    axes.minorticks_off()
    axes.grid(True, color="#E4E4E4", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, width=0.5, pad=2, labelsize=small.points)
    places = area.at(sheet.tokens, np.full(len(sheet.tokens), area.values[0]))[:, 0]
    shown = token_labels(sheet.tokens, places.tolist(), small)
    axes.set_xticks(sheet.tokens, shown if sheet.bottom_row[index] else [""] * len(shown))
    first = box.left == sheet.areas[0].box.left
    ticks = value_ticks(*area.values, quantity.base) if sheet.tokens else []
    axes.set_yticks(ticks, [quantity.text(tick, 1) if first else "" for tick in ticks])
    if sheet.bottom_row[index]:
        axes.set_xlabel("Tokens N", labelpad=2)
    if first:
        at = 0.65 * font.points / sheet.size[0], (box.bottom + box.top) / 2 / sheet.size[1]
        figure.text(*at, quantity.axis, fontproperties=font.properties, rotation=90, ha="center", va="center", gid="axis")
    if sheet.titles[index]:
        size = text_size(sheet.titles[index], font)
        place = Box(box.left, box.top + 3, box.left + size[0], box.top + 3 + size[1])
        sheet.write(figure, Placed(sheet.titles[index], font, place), "title", "black")


def _draw_series(axes: Axes, one: Series, end: tuple[float, float]) -> None:
    """A curve with its band and markers, and how it failed."""
    colour, fill, layer = one.look.colour, one.look.fill, 2 + one.layer
    marker: dict[str, Any] = {
        "marker": one.look.marker,
        "markersize": 3.8 if one.weight > 1 else 3.2,
        "markeredgewidth": 0.7,
        "fillstyle": fill,
    }
    marker |= {"markerfacecolor": "white" if fill == "none" else colour, "markerfacecoloralt": "white"}
    if np.isfinite(one.low).any():
        axes.fill_between(one.tokens, one.low, one.high, color=colour, alpha=0.22, linewidth=0, gid=f"band:{one.label}")
    line: dict[str, Any] = {"linestyle": one.dashes, "linewidth": one.weight, "gid": f"series:{one.label}"}
    axes.plot(one.tokens, one.values, color=colour, zorder=layer, **line, **marker)
    axes.plot(*one.other_grids.T, color=colour, linestyle="", zorder=layer, **marker)
    if one.failure:
        if len(one.tokens):
            axes.plot([one.tokens[-1], end[0]], [one.values[-1], end[1]], color=colour, linestyle=":", linewidth=0.8)
        shape, _ = FAILURES[one.failure[0]]
        mark: dict[str, Any] = {
            "marker": shape,
            "markersize": 4.2,
            "markeredgewidth": 1.1,
            "markerfacecolor": "white",
            "gid": f"failure:{one.label}",
        }
        axes.plot([end[0]], [end[1]], color=one.look.ink, linestyle="", zorder=6, **mark)


def _draw_panel(figure: Figure, sheet: _Sheet, index: int, quantity: Quantity) -> None:
    area, panel, style = sheet.areas[index], sheet.panels[index], sheet.style
    box, (width, height) = area.box, sheet.size
    axes = figure.add_axes((box.left / width, box.bottom / height, (box.right - box.left) / width, (box.top - box.bottom) / height))
    _draw_axes(figure, axes, sheet, index, quantity)
    if not panel.series:
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center", "color": "#666666"}
        axes.text(0.5, 0.5, "no finished cell", **middle, bbox=patch, gid="empty")
        return
    # A series that failed at once has no height of its own: it stands at the top.
    top = area.values[1] / (area.values[1] / area.values[0]) ** (_PAD / (box.top - box.bottom))
    occupied, far = Occupied(box), Occupied(box)
    endings = []
    for one in panel.series:
        end = one.end[0], one.end[1] if np.isfinite(one.end[1]) else top
        _draw_series(axes, one, end)
        path = area.at([*one.tokens, end[0]], [*one.values, end[1]])
        for raster, clear in ((occupied, 2), (far, 5)):
            raster.add_path(path, radius=clear)
            for point in (*path, *area.at(*one.other_grids.T)):
                raster.add_path(point[None], radius=clear + 1)
        font = style.font(style.text - 0.5, weight="bold" if one.weight >= SUBJECT_WEIGHT else "normal")
        endings.append(Ending(tuple(path[-1].tolist()), sheet.labels[one.label], font, FAILURES[one.failure[0]][1] if one.failure else ""))
    for text in _label_series(figure, sheet, panel, occupied, endings):
        far.add_box(text.box)
    if len(sheet.tokens) > 1:
        font = style.font(style.small, slant="italic")
        for guide in labels.guides(far, area, font):
            line: dict[str, Any] = {"color": "#8C8C8C", "linewidth": 0.6, "linestyle": (0, (3, 2)), "gid": f"guide:{guide.name}"}
            figure.add_artist(Line2D(guide.curve[:, 0] / width, guide.curve[:, 1] / height, zorder=1, **line))
            sheet.write(figure, Placed(guide.name, font, guide.label), "guide-label", "#666666")


def _label_series(figure: Figure, sheet: _Sheet, panel: Panel, occupied: Occupied, endings: list[Ending]) -> list[Placed]:
    """Names each curve where it ends and says how it failed; where there is no room by the mark, the name says that too."""
    failures = labels.place_failures(occupied, endings, sheet.style.font(sheet.style.small))
    endings = [
        replace(ending, name=f"{ending.name}\n({ending.failure})") if ending.failure and not placed else ending
        for ending, placed in zip(endings, failures, strict=True)
    ]
    names = labels.place_names(occupied, endings, failures, occupied.area.right + _TEXT_GAP)
    for one, name, failure in zip(panel.series, names, failures, strict=True):
        sheet.write(figure, name, f"series-label:{one.label}", one.look.ink)
        if failure and failure not in failures[: panel.series.index(one)]:
            sheet.write(figure, failure, f"failure-label:{one.label}", one.look.ink)
        if name.leader is not None:
            line: dict[str, Any] = {"color": one.look.ink, "linewidth": 0.35, "gid": "leader", "zorder": 1}
            figure.add_artist(Line2D(*(name.leader / sheet.size).T, **line))
    return [*names, *(failure for failure in failures if failure)]


def draw(frame: pd.DataFrame, quantity: str, *, baseline: str | None = None, style: Style = CVPR_FULL) -> Figure:
    """A quantity ("latency", "memory", "flops") against tokens: an operator a curve, a combination of device, scope, mode, dtype, dim,
    heads and batch a panel.

    A baseline is an operator of the frame whose curve is drawn somewhat stronger. A frame without a finished cell gives a figure that
    says so.

    Raises: InputError for an unknown quantity, or a baseline that is none of the frame's operators.
    """
    if quantity not in QUANTITIES:
        raise unknown("quantity", quantity, QUANTITIES)
    if baseline is not None and len(frame) and baseline not in set(frame["op"]):
        raise unknown("baseline", baseline, sorted(set(frame["op"])))
    shown = QUANTITIES[quantity]
    frame = complete(frame, shown)
    panels = panels_of(frame, shown, baseline)
    if not any(len(one.tokens) for panel in panels for one in panel.series):
        panels = [Panel((), ())]
    with mpl.rc_context(style.settings):
        sheet = _layout(panels, shown, footnote(frame, panels, shown), style)
        figure = Figure(figsize=(sheet.size[0] / 72, sheet.size[1] / 72), dpi=_DPI)
        FigureCanvasAgg(figure)
        for index in range(len(panels)):
            _draw_panel(figure, sheet, index, shown)
        font = style.font(style.small)
        size = text_size(sheet.footnote, font)
        sheet.write(figure, Placed(sheet.footnote, font, Box(2, 2, 2 + size[0], 2 + size[1])), "footnote", "#444444")
    return figure


# What to leave out of a file so that it depends on nothing but the figure.
_METADATA: Mapping[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = ("pdf", "png")) -> list[Path]:
    """Writes a figure as FOLDER/NAME.FORMAT ("pdf", "png" with 200 dpi, "svg") and returns the paths. A file is whole or not there,
    and the same figure gives the same bytes.

    Raises: InputError for an unknown format, RunError where the files cannot be written.
    """
    formats = list(formats)
    for form in formats:
        if form not in _METADATA:
            raise unknown("figure format", form, _METADATA)
    paths = []
    for form in formats:
        held = io.BytesIO()
        with mpl.rc_context(CVPR_FULL.settings):
            figure.savefig(held, format=form, dpi=_DPI, metadata=_METADATA[form])
        path = folder / f"{name}.{form}"
        write_whole(path, held.getvalue())
        paths.append(path)
    return paths


def write_figures(
    frame: pd.DataFrame, folder: Path, *, formats: Sequence[str] = ("pdf", "png"), baseline: str | None = None, style: Style = CVPR_FULL
) -> list[Path]:
    """Draws and saves every quantity; returns the paths."""
    return [path for name in QUANTITIES for path in save(draw(frame, name, baseline=baseline, style=style), folder, name, formats)]
