"""The figure `learning`: loss and test accuracy against epochs, thin lines for seeds and strong ones for their means, named at their ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lisabench.analysis.accuracy import Series, by_data, data_name
from lisabench.render import families
from lisabench.render.context import draw_context
from lisabench.render.curves import SUBJECT_WEIGHT, Floats, layer_of
from lisabench.render.labels import Ending, Occupied, Placed, Points, place_names
from lisabench.render.page import Page, Sign, Ticks, columns_of, marker_of
from lisabench.render.palette import CVPR_FULL, Look, Style, text_size, wrap
from lisabench.render.plane import Plane, add_axes, page_of, round_ticks, texts_of, width_of
from lisabench.render.training_notes import common, counted, not_shown, own_up
from lisabench.render.variants import Manner, manners

_TEXT_GAP = 7.0  # points between a panel and the names on its right
_SAMPLE = 14.0  # points of a curve's line before its name
_FEW_ENDS, _FEW_LEADERS = 5, 3  # so many names have lines to the ends of their curves, if need be; more meet in one place
_PAD = 5.0  # points between the outermost data and the edges of a panel
_TALLEST = 540.0  # points for all rows together: what a page leaves beside a caption
_ACCURACIES = (0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.5, 0.0, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1)  # where ticks can be, by preference
_QUANTITIES = {"loss": "training loss", "top1": "test accuracy"}


@dataclass(frozen=True, eq=False)
class Curve:
    """An operator's epochs: (n, 2) of epoch and value for each seed, and their mean as far as all seeds have one."""

    label: str
    family: str
    manner: Manner
    seeds: tuple[Points, ...]
    mean: Points

    @property
    def look(self) -> Look:
        """Its colour and marker."""
        return self.manner.look

    @property
    def weight(self) -> float:
        """The width of its line."""
        return self.manner.weight


@dataclass(frozen=True)
class Panel:
    """Curves with their names; `known` ones that are named elsewhere; `others`, which are only to be seen.

    Losses are drawn as they are (`finest` None), accuracies by the logarithm of the error, so that those near 100% are apart; an error
    under `finest` is drawn as that.
    """

    title: tuple[str, ...]
    finest: float | None
    curves: tuple[Curve, ...]
    known: tuple[Curve, ...] = ()
    others: tuple[Curve, ...] = ()

    @property
    def all(self) -> tuple[Curve, ...]:
        """Everything that is drawn in it."""
        return (*self.curves, *self.known, *self.others)

    def scaled(self, values: ArrayLike) -> Floats:
        """Values as they are drawn."""
        found = np.asarray(values, float)
        return found if self.finest is None else -np.log10(np.maximum(1 - found, self.finest))

    def drawn(self, points: Points) -> Points:
        """Epochs and values as they are drawn."""
        return np.column_stack([points[:, 0], self.scaled(points[:, 1])])


def figures(series: Sequence[Series], *, style: Style = CVPR_FULL) -> dict[str, Figure]:
    """The figures by the name of their files: one of all data sets, or where that would be more than a page, one of each. A crowd of
    operators has a panel a family, and a figure for each of the two quantities."""
    sets = {data: members for data, members in by_data(series).items() if any(one.curves for one in members)}
    baseline = next((one.label for one in series if one.is_baseline), None)
    drawn_as = manners(series, baseline)
    pairs = {data: [_panel(members, name, drawn_as, titled=len(sets) > 1) for name in _QUANTITIES] for data, members in sets.items()}
    crowd = any(families.crowded(panel.curves) for both in pairs.values() for panel in both)
    if (not crowd and len(sets) <= 1) or (not crowd and _fits([panel for both in pairs.values() for panel in both], style)):
        return {"learning": _draw([p for both in pairs.values() for p in both], _note(series), style)} if sets else {}
    found = {}
    for data, both in pairs.items():
        end = "-" + re.sub(r"[^a-z0-9]+", "-", data_name(data).lower()).strip("-") if len(sets) > 1 else ""
        if any(families.crowded(panel.curves) for panel in both):
            for name, panel in zip(("learning-loss", "learning"), both, strict=True):
                key = families.key(panel.curves)
                found[name + end] = _draw(
                    _by_family(panel),
                    _note(sets[data], accuracy=panel.finest is not None),
                    style,
                    key,
                )
        else:
            found["learning" + end] = _draw(both, _note(sets[data]), style)
    return found


def _by_family(panel: Panel) -> list[Panel]:
    return [
        Panel((title,), panel.finest, tuple(own), tuple(known), tuple(others))
        for title, own, known, others in families.by_family(panel.curves)
    ]


def _panel(members: Sequence[Series], name: str, drawn_as: Mapping[str, Manner], *, titled: bool) -> Panel:
    found = []
    for one in members:
        seeds = tuple(np.array([(epoch["epoch"], epoch[name]) for epoch in curve], float) for curve in one.curves)
        if seeds:
            found.append(Curve(one.label, one.family, drawn_as[one.label], seeds, _mean(seeds)))
    what = _QUANTITIES[name]
    images = max((one.test_images for one in members if one.test_images), default=1000)
    title = f"{data_name(members[0].data)}: {what}" if titled else what.capitalize()
    return Panel((title,), 0.5 / images if name == "top1" else None, tuple(found))


def _mean(seeds: Sequence[Points]) -> Points:
    epochs = [dict(seed.tolist()) for seed in seeds]
    shared = sorted(set.intersection(*(set(each) for each in epochs)))
    return np.array([(epoch, np.mean([each[epoch] for each in epochs])) for epoch in shared]).reshape(-1, 2)


def _note(series: Sequence[Series], *, accuracy: bool = True) -> list[str]:
    sets, counts = by_data(series), [len(one.curves) for one in series if one.curves]
    lines = f"thin: a seed, strong: the mean over {counted(counts)} seeds" if max(counts, default=0) > 1 else "one seed"
    return [
        *([data_name(next(iter(sets)))] if len(sets) == 1 else []),
        *common(series),
        lines,
        *(["accuracy by the logarithm of the error"] if accuracy else []),
        *not_shown(series, [one for one in series if not one.curves]),
        *own_up(one.op for one in series),
    ]


@dataclass(frozen=True)
class _Measures:
    """How a figure is cut: panels side by side, their height, the names as they are written, and whether there is room for a piece of
    its line before each."""

    columns: int
    height: float
    names: dict[str, str]
    gutter: float
    sampled: bool


def _measure(panels: Sequence[Panel], style: Style, *, small: bool) -> _Measures:
    columns = columns_of(len(panels), style) if small else min(2, columns_of(2, style))
    font = style.font(style.text - 0.5, weight="bold")  # the widest that a name can be
    narrow = min((0.45 if small else 0.36) * (style.width * 72 - 40) / columns, 100)
    labels = {curve.label for panel in panels for curve in panel.curves}
    names = {label: wrap(re.split(r"(?<=[,:/])|(?= \()", label), "", narrow, font) for label in labels}
    sizes = {label: text_size(name, font) for label, name in names.items()}
    most = float(np.clip(_TALLEST / -(-len(panels) // columns) - 30, 85, 150))  # the rest of a row is for its title and ticks
    usual = float(np.clip(0.62 * (style.width * 72 - 40) / columns, min(110, most), most))
    height = max(usual, *(8 + sum(sizes[curve.label][1] for curve in panel.curves) for panel in panels))
    sampled = any(len(panel.curves) > _FEW_ENDS for panel in panels)
    gutter = _TEXT_GAP + 3 + max(size[0] for size in sizes.values()) + (_SAMPLE + 3 if sampled else 0)
    return _Measures(columns, height, names, gutter, sampled)


def _fits(panels: Sequence[Panel], style: Style) -> bool:
    measures = _measure(panels, style, small=False)
    return -(-len(panels) // measures.columns) * (measures.height + 20) <= _TALLEST


def _limits(panels: Sequence[Panel], panel: Panel, height: float, *, shared: bool) -> tuple[float, float]:
    values = [each.scaled(seed[:, 1]) for each in (panels if shared else [panel]) for curve in each.all for seed in curve.seeds]
    low, high = float(np.nanmin(np.concatenate(values))), float(np.nanmax(np.concatenate(values)))
    high = max(high, low + 0.02)
    margin = (high - low) * _PAD / (height - 2 * _PAD)
    return low - margin, high + margin


def _y_ticks(panel: Panel, limits: tuple[float, float], height: float) -> Ticks:
    """Round values at least 14 points apart; of accuracies those furthest up first."""
    if panel.finest is None:
        ticks = round_ticks(*limits, max(3, int(height / 20)))
        return ticks, texts_of(ticks, percent=False)
    found: list[float] = []
    for accuracy in _ACCURACIES:
        place = float(panel.scaled(accuracy))
        clear = all(abs(place - float(panel.scaled(other))) * height >= 14 * (limits[1] - limits[0]) for other in found)
        if limits[0] <= place <= limits[1] and clear:
            found.insert(0, accuracy)
    return [float(panel.scaled(tick)) for tick in found], [f"{100 * tick:g}%" for tick in found]


def _draw(panels: Sequence[Panel], note: Sequence[str], style: Style, key: Sequence[Sign] = ()) -> Figure:
    """The panels; those with a key are small multiples, which share their limits."""
    with mpl.rc_context(style.settings):
        measures = _measure(panels, style, small=bool(key))
        limits = [_limits(panels, panel, measures.height, shared=bool(key)) for panel in panels]
        ticks = [_y_ticks(panel, limit, measures.height) for panel, limit in zip(panels, limits, strict=True)]
        page = page_of(
            [panel.title for panel in panels],
            note,
            style,
            columns=measures.columns,
            tick_width=width_of([text for _, texts in ticks for text in texts], style),
            named=bool(key),
            gutter=measures.gutter,
            height=measures.height,
            key=key,
            shared=bool(key),
        )
        figure = page.start()
        last = max(float(seed[-1, 0]) for panel in panels for curve in panel.all for seed in curve.seeds)
        for index, panel in enumerate(panels):
            plane = Plane(page.boxes[index], (1 - 0.03 * last, last + 0.02 * last), limits[index])
            _draw_panel(page, figure, index, panel, plane, measures, ticks[index])
        page.write_key(figure)
        page.write_footnote(figure)
    return figure


def _draw_panel(page: Page, figure: Figure, index: int, panel: Panel, plane: Plane, measures: _Measures, y_ticks: Ticks) -> None:
    ticks = [tick for tick in round_ticks(1, max(plane.x[1], 2), max(2, int(page.across / 20))) if tick == int(tick) and tick > 0]
    name = _QUANTITIES["loss" if panel.finest is None else "top1"].capitalize()
    axes = add_axes(
        page, figure, index, plane, ticks=((ticks, [f"{tick:.0f}" for tick in ticks]), y_ticks), names=("Epoch", name if page.small else "")
    )
    occupied = Occupied(plane.box)
    draw_context(axes, ((curve.label, *panel.drawn(curve.mean).T) for curve in panel.others))
    for curve in panel.known:
        line = {"color": curve.look.colour, "linestyle": curve.manner.dashes, "linewidth": 0.7, "zorder": 2}
        axes.plot(*panel.drawn(curve.mean).T, **line, gid=f"known:{curve.label}")
    for curve in panel.curves:
        _draw_curve(axes, panel, curve)
        for seed in curve.seeds:
            occupied.add_path(plane.at(*panel.drawn(seed).T), radius=2)
    endings = []
    for curve in panel.curves:
        x, y = plane.at(*panel.drawn(curve.mean[-1:]).T)[0]
        font = page.style.font(page.style.text - 0.5, weight="bold" if curve.weight == SUBJECT_WEIGHT else "normal")
        endings.append(Ending((float(x), float(y)), measures.names[curve.label], font))
    names = place_names(occupied, endings, [], plane.box.right + _TEXT_GAP)
    if measures.sampled and sum(placed.leader is not None for placed in names) > _FEW_LEADERS:
        names = [_sampled(page, figure, curve, placed, plane.box.right) for curve, placed in zip(panel.curves, names, strict=True)]
    for curve, placed in zip(panel.curves, names, strict=True):
        page.write(figure, placed, f"series-label:{curve.label}", curve.look.ink)
        if placed.leader is not None:
            page.line(figure, placed.leader, color=curve.look.ink, linewidth=0.35, gid="leader", zorder=1)


def _sampled(page: Page, figure: Figure, curve: Curve, placed: Placed, right: float) -> Placed:
    """The name of a curve with a piece of its line before it in place of a line to its end, which meets those of others there; a name
    left of `right`, the panel's edge, as it is."""
    if placed.box.left < right:  # in the panel, by its curve
        return placed
    middle, left = (placed.box.bottom + placed.box.top) / 2, placed.box.left
    line = {"color": curve.look.colour, "linestyle": curve.manner.dashes, "linewidth": curve.weight}
    page.line(figure, [(left, middle), (left + _SAMPLE, middle)], **line, gid="sample")
    page.line(figure, [(left + _SAMPLE / 2, middle)], color=curve.look.colour, linestyle="", gid="sample", **marker_of(curve.look, 3.0))
    return replace(placed, box=replace(placed.box, left=left + _SAMPLE + 3, right=placed.box.right + _SAMPLE + 3), leader=None)


def _draw_curve(axes: Axes, panel: Panel, curve: Curve) -> None:
    """The mean with a few markers, and thin lines for seeds where there are several."""
    colour, layer = curve.look.colour, 2 + layer_of(curve.weight)
    if len(curve.seeds) > 1:
        for seed in curve.seeds:
            axes.plot(*panel.drawn(seed).T, color=colour, linewidth=0.3, alpha=0.6, zorder=layer, gid=f"seed:{curve.label}")
    every = max(1, len(curve.mean) // 5)
    line: dict[str, Any] = {"linestyle": curve.manner.dashes, "linewidth": curve.weight, "zorder": layer, "markevery": (every - 1, every)}
    axes.plot(*panel.drawn(curve.mean).T, color=colour, gid=f"series:{curve.label}", **line, **marker_of(curve.look, 3.0))
