"""The fitted laws of growth and the crossovers with the baseline: sentences for a few operators, a table for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.analysis.growth import WORDS, Crossing, Growth, crossings, first_series, growths
from lisabench.analysis.series import differing, named
from lisabench.render.terminal import FEW, new_table
from lisabench.results import Run

if TYPE_CHECKING:
    from lisabench.analysis.crossover import Crossover

TITLES = {
    "tokens": "growth, t = t0 + c N^p, with 95% intervals",
    "resolution": "growth over the side of the image in pixels, t = t0 + c s^p, with 95% intervals",
    "batch": "growth over the batch, t = t0 + c B^p, with 95% intervals",
}


def growth(run: Run) -> list[Text | Table]:
    """Each series' fitted exponents over tokens and over the batch, and its crossover with the baseline over tokens, curve by curve;
    nothing where nothing fits."""
    parts: list[Text | Table] = []
    against = crossings(run)
    for axis in (axis for axis in TITLES if axis != "resolution" or run.patch):
        found = growths(run, axes=(axis,))
        names = differing(one.where for one in found)
        curves: dict[str, list[Growth]] = {}
        for one in found:
            curves.setdefault(named(one.where, names), []).append(one)
        fitted = {where: curve for where, curve in curves.items() if any(one.law for one in curve)}
        for place, (where, curve) in enumerate(fitted.items()):
            met = [one for one in against if axis == "tokens" and one.where == curve[0].where]
            if len({one.label for one in curve}) > FEW:
                parts.append(_table(run, curve, met, f"{TITLES[axis]}{': ' * bool(where)}{where}"))
            else:
                title = [] if place else [f"{TITLES[axis]}:"]
                parts += [*(Text(line, style="bold") for line in (*title, where) if line), *_sentences(curve, met)]
        if more := first_series(run, axis)[1]:
            parts.append(Text(f"and {more:,} more series, whose growth is not told"))
    return parts


def _sentences(curve: Sequence[Growth], against: Sequence[Crossing]) -> list[Text]:
    lines = []
    letter = {"tokens": "N", "resolution": "s", "batch": "B"}[curve[0].axis]
    labels = list(dict.fromkeys(one.label for one in curve))
    width = max(map(len, labels))
    for label in labels:
        said = [f"{one.quantity} ~ {letter}^{one.exponent}" for one in curve if one.label == label and one.law]
        if said:
            lines.append(Text(f"{label:<{width}}  {'   '.join(said)}"))
    for one in against:
        if one.crossover:
            sentence = one.crossover.sentence(one.label, one.baseline, quantity=one.quantity)
            lines.append(Text(f"{one.label} against {one.baseline}, {one.quantity}: {sentence}"))
    return lines


def _table(run: Run, curve: Sequence[Growth], against: Sequence[Crossing], title: str) -> Table:
    """A series a row, the slowest growth of latency first."""
    table = new_table(title)
    quantities = list(dict.fromkeys(one.quantity for one in curve))
    rows: dict[str, list[Growth]] = {}
    for one in curve:
        rows.setdefault(one.label, []).append(one)
    faster = {one.label: _faster(one.crossover) if one.crossover else units.MISSING for one in against if one.quantity == "latency"}
    rival = [against[0].baseline] if against else []
    heads = [f"{'latency' if quantity == 'latency' else WORDS[quantity]}, p" for quantity in quantities]
    for name in ("operator", *heads, *(f"faster than {name}, N" for name in rival)):
        table.add_column(name, overflow="fold")
    for label in sorted(rows, key=lambda label: (_rank(rows[label][0]), label)):
        baseline = rows[label][0].op == run.baseline
        exponents = [units.MISSING if one.law is None else one.exponent if one.determined else "?" for one in rows[label]]
        last = ["baseline" if baseline else faster.get(label, units.MISSING)] if rival else []
        table.add_row(Text(label), *exponents, *last, style="cyan" if baseline else "")
    if any(one.law and not one.determined for one in curve):
        table.caption = "?: the sizes do not tell"
    return table


def _rank(growth: Growth) -> float:
    """Exponents in order, then what the sizes do not tell."""
    return growth.law.exponent if growth.law and growth.determined else float("inf")


def _faster(crossing: Crossover) -> str:
    """At which sizes the first of two is faster, in few words."""
    if crossing.size is None:
        return {"first": "all", "second": f"none up to {crossing.up_to:,.0f}", None: "all are equal"}[crossing.always]
    return f"{'up to' if crossing.after == 'second' else 'from'} {crossing.where.replace(' tokens', '')}"
