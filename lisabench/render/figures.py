"""Scaling figures for a paper: what calls cost against tokens, log-log, as matplotlib figures and files.

Everything is laid out in points (1/72 inch) before matplotlib draws: only so can each text be given a place that is free. No pyplot and
no global state: a `Style` is a value, and matplotlib's settings hold only while a figure is drawn or saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisabench.errors import unknown
from lisabench.render import error, families, heatmap, labels, roofline
from lisabench.render.context import draw_context
from lisabench.render.curves import SUBJECT_WEIGHT, Panel, Series, footnote, layer_of, least_of, narrowed, panels_of
from lisabench.render.drawing import Drawing
from lisabench.render.labels import Area, Ending, Occupied, Placed
from lisabench.render.page import Page, Sign, arrange, columns_of, marker_of
from lisabench.render.palette import CVPR_FULL, FAILURES, Style, padded, text_size, token_labels, value_ticks, wrap
from lisabench.render.quantities import QUANTITIES, Quantity

_TEXT_GAP = 7.0  # points between a panel and the labels on its right
_TALLEST = 440.0  # points for all rows of panels with a key: the rest of a page is for what is written around them, and a caption
_PAD = 6.0  # points between the outermost data and the edges of a panel
_GUIDE: Mapping[str, Any] = {"color": "#8C8C8C", "linewidth": 0.6, "linestyle": (0, (3, 2))}


@dataclass(frozen=True)
class _Sheet:
    """A page with what stands in its panels."""

    page: Page
    panels: tuple[Panel, ...]
    areas: tuple[Area, ...]
    labels: Mapping[str, str]
    tokens: tuple[int, ...]


def _layout(
    panels: list[Panel], quantity: Quantity, tokens: tuple[int, ...], footnote: Sequence[str], style: Style, key: Sequence[Sign]
) -> _Sheet:
    """Measures everything: as many panels side by side as keep 2 inches each, in a figure with a key 1.6, each as tall as its labels
    need."""
    label_font = style.font(style.text - 0.5, weight="bold")  # the widest that a label can be
    series = [one for panel in panels for one in panel.series]
    parts = (part for one in series for part in (one.values, one.low, one.high, [one.end[1]]))
    values = np.concatenate([np.array([value for _, value in quantity.levels] if series else []), *parts])
    values = values[values > 0] if (values > 0).any() else np.array([1.0])

    columns = columns_of(len(panels), style, small=bool(key))
    cell = (style.width * 72 - 40) / columns
    narrow = min((0.46 if key else 0.38) * cell, 100)
    texts = {one.label: wrap(re.split(r"(?<=[,:/])|(?= \()", one.label), "", narrow, label_font) for one in series}
    suffixes = {one: f"\n({FAILURES[one.failure[0]][1]})" if one.failure else "" for one in series}
    sizes = {one: text_size(texts[one.label] + one.mark + suffix, label_font) for one, suffix in suffixes.items()}
    usual = min(125, _TALLEST / -(-len(panels) // columns)) if key else float(np.clip(0.62 * cell, 125, 175))
    height = max(usual, *(10 + sum(sizes[one][1] for one in panel.series) for panel in panels))
    value_limits = padded(values.min(), values.max(), height, _PAD, least=6)
    ticks = [quantity.text(tick, 1) for tick in _ticks(value_limits, quantity)]
    left = 1.2 * style.text + 8 + max(text_size(tick, label_font)[0] for tick in ticks)
    gutter = _TEXT_GAP + 3 + max([size[0] for size in sizes.values()], default=0)
    titles, small = [panel.title for panel in panels], bool(key)
    page = arrange(titles, footnote, style, columns=columns, left=left, gutter=gutter, height=height, key=key, small=small)
    points = [count for one in series for count in [*one.tokens, one.end[0]]] or [1.0, 2.0]
    token_limits = padded(min(points), max(points), page.across, _PAD, least=1.1)
    areas = tuple(Area(box, token_limits, value_limits) for box in page.boxes)
    return _Sheet(page, tuple(panels), areas, texts, tokens)


def _tokens(series: Sequence[Series], frame: pd.DataFrame) -> tuple[int, ...]:
    """The sizes at which there are ticks: those of the curves, or those of the frame that their points lie between."""
    drawn = {float(count) for one in series for count in [*one.tokens, one.end[0]]}
    if drawn and not drawn <= {*frame["tokens"]}:
        drawn = {size for size in frame["tokens"] if min(drawn) <= size <= max(drawn)} or drawn
    return tuple(sorted(int(count) for count in drawn))


def _ticks(limits: tuple[float, float], quantity: Quantity) -> list[float]:
    return quantity.ticks(*limits) if quantity.ticks else value_ticks(*limits, quantity.base)


def _axes(figure: Figure, sheet: _Sheet, index: int, quantity: Quantity) -> Axes:
    """A panel's axes: every token count a tick, as many of them with a text as there is room for."""
    area, style = sheet.areas[index], sheet.page.style
    places = area.at(sheet.tokens, np.full(len(sheet.tokens), area.values[0]))[:, 0]
    shown = token_labels(sheet.tokens, places.tolist(), style.font(style.text - 0.5))
    ticks = _ticks(area.values, quantity) if sheet.tokens else []
    return sheet.page.add_axes(
        figure,
        index,
        limits=(area.tokens, area.values),
        ticks=((sheet.tokens, shown), (ticks, [quantity.text(tick, 1) for tick in ticks])),
        names=("Tokens N", quantity.axis),
    )


def _draw_series(axes: Axes, one: Series, end: tuple[float, float]) -> None:
    """A curve with its band and markers, and how it failed."""
    colour, layer = one.look.colour, 2 + layer_of(one.weight)
    marker = marker_of(one.look, 3.8 if one.weight > 1 else 3.2)
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
    area, panel, style = sheet.areas[index], sheet.panels[index], sheet.page.style
    box = area.box
    axes = _axes(figure, sheet, index, quantity)
    if not panel.series:
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center", "color": "#666666"}
        axes.text(0.5, 0.5, "no finished cell", **middle, bbox=patch, gid="empty")
        return
    # A series that failed at once has no height of its own: it stands where the worst are.
    edge = _PAD / (box.top - box.bottom)
    worst = area.values[0] * (area.values[1] / area.values[0]) ** (edge if quantity.falls else 1 - edge)
    occupied, far = Occupied(box), Occupied(box)
    endings = []
    for name, level in quantity.levels:
        axes.axhline(level, zorder=1, gid=f"guide:{name}", **_GUIDE)
        occupied.add_path(area.at(area.tokens, [level, level]), radius=1)
    draw_context(axes, ((one.label, one.tokens, one.values) for one in panel.others))
    for one in panel.others:
        if len(one.tokens):
            far.add_path(area.at(one.tokens, one.values), radius=1)
    for one in panel.known:
        marker = marker_of(one.look, 1.8)
        axes.plot(
            one.tokens, one.values, color=one.look.colour, linestyle=one.dashes, linewidth=0.7, zorder=2, gid=f"known:{one.label}", **marker
        )
        for raster in (occupied, far):
            raster.add_path(area.at(one.tokens, one.values), radius=2)
    for one in panel.series:
        end = one.end[0], one.end[1] if np.isfinite(one.end[1]) else worst
        _draw_series(axes, one, end)
        path = area.at([*one.tokens, end[0]], [*one.values, end[1]])
        for raster, clear in ((occupied, 2), (far, 5)):
            raster.add_path(path, radius=clear)
            for point in (*path, *area.at(*one.other_grids.T)):
                raster.add_path(point[None], radius=clear + 1)
        font = style.font(style.text - 0.5, weight="bold" if one.weight >= SUBJECT_WEIGHT else "normal")
        endings.append(
            Ending(tuple(path[-1].tolist()), sheet.labels[one.label] + one.mark, font, FAILURES[one.failure[0]][1] if one.failure else "")
        )
    for text in _label_series(figure, sheet, panel, occupied, endings):
        far.add_box(text.box)
    alone = not sheet.page.small or index == len(sheet.panels) - 1
    if len(sheet.tokens) > 1 and alone and not (quantity.levels or quantity.falls):
        font = style.font(style.small, slant="italic")
        for guide in labels.guides(far, area, font):
            sheet.page.line(figure, guide.curve, zorder=1, gid=f"guide:{guide.name}", **_GUIDE)
            sheet.page.write(figure, Placed(guide.name, font, guide.label), "guide-label", "#666666")


def _label_series(figure: Figure, sheet: _Sheet, panel: Panel, occupied: Occupied, endings: list[Ending]) -> list[Placed]:
    """Names each curve where it ends and says how it failed; where there is no room by the mark, the name says that too."""
    failures = labels.place_failures(occupied, endings, sheet.page.style.font(sheet.page.style.small))
    endings = [
        replace(ending, name=f"{ending.name}\n({ending.failure})") if ending.failure and not placed else ending
        for ending, placed in zip(endings, failures, strict=True)
    ]
    names = labels.place_names(occupied, endings, failures, occupied.area.right + _TEXT_GAP)
    for one, name, failure in zip(panel.series, names, failures, strict=True):
        sheet.page.write(figure, name, f"series-label:{one.label}", one.look.ink)
        if failure and failure not in failures[: panel.series.index(one)]:
            sheet.page.write(figure, failure, f"failure-label:{one.label}", one.look.ink)
        if name.leader is not None:
            line: dict[str, Any] = {"color": one.look.ink, "linewidth": 0.35, "gid": "leader", "zorder": 1}
            sheet.page.line(figure, name.leader, **line)
    return [*names, *(failure for failure in failures if failure)]


def draw(frame: pd.DataFrame, quantity: str, *, baseline: str | None = None, style: Style = CVPR_FULL) -> Figure:
    """A quantity of QUANTITIES ("latency", "slope") against tokens: an operator a curve, a combination of device, scope, mode, dtype,
    dim, heads and batch a panel.

    A baseline is an operator of the frame whose curve is drawn somewhat stronger. A frame without a finished cell gives a figure that
    says so.

    Raises: InputError for an unknown quantity, or a baseline that is none of the frame's operators.
    """
    if quantity not in QUANTITIES:
        raise unknown("quantity", quantity, QUANTITIES)
    _check(baseline, frame)
    shown = QUANTITIES[quantity]
    measured = narrowed(frame, shown.columns, "latency_s.kind")
    frame = shown.derive(measured)
    panels = panels_of(frame, shown, baseline)
    bare = [] if shown.always else [", ".join(panel.title) for panel in panels if not panel.series]
    panels = [panel for panel in panels if panel.series or shown.always]
    if not any(len(one.tokens) for panel in panels for one in panel.series):
        panels = [Panel((), ())]
    tokens = _tokens([one for panel in panels for one in panel.series], measured)
    note, key = [*footnote(frame, panels, shown), *(f"no figures for {title}" for title in bare if title)], list[Sign]()
    if len(panels) == 1 and families.crowded(panels[0].series):
        ranked = families.ranking(panels[0].series, falls=shown.falls) if shown.best else None
        key = [*families.key(panels[0].series, panels[0].title), *families.key_of(ranked, shown, least_of(frame, shown))]
        panels = families.facets(panels[0], ranked)
    with mpl.rc_context(style.settings):
        sheet = _layout(panels, shown, tokens, note, style, key)
        figure = sheet.page.start()
        for index in range(len(panels)):
            _draw_panel(figure, sheet, index, shown)
        sheet.page.write_key(figure)
        sheet.page.write_footnote(figure)
    return figure


def drawings(
    frame: pd.DataFrame,
    *,
    baseline: str | None = None,
    style: Style = CVPR_FULL,
    whole: Callable[[pd.DataFrame], pd.DataFrame] = lambda part: part,
) -> list[Drawing]:
    """The figures of a frame, yet to be drawn: every quantity that is known, the roofline, the error and the speed-up over the baseline.

    A crowd of operators is drawn by family; then each combination of device, mode and so on has figures of its own. Of a large run
    `frame` may have no columns but those of `curves.IDENTITY`: then `whole` gives those rows that are drawn all the others.
    """
    _check(baseline, frame)
    found = []
    for end, rows in families.figures_of(frame):
        part = whole(rows)
        given: dict[str, Any] = {"baseline": baseline if baseline in set(part["op"]) else None, "style": style}
        known = [name for name, quantity in QUANTITIES.items() if _is_known(part, quantity)]
        found += [Drawing(name + end, draw, part, given | {"quantity": name}) for name in known]
        found += [Drawing(name + end, other, part, given) for name, other in {"roofline": roofline.draw, "error": error.draw}.items()]
    given = {"baseline": baseline, "style": style}
    maps = families.conditions_of(frame, heatmap.KEYS) if baseline else []
    return found + [Drawing(f"speedup{end}", heatmap.draw, whole(rows), given) for end, rows in maps]


def write_figures(
    frame: pd.DataFrame, folder: Path, *, formats: Sequence[str] = ("pdf", "png"), baseline: str | None = None, style: Style = CVPR_FULL
) -> list[Path]:
    """Draws and saves all figures of a frame, one after the other; returns the paths. See `drawings`."""
    return [path for drawing in drawings(frame, baseline=baseline, style=style) for path in drawing.write(folder, formats)]


def _is_known(frame: pd.DataFrame, quantity: Quantity) -> bool:
    if quantity.always:
        return True
    frame = quantity.derive(narrowed(frame, quantity.columns))
    return bool(((frame["status"] == "ok") & (frame[quantity.column] > 0)).any())


def _check(baseline: str | None, frame: pd.DataFrame) -> None:
    if baseline is not None and len(frame) and baseline not in set(frame["op"]):
        raise unknown("baseline", baseline, sorted(set(frame["op"])))
