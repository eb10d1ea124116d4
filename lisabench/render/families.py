"""A crowd of operators by family: when a figure is cut into a panel a family, and what each of those shows. Draws nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lisabench.render.curves import APART, SUBJECT_WEIGHT, Panel, Series, complete, cuts, narrowed, varied
from lisabench.render.page import CONTEXT, INK, Sign
from lisabench.render.palette import Look
from lisabench.render.quantities import Quantity
from lisabench.render.traces import Field, Plot
from lisabench.results import FLOOR

# As in `contract.FAMILIES`, which cannot be had without torch; a test holds the two together.
FAMILIES = ("quadratic", "structure-aware", "kernel", "low rank", "spectral", "channel", "local and control")
OWN = "own"  # what the panel of operators without a family is called
SUMMARY = "best of each family"
_FEW = 9  # curves that one panel holds apart
_MOST = 12  # panels that a page holds, and sets of figures that anyone looks through
_USUAL, _KNOWN = 0.9, 1.3  # line widths of what is not the best


class Member(Protocol):
    """What belongs to a family: a series or a trace."""

    @property
    def label(self) -> str: ...

    @property
    def look(self) -> Look: ...

    @property
    def family(self) -> str: ...

    @property
    def weight(self) -> float: ...


M = TypeVar("M", bound=Member)


def crowded(members: Collection[Member]) -> bool:
    """Whether these are too many for one panel, and of more than one family."""
    return len({one.label for one in members}) > _FEW and len({one.family for one in members}) > 1


def by_family(members: Sequence[M]) -> list[tuple[str, list[M], list[M], list[M]]]:
    """The panel of each family: its title and members, what every panel shows in its colour (the subject, the baseline), the others.
    Built-in families come first, then a user's own words, last what has none."""
    places = {name: place for place, name in enumerate(FAMILIES)}
    families = sorted({one.family for one in members}, key=lambda name: (name == "", places.get(name, len(places)), name))
    found = []
    for family in families:
        foreign = [one for one in members if one.family != family]
        own = [one for one in members if one.family == family]
        found.append((family or OWN, own, [one for one in foreign if one.weight > 1], [one for one in foreign if one.weight <= 1]))
    return found


def figures_of(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What goes into one figure each, and the end of its file's name: the whole frame, or where a panel is crowded, a figure a panel.
    Of more panels than anyone looks through it is the first ones of each device, of crowded ones the first one: `left_out` says so."""
    frame = complete(frame, [])
    return _told_apart(frame, _figures_of(frame))


def _figures_of(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    panels, devices = cuts(frame), cuts(frame, ["device_name"])
    if 1 < len(devices) <= _MOST < len(panels):
        return [(of_device + end, rows) for of_device, part in _named(frame, devices) for end, rows in _figures_of(part)]
    labels, families = frame["label"].to_numpy(object), frame["family"].to_numpy(object)
    if len(panels) < 2 or not any(len({*labels[places]}) > _FEW and len({*families[places]}) > 1 for _, places in panels):
        return [("", frame if len(panels) <= _MOST else frame.iloc[np.concatenate([places for _, places in panels[:_MOST]])])]
    return _named(frame, panels)


def conditions_of(frame: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each combination of these keys, and the end of its file's name ("" for the only one); of too many the first of each
    device."""
    frame = complete(frame, [])
    panels = cuts(frame, keys)
    return _told_apart(frame, _named(frame, panels) if len(panels) > 1 else [("", frame)])


def left_out(frame: pd.DataFrame) -> str:
    """What the figures of a frame do not show; "" where they show all."""
    frame = narrowed(frame, [])
    panels, drawn = len(cuts(frame)), sum(len(cuts(rows)) for _, rows in figures_of(frame))
    words = ", ".join(name.removesuffix("_name") for name in varied(frame))
    return f"figures show the first {drawn} of {panels} combinations of {words}" if drawn < panels else ""


def _told_apart(frame: pd.DataFrame, parts: Sequence[tuple[str, pd.DataFrame]]) -> list[tuple[str, pd.DataFrame]]:
    """The parts of a frame; those of one of its devices say so."""
    several = frame["device_name"].nunique() > 1
    return [(end, rows.assign(**{APART: True}) if several and rows["device_name"].nunique() == 1 else rows) for end, rows in parts]


def _named(frame: pd.DataFrame, panels: Sequence[tuple[tuple[str, ...], NDArray[np.intp]]]) -> list[tuple[str, pd.DataFrame]]:
    names = ["-" + re.sub(r"[^a-z0-9]+", "-", " ".join(title).lower()).strip("-") for title, _ in panels]
    alike, devices = Counter(names), frame["device_name"].to_numpy(object)
    firsts = {devices[places[0]]: number for number, (_, places) in reversed([*enumerate(panels, 1)])}
    shown = {*firsts.values()} if len(panels) > _MOST else {*range(1, len(panels) + 1)}
    return [
        (name if alike[name] == 1 else f"{name}-{number}", frame.iloc[places])
        for number, (name, (_, places)) in enumerate(zip(names, panels, strict=True), 1)
        if number in shown
    ]


@dataclass(frozen=True)
class Ranking:
    """The best of each family and of all at `tokens`, the most that every family has finished; equal ones share the place."""

    tokens: float
    best: frozenset[Series]
    overall: frozenset[Series]


def ranking(series: Iterable[Series], *, falls: bool = False) -> Ranking | None:
    """The least are the best, or the most of what `falls`; None where the families have no size in common."""
    runners = [one for one in series if one.op != FLOOR and len(one.tokens)]
    finished: dict[str, set[float]] = {}
    for one in runners:
        finished.setdefault(one.family, set()).update(one.tokens.tolist())
    shared = set.intersection(*finished.values()) if finished else set()
    if not shared:
        return None
    at = max(shared)
    values = {one: float(one.values[one.tokens == at][0]) for one in runners if at in one.tokens}
    costs = {one: 1 / value for one, value in values.items()} if falls else values
    least = {family: min(cost for one, cost in costs.items() if one.family == family) for family in finished}
    best = frozenset(one for one, cost in costs.items() if cost <= least[one.family] * (1 + 1e-9))
    overall = frozenset(one for one, cost in costs.items() if cost <= min(least.values()) * (1 + 1e-9))
    return Ranking(at, best, overall)


def facets(panel: Panel, ranked: Ranking | None) -> list[Panel]:
    """A panel a family, its best the strongest, and one with the best of each. All others are to be seen in every panel, the subject
    and the baseline in their colours."""

    def drawn(one: Series) -> Series:
        best = ranked is not None and one in ranked.best
        weight = SUBJECT_WEIGHT if best else _KNOWN if one.weight > 1 else _USUAL
        return replace(one, weight=weight, mark=" ★" if ranked and one in ranked.overall else "")

    def drawn_all(series: Iterable[Series]) -> tuple[Series, ...]:
        return tuple(drawn(one) for one in series)

    panels = [Panel((title,), drawn_all(own), drawn_all(known), tuple(others)) for title, own, known, others in by_family(panel.series)]
    if ranked is None:
        return panels
    # The best are all there is in the summary: only the best of all stands out.
    best = [one for one in panel.series if one in ranked.best or one.weight > 1]
    shown = (one if one.mark else replace(one, weight=min(one.weight, _KNOWN)) for one in drawn_all(best))
    return [*panels, Panel((SUMMARY,), tuple(shown), (), tuple(one for one in panel.series if one not in best))]


def split(plot: Plot, fields: Sequence[Field]) -> tuple[Plot, list[Field]]:
    """A crowded field as a panel a family, under the same roof, of which the first tells the figures, and a plot with the key to them;
    anything else as it is."""
    if len(fields) != 1 or not crowded(fields[0].traces):
        return plot, list(fields)
    (field,) = fields
    found = by_family(field.traces)
    panels = [Field((title,), tuple(own), field.roof, tuple(known), tuple(others)) for title, own, known, others in found]
    if field.roof:
        bare = replace(field.roof, slope_text="", peak_text="")
        panels[1:] = [replace(panel, roof=bare) for panel in panels[1:]]
    return replace(plot, key=(*key(field.traces, field.title), *plot.key)), panels


def key(members: Iterable[Member], title: Sequence[str] = ()) -> list[Sign]:
    """What the lines mean that have no name beside them, behind the title of all panels."""
    known: dict[str, list[Member]] = {}
    for one in members:
        if one.weight > 1:
            known.setdefault(one.look.colour, []).append(one)
    # Of an operator with several options the first speaks for all; where its markers differ, they say something else.
    signs = [
        Sign(f"{ones[0].label}, in every panel", colour, ones[0].look if len({one.look for one in ones}) == 1 else None, 0.7)
        for colour, ones in known.items()
    ]
    heading = [Sign(", ".join(title), "black")] if title else []
    return [*heading, *signs, Sign("operators of other families", CONTEXT, width=0.8)]


def key_of(ranked: Ranking | None, quantity: Quantity, apart: Collection[str]) -> list[Sign]:
    """What a bold line and the star say; `apart` are those that are not ranked."""
    if ranked is None:
        return []
    but = f" but {', '.join(sorted(apart))}" if apart else ""
    return [Sign(f"{quantity.best} of its family at N = {ranked.tokens:,.0f}; ★ of all{but}", INK, width=SUBJECT_WEIGHT)]
