"""What a figure shows: a frame of records cut into panels, and for the scaling figures the quantities and their series. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lisabench.render.labels import Points
from lisabench.render.palette import DASHES, FAILURES, Look, looks
from lisabench.render.quantities import TIME, Quantity
from lisabench.results import FLOOR

Floats = NDArray[np.float64]

SUBJECT = "lisa"
_FAR_OFF = 10  # times: a decade of empty axis
SUBJECT_WEIGHT, BASELINE_WEIGHT = 1.8, 1.4


@dataclass(frozen=True, eq=False)
class Series:
    """An operator with its options in one panel: its curve in order of tokens, and how it ends if that is a failure. `mark` stands
    behind its name."""

    op: str
    family: str
    label: str
    look: Look
    dashes: Any
    weight: float
    tokens: Floats
    values: Floats
    low: Floats
    high: Floats
    other_grids: Points
    failure: tuple[str, float, float] | None
    mark: str = ""

    @property
    def end(self) -> tuple[float, float]:
        """Where the curve ends, in tokens and value: where its label belongs."""
        return self.failure[1:] if self.failure else (float(self.tokens[-1]), float(self.values[-1]))


def layer_of(weight: float) -> int:
    """The subject lies over the others; a baseline under them, so that a curve of the same height stays in sight."""
    return 2 if weight == SUBJECT_WEIGHT else 0 if weight == BASELINE_WEIGHT else 1


@dataclass(frozen=True)
class Panel:
    """What a panel shows: curves with their names; `known` ones that are named elsewhere; `others`, which are only to be seen."""

    title: tuple[str, ...]
    series: tuple[Series, ...]
    known: tuple[Series, ...] = ()
    others: tuple[Series, ...] = ()


_EAGER = "eager"  # goes without saying
# What makes a panel, in the order in which panels are sorted and titles speak, and how a title or the footnote says it.
PANEL_KEYS: Mapping[str, Callable[[Any], str]] = {
    "device_name": str,
    "device": str,
    "scope": lambda scope: {"mixing": "mixing only", "layer": "whole layer"}.get(scope, scope),
    "mode": lambda mode: {"forward": "forward", "train": "forward + backward"}.get(mode, mode),
    "dtype": str,
    "dim": lambda dim: f"dim {dim}",
    "heads": lambda heads: f"{heads} head{'' if heads == 1 else 's'}",
    "batch": lambda batch: f"batch {batch}",
    "compiled": lambda compiled: "compiled" if compiled else _EAGER,
}
_NATURAL_ORDER = {name: place for place, name in enumerate(("mixing", "layer", "forward", "train", "fp64", "fp32", "tf32", "bf16", "fp16"))}


APART = "apart"
"""The column that is true where a frame holds one of several devices: titles name that too, though all rows share it."""

IDENTITY = ("op", "label", "family", "status", "tokens", "height", "width", *PANEL_KEYS, APART)
"""The columns that say what a row is of."""


def complete(frame: pd.DataFrame, figures: Sequence[str]) -> pd.DataFrame:
    """The frame with every column that is needed, the figures as floats: a run in which nothing was measured may lack some."""
    needed = IDENTITY if frame.empty else ()
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, "family", "compiled", APART, *needed, *figures])))
    known = {"device_name": frame["device_name"].fillna(frame["device"]), "family": frame["family"].astype(object).fillna("")}
    known |= {name: frame[name].eq(True) for name in ("compiled", APART)}
    return frame.astype(dict.fromkeys(figures, float)).assign(**known)


def narrowed(frame: pd.DataFrame, figures: Sequence[str], *others: str) -> pd.DataFrame:
    """The same of no columns but those that are needed, and `others` where they are there: each cut of a wide frame takes its time."""
    return complete(frame.filter([*dict.fromkeys([*IDENTITY, *figures, *others])]), figures)


@dataclass(frozen=True)
class Variant:
    """An operator with its options, and how it is drawn in every panel."""

    op: str
    family: str
    label: str
    look: Look
    dashes: Any
    weight: float


def rows_of(variants: Sequence[Variant], frame: pd.DataFrame) -> list[tuple[Variant, pd.DataFrame]]:
    """The rows of each that has some, in order of tokens; of several grids with as many tokens the one nearest to a square comes first."""
    oblong = np.abs(np.log(frame["height"] / frame["width"]))
    ordered = frame.assign(_oblong=oblong).sort_values(["tokens", "_oblong", "height"], kind="stable")
    found = dict(iter(ordered.groupby(["op", "label"], sort=False)))
    return [(one, found[one.op, one.label]) for one in variants if (one.op, one.label) in found]


def variants_of(frame: pd.DataFrame, baseline: str | None) -> list[Variant]:
    """Every operator with every set of options, in an order that does not depend on that of the rows: LiSA strongest, then the baseline."""
    found = looks(frame["op"])
    names = frame[["op", "label"]].drop_duplicates().sort_values(["op", "label"])
    families = frame.groupby("op")["family"].first()
    weights = {baseline: BASELINE_WEIGHT, SUBJECT: SUBJECT_WEIGHT}
    usual = 0.8 if len(names) > 12 else 1.0
    return [
        Variant(str(op), str(families[op]), str(label), found[str(op)], DASHES[place % len(DASHES)], weights.get(str(op), usual))
        for op, group in names.groupby("op")
        for place, label in enumerate(group["label"])
    ]


def _curve(rows: pd.DataFrame, quantity: Quantity, variant: Variant) -> Series | None:
    """A series from its rows, or None where there is nothing to draw. Of several grids with the same number of tokens the curve goes
    through the one nearest to a square; the others stand beside it as points."""
    # Zero has no place on a log axis.
    drawn = rows[(rows["status"] == "ok") & (rows[quantity.column] > 0)]
    curve, others = drawn.drop_duplicates("tokens"), drawn[drawn.duplicated("tokens")]
    tokens, values = curve["tokens"].to_numpy(float), curve[quantity.column].to_numpy(float)
    low, high = (
        curve[column].to_numpy(float) if column in curve else np.full(len(curve), np.nan) for column in (quantity.low, quantity.high)
    )
    finished = rows.loc[rows["status"] == "ok", "tokens"].max()
    failed = rows[rows["status"].isin(list(FAILURES)) & ~(rows["tokens"] <= finished)]
    failure = None
    if len(failed) and (len(curve) or np.isnan(finished)):
        failed_at = float(failed["tokens"].iloc[0])
        failure = (str(failed["status"].iloc[0]), failed_at, _continued(tokens, values, failed_at, falls=quantity.falls))
    if not len(curve) and failure is None:
        return None
    other_grids = others[["tokens", quantity.column]].to_numpy(float)
    drawing = variant.look, variant.dashes, variant.weight
    return Series(variant.op, variant.family, variant.label, *drawing, tokens, values, low, high, other_grids, failure)


def _continued(tokens: Floats, values: Floats, at: float, *, falls: bool) -> float:
    """The value that a curve would have further on, by the slope of its last two points (at most cubic; a cost never falls, what `falls`
    never grows); NaN for none."""
    if len(tokens) == 0:
        return float("nan")
    sign = -1 if falls else 1
    slope = 1.0 if len(tokens) == 1 else sign * float(np.log(values[-1] / values[-2]) / np.log(tokens[-1] / tokens[-2]))
    return float(values[-1] * (at / tokens[-1]) ** (sign * np.clip(slope, 0, 3)))


def cut(frame: pd.DataFrame, keys: Collection[str] = tuple(PANEL_KEYS)) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of each panel under its title, in an order that does not depend on that of the frame's rows."""
    return ((title, frame.iloc[places]) for title, places in cuts(frame, keys))


def cuts(frame: pd.DataFrame, keys: Collection[str] = tuple(PANEL_KEYS)) -> list[tuple[tuple[str, ...], NDArray[np.intp]]]:
    """The same as positions of rows: of a large frame few panels are looked at."""
    differing = [name for name in varied(frame) if name in keys]
    codes = frame.groupby(list(keys), dropna=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
    firsts = frame[list(keys)].iloc[[place[0] for place in places]].astype(object).to_numpy()
    found = []
    for key, place in sorted(zip(firsts, places, strict=True), key=lambda pair: [_rank(part) for part in pair[0]]):
        said = dict(zip(keys, key, strict=True))
        found.append((tuple(PANEL_KEYS[name](said[name]) for name in differing), place))
    return found


def panels_of(frame: pd.DataFrame, quantity: Quantity, baseline: str | None) -> list[Panel]:
    """The frame cut into panels and series."""
    variants = variants_of(frame, baseline)
    panels = []
    for title, group in cut(frame):
        series = [_curve(rows, quantity, variant) for variant, rows in rows_of(variants, group)]
        panels.append(Panel(title, tuple(one for one in series if one)))
    return _without_floor(panels, quantity)


def _without_floor(panels: Sequence[Panel], quantity: Quantity) -> list[Panel]:
    """The panels as they are, or without the floor where an axis that shows it would be empty for the most part."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    for panel in panels:
        for one in panel.series:
            costs[one.op == FLOOR] += (1 / one.values if quantity.falls else one.values).tolist()
    if not (costs[True] and costs[False]) or max(costs[True]) * _FAR_OFF > min(costs[False]):
        return list(panels)
    return [replace(panel, series=tuple(one for one in panel.series if one.op != FLOOR)) for panel in panels]


def _rank(part: Any) -> tuple[int, float, str]:
    return (0, float(part), "") if isinstance(part, (int, float, np.number)) else (_NATURAL_ORDER.get(part, 99), 0.0, str(part))


def varied(frame: pd.DataFrame) -> list[str]:
    """The panel keys that differ over the frame, or from what others hold; a device's index says nothing that its name has not said."""
    apart = ["device_name"] if APART in frame and frame[APART].any() else []
    found = [name for name in PANEL_KEYS if name in apart or frame[name].nunique(dropna=False) > 1]
    one_each = len(frame[["device_name", "device"]].drop_duplicates()) == frame["device_name"].nunique(dropna=False)
    return [name for name in found if not (name == "device" and "device_name" in found and one_each)]


def common(frame: pd.DataFrame) -> list[str]:
    """What holds for all panels, as a footnote says it."""
    names = [name for name in PANEL_KEYS if name not in ("device", *varied(frame)) and frame[name].nunique(dropna=False) == 1]
    return [said for name in names if (said := PANEL_KEYS[name](frame[name].iloc[0])) != _EAGER]


def not_shown(frame: pd.DataFrame, drawn: Collection[str], zero: Mapping[str, str]) -> list[str]:
    """Which operators are not, or not whole, on the axes, and why: `zero` says it of those with a figure of 0, which a log axis lacks."""
    absent = dict(zero) | {
        str(label): "/".join(sorted(set(rows["status"]) - {"ok"})) or "not measured"
        for label, rows in frame.groupby("label")
        if label not in {*drawn, *zero}
    }
    return ["not shown: " + ", ".join(f"{label} ({why})" for label, why in sorted(absent.items()))] if absent else []


def least_of(frame: pd.DataFrame, quantity: Quantity) -> dict[str, str]:
    """What costs nothing, or is the floor, and what is to be said of it where it is not on the axis."""
    ok = frame[frame["status"] == "ok"]
    values = ok[(ok["op"] == FLOOR) | (ok[quantity.column] == 0)].groupby("label")[quantity.column]
    nearest = values.min() if quantity.falls else values.max()
    words = ("far above", "at least") if quantity.falls else ("far below", "at most")
    return {
        str(label): f"{words[0]}, {quantity.text(value, 2)} {words[1]}" if value else "0" for label, value in nearest.items() if value >= 0
    }


def own_up(frame: pd.DataFrame) -> list[str]:
    """Where LiSA's code comes from, if it is in the frame."""
    return ["LiSA: reconstruction from the paper's abstract"] if SUBJECT in set(frame["op"]) else []


def footnote(frame: pd.DataFrame, panels: Sequence[Panel], quantity: Quantity) -> list[str]:
    """What holds for all panels, how the figures came about, and what is not to be seen on the axes."""
    parts = common(frame)
    series = [one for panel in panels for one in panel.series]
    cold = TIME[0] in quantity.columns and "cold" in set(frame.get("latency_s.kind", ()))
    note = quantity.note + (", L2 cache flushed before each call" if cold else "")
    parts.append(f"{note} with 95% interval" if any(np.isfinite(one.low).any() for one in series) else note)
    if any(one.failure and len(one.tokens) for one in series):
        parts.append("dotted: extrapolated to the size that failed")
    if quantity.levels:
        levels = (f"{name} ({quantity.text(value, 1)})" for name, value in quantity.levels)
        parts.append(f"dashed across: {' and '.join(levels)}")
    shown = {one.label for one in series}
    least = {label: why for label, why in least_of(frame, quantity).items() if why == "0" or label not in shown}
    return parts + not_shown(frame, shown, least) + own_up(frame)
