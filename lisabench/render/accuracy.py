"""The figures of trainings: accuracy against what it costs, and how it was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lisabench import units
from lisabench.analysis.accuracy import Series, Span, by_data, data_name, front
from lisabench.render import learning
from lisabench.render.marks import Axis, Mark, Panel, is_below, shows_chance
from lisabench.render.page import save
from lisabench.render.palette import CVPR_FULL, Style
from lisabench.render.quantities import FLOPS_NOTE, flops_text
from lisabench.render.sweep_latency import SweepLatency, sweep_latency
from lisabench.render.tradeoff import draw_panels
from lisabench.render.training_notes import common, not_shown, own_up, seeds_note, warned
from lisabench.render.variants import manners
from lisabench.results import Run


@dataclass(frozen=True)
class Cost:
    """What accuracy is drawn against: the name of its figure, its axis, what a series has of it (None: nothing), and what the footnote
    says of it and of those that have none."""

    name: str
    axis: Axis
    of: Callable[[Series], Span | None]
    note: Callable[[Sequence[Series]], list[str]]
    absent: str = "not known"


def _exactly(value: float | None) -> Span | None:
    return None if value is None else Span(float(value), np.nan, np.nan)


def _scaled(value: float, digits: int) -> str:
    return units.flops(value, digits).replace(" ", "")


def _forward(series: Sequence[Series]) -> str:
    batches = sorted({one.latency_batch for one in series if one.latency_batch})
    on = f" on {' or '.join(map(str, batches))} images" if batches else ""
    return f"of one forward of the whole model{on}, measured before training"


def _warned(series: Sequence[Series], warnings: Callable[[Series], Sequence[str]]) -> list[str]:
    told = warned({f"{one.label} on {one.data}": warnings(one) for one in series})
    return [told] if told else []


def _latency_note(series: Sequence[Series]) -> list[str]:
    return [f"latency: {_forward(series)}", "horizontal bars: its 95% interval", *_warned(series, lambda one: one.warnings)]


COSTS = (
    Cost("flops", Axis("FLOPs per image, forward", flops_text), lambda one: _exactly(one.flops), lambda _: [f"FLOPs of the whole model: {FLOPS_NOTE}"]),
    Cost("latency", Axis("Latency of a forward", units.seconds), lambda one: one.latency, _latency_note),
    Cost("parameters", Axis("Parameters", _scaled), lambda one: _exactly(one.parameters), lambda _: ["parameters of the whole model"]),
    Cost("memory", Axis("Transient memory of a forward", units.size_in_bytes, base=2), lambda one: _exactly(one.memory), lambda series: [f"memory: peak above inputs and parameters {_forward(series)}"]),
)  # fmt: skip


def sweep_cost(found: SweepLatency) -> Cost:
    """Accuracy against the latency of the operator alone, from a sweep."""
    note = f"latency: of the operator alone, median of a sweep at N = {found.tokens:,} tokens, {found.words}"
    return Cost(
        "sweep-latency",
        Axis(f"Latency of the operator at N = {found.tokens:,}", units.seconds),
        found.of,
        lambda series: [note, "horizontal bars: its 95% interval", *_warned(series, found.warned)],
        "not in the sweep",
    )


def draw(series: Sequence[Series], cost: Cost, *, style: Style = CVPR_FULL) -> Figure | None:
    """Mean test accuracy against a cost, with 95% intervals: a data set a panel, an operator a point, the Pareto front a thin line.
    None where no operator has both."""
    drawn_as = manners(series, _baseline_label(series))
    panels, shown = [], list[Series]()
    for data, members in by_data(series).items():
        marks, drawn = list[Mark](), list[Series]()
        for one in members:
            span, accuracy = cost.of(one), one.accuracy
            if accuracy is None or span is None or not span.median > 0:
                continue
            missing = float("nan")
            low, high = (missing if end is None else end for end in (accuracy.low, accuracy.high))
            marks.append(Mark(one.label, drawn_as[one.label], span, Span(accuracy.mean, low, high)))
            drawn.append(one)
        if marks:
            places = front([mark.cost.median for mark in marks], [mark.accuracy.median for mark in marks])
            line = tuple((marks[place].cost.median, marks[place].accuracy.median) for place in places)
            chance = next((one.chance for one in drawn if one.chance is not None), None)
            panels.append(Panel(() if len(by_data(series)) == 1 else (data_name(data),), tuple(marks), line, chance))
        shown += drawn
    if not panels:
        return None
    return draw_panels(
        panels,
        cost.axis,
        [*_note(series, shown, panels), *cost.note(shown), *_left(series, shown, cost), *own_up(one.op for one in series)],
        style,
    )


def _note(series: Sequence[Series], shown: Sequence[Series], panels: Sequence[Panel]) -> list[str]:
    """What holds for all panels, and how to read the points."""
    parts = [data_name(series[0].data)] if len(by_data(series)) == 1 else []
    parts += [*common(series), *seeds_note(shown)]
    if any(len(panel.marks) > 1 for panel in panels):
        parts.append("grey line: Pareto front of the means")
    if any(shows_chance(panel) for panel in panels):
        parts.append("dotted: always guessing the commonest class")
    if any(is_below(mark, panel) for panel in panels for mark in panel.marks):
        parts.append("at the lower edge: less accurate than the axis reaches, as its name says")
    return parts


def _left(series: Sequence[Series], shown: Iterable[Series], cost: Cost) -> list[str]:
    drawn = {id(one) for one in shown}
    return not_shown(series, [one for one in series if id(one) not in drawn], why=cost.absent)


def _baseline_label(series: Iterable[Series]) -> str | None:
    return next((one.label for one in series if one.is_baseline), None)


def figures(series: Sequence[Series], *, style: Style = CVPR_FULL) -> dict[str, Figure]:
    """Every figure that the series have figures for, by the name of its files."""
    found = {f"accuracy-{cost.name}": draw(series, cost, style=style) for cost in COSTS}
    return learning.figures(series, style=style) | {name: figure for name, figure in found.items() if figure}


def write_figures(
    series: Sequence[Series], folder: Path, *, prefix: str = "", formats: Sequence[str] = ("pdf", "png"), style: Style = CVPR_FULL
) -> list[Path]:
    """Draws and saves every figure, its name begun by a prefix; returns the paths, none where no training has finished."""
    return [path for name, figure in figures(series, style=style).items() for path in save(figure, folder, prefix + name, formats)]


def write_sweep_figure(
    series: Sequence[Series], sweeps: Sequence[Run], folder: Path, *, formats: Sequence[str] = ("pdf", "png"), style: Style = CVPR_FULL
) -> list[Path]:
    """Draws and saves `accuracy-sweep-latency`, accuracy against the latency that sweeps found; nothing where no operator stands in both."""
    found = sweep_latency(series, sweeps)
    figure = draw(series, sweep_cost(found), style=style) if found else None
    return save(figure, folder, "accuracy-sweep-latency", formats) if figure else []
