"""The accuracy of trainings beside what the models cost, data set by data set, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lisabench.analysis.accuracy import Series, by_data, data_name, leaders, summarise
from lisabench.render import caption
from lisabench.render.cost_table import block
from lisabench.render.curves import SUBJECT
from lisabench.render.families import FAMILIES
from lisabench.render.tabular import Block, Cell, Column, Heading, Table, figure, ranked, unit_of
from lisabench.results import FLOOR, Run

# Heading, quantity (which tells the unit), and the figure of a series.
COSTS: Mapping[str, tuple[str, Callable[[Series], float | None]]] = {
    "params": ("parameters", lambda one: one.parameters),
    "FLOPs": ("flops", lambda one: one.flops),
    "latency": ("latency", lambda one: one.latency.median if one.latency else None),
    "memory": ("memory", lambda one: one.memory),
}


def table(runs: Sequence[Run]) -> Table:
    """An operator a row: top-1 accuracy with its interval, parameters, FLOPs, latency and transient memory."""
    series = summarise(runs)
    units = {name: unit_of(quantity, [value for one in series if (value := of(one))]) for name, (quantity, of) in COSTS.items()}
    groups = by_data(series)
    environments = {key: environment for run in runs for key, environment in run.environments.items()}
    return Table(
        name="accuracy",
        caption=caption.sentences(caption.of_trainings(series, environments)),
        columns=(
            Column(head=Heading(text="top-1", unit="%")),
            *(Column(head=Heading(text=name, unit=unit)) for name, (unit, _) in units.items()),
        ),
        blocks=tuple(
            _block(data_name(data) if len(groups) > 1 else "", members, {name: size for name, (_, size) in units.items()})
            for data, members in groups.items()
        ),
    )


def _block(title: str, series: Sequence[Series], sizes: Mapping[str, float]) -> Block:
    places = {family: place for place, family in enumerate(FAMILIES)}
    series = sorted(series, key=lambda one: (one.op == SUBJECT, places.get(one.family, len(places)), one.label))
    run = [one.op != FLOOR for one in series]
    columns = [_accuracies(series)]
    for name, (_, of) in COSTS.items():
        columns.append(ranked([_cost(one, of, sizes[name]) for one in series], candidates=run))
    return block(title, [one.label for one in series], columns)


def _accuracies(series: Sequence[Series]) -> list[Cell]:
    """The best are told apart by the intervals of differences, not by the overlap of two."""
    runners = [one for one in series if one.op != FLOOR and one.top1]
    best = leaders(runners)
    rest = [one for one in runners if one not in best] if best else []
    second = leaders(rest) if len(runners) > 2 else []
    return [replace(_accuracy(one), mark="best" if rest and one in best else "second" if one in second else "") for one in series]


def _accuracy(one: Series) -> Cell:
    found = one.accuracy
    if found is None:
        return Cell(text="/".join(sorted(one.failures)) or "not trained")
    ends = (None, None) if found.low is None or found.high is None else (100 * found.low, 100 * found.high)
    return figure(100 * found.mean, *ends, decimals=1, plus_minus=True)


def _cost(one: Series, of: Callable[[Series], float | None], size: float) -> Cell:
    value = of(one)
    return Cell() if value is None else figure(value / size)
