"""What a scaling figure shows: quantities, and a frame of records cut into panels and series. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lisabench import units
from lisabench.render.labels import Points
from lisabench.render.palette import DASHES, FAILURES, Look, looks

Floats = NDArray[np.float64]

SUBJECT = "lisa"
SUBJECT_WEIGHT, _BASELINE_WEIGHT = 1.8, 1.4


@dataclass(frozen=True)
class Quantity:
    """What a figure shows: its column of the frame (with those of its 95% interval), its axis with the text for a value and a number of
    digits and the base of its ticks, and what the footnote says of it."""

    name: str
    column: str
    axis: str
    note: str
    text: Callable[[float, int], str]
    base: int = 10
    low: str | None = None
    high: str | None = None


def _flops(value: float, digits: int) -> str:
    number, _, prefix = units.flops(value, digits).partition(" ")
    return f"{number} {prefix}FLOP"


_FLOPS_NOTE = "analytic count: a multiply-add is 2, a complex FFT of n points 5 n log₂ n"

QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("latency", "latency_s.median", "Latency per call", "median", units.seconds, 10, "latency_s.ci_low", "latency_s.ci_high"),
        Quantity("memory", "memory_bytes.transient", "Transient memory", "peak above inputs and parameters", units.size_in_bytes, base=2),
        Quantity("flops", "flops.analytic", "FLOPs per call", _FLOPS_NOTE, _flops),
    )
}


@dataclass(frozen=True, eq=False)
class Series:
    """An operator with its options in one panel: its curve in order of tokens, and how it ends if that is a failure."""

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

    @property
    def layer(self) -> int:
        """The subject lies over the others; a baseline under them, so that a curve of the same height stays in sight."""
        return 2 if self.weight == SUBJECT_WEIGHT else 0 if self.weight == _BASELINE_WEIGHT else 1

    @property
    def end(self) -> tuple[float, float]:
        """Where the curve ends, in tokens and value: where its label belongs."""
        return self.failure[1:] if self.failure else (float(self.tokens[-1]), float(self.values[-1]))


@dataclass(frozen=True)
class Panel:
    title: tuple[str, ...]
    series: tuple[Series, ...]


# What makes a panel, in the order in which panels are sorted and titles speak, and how a title or the footnote says it.
_PANEL_KEYS: Mapping[str, Callable[[Any], str]] = {
    "device_name": str,
    "device": str,
    "scope": lambda scope: {"mixing": "mixing only", "layer": "whole layer"}.get(scope, scope),
    "mode": lambda mode: {"forward": "forward", "train": "forward + backward"}.get(mode, mode),
    "dtype": str,
    "dim": lambda dim: f"dim {dim}",
    "heads": lambda heads: f"{heads} head{'' if heads == 1 else 's'}",
    "batch": lambda batch: f"batch {batch}",
}
_NATURAL_ORDER = {name: place for place, name in enumerate(("mixing", "layer", "forward", "train", "fp64", "fp32", "tf32", "bf16", "fp16"))}


def complete(frame: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The frame with every column that is needed, the figures as floats: a run in which nothing was measured may lack some."""
    figures = [column for column in (quantity.column, quantity.low, quantity.high) if column]
    needed = ["op", "label", "status", "tokens", "height", "width", *_PANEL_KEYS] if frame.empty else []
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *needed, *figures])))
    return frame.astype(dict.fromkeys(figures, float)).assign(device_name=frame["device_name"].fillna(frame["device"]))


def _curve(rows: pd.DataFrame, quantity: Quantity, label: str, look: Look, dashes: Any, weight: float) -> Series | None:
    """A series from its rows, or None where there is nothing to draw. Of several grids with the same number of tokens the curve goes
    through the one nearest to a square; the others stand beside it as points."""
    oblong = np.abs(np.log(rows["height"] / rows["width"]))
    rows = rows.assign(_oblong=oblong).sort_values(["tokens", "_oblong"], kind="stable")
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
        failure = (str(failed["status"].iloc[0]), failed_at, _continued(tokens, values, failed_at))
    if not len(curve) and failure is None:
        return None
    other_grids = others[["tokens", quantity.column]].to_numpy(float)
    return Series(label, look, dashes, weight, tokens, values, low, high, other_grids, failure)


def _continued(tokens: Floats, values: Floats, at: float) -> float:
    """The value that a curve would have further on, by the slope of its last two points (at most cubic, never falling); NaN for none."""
    if len(tokens) == 0:
        return float("nan")
    slope = 1.0 if len(tokens) == 1 else float(np.clip(np.log(values[-1] / values[-2]) / np.log(tokens[-1] / tokens[-2]), 0, 3))
    return float(values[-1] * (at / tokens[-1]) ** slope)


def panels_of(frame: pd.DataFrame, quantity: Quantity, baseline: str | None) -> list[Panel]:
    """The frame cut into panels and series, in an order that does not depend on that of its rows."""
    found = looks(frame["op"])
    names = frame[["op", "label"]].drop_duplicates().sort_values(["op", "label"])
    weight = 0.8 if len(names) > 12 else 1.0
    weights = {baseline: _BASELINE_WEIGHT, SUBJECT: SUBJECT_WEIGHT}
    varied = _varied(frame)
    panels = []
    for key, group in sorted(frame.groupby(list(_PANEL_KEYS), dropna=False), key=lambda pair: [_rank(part) for part in pair[0]]):
        said = dict(zip(_PANEL_KEYS, key, strict=True))
        series = []
        for op, variants in names.groupby("op"):
            for place, label in enumerate(variants["label"]):
                rows = group[(group["op"] == op) & (group["label"] == label)]
                dashes = DASHES[place % len(DASHES)]
                curve = _curve(rows, quantity, str(label), found[str(op)], dashes, weights.get(str(op), weight)) if len(rows) else None
                series += [curve] if curve else []
        panels.append(Panel(tuple(_PANEL_KEYS[name](said[name]) for name in varied), tuple(series)))
    return panels


def _rank(part: Any) -> tuple[int, float, str]:
    return (0, float(part), "") if isinstance(part, (int, float, np.number)) else (_NATURAL_ORDER.get(part, 99), 0.0, str(part))


def _varied(frame: pd.DataFrame) -> list[str]:
    """The panel keys that differ over the frame; a device's index says nothing that its name has not said."""
    varied = [name for name in _PANEL_KEYS if frame[name].nunique(dropna=False) > 1]
    one_each = len(frame[["device_name", "device"]].drop_duplicates()) == frame["device_name"].nunique(dropna=False)
    return [name for name in varied if not (name == "device" and "device_name" in varied and one_each)]


def footnote(frame: pd.DataFrame, panels: Sequence[Panel], quantity: Quantity) -> list[str]:
    """What holds for all panels, how the figures came about, and what is not to be seen on the axes."""
    ok = frame[frame["status"] == "ok"]
    common = [name for name in _PANEL_KEYS if name != "device" and frame[name].nunique(dropna=False) == 1]
    parts = [_PANEL_KEYS[name](frame[name].iloc[0]) for name in common]
    series = [one for panel in panels for one in panel.series]
    parts.append(f"{quantity.note} with 95% interval" if any(np.isfinite(one.low).any() for one in series) else quantity.note)
    if any(one.failure and len(one.tokens) for one in series):
        parts.append("dotted: extrapolated to the size that failed")
    drawn = {one.label for one in series}
    zero = set(ok.loc[ok[quantity.column] == 0, "label"])
    absent = dict.fromkeys(zero, "0") | {
        label: "/".join(sorted(set(rows["status"]) - {"ok"})) or "not measured"
        for label, rows in frame.groupby("label")
        if label not in drawn | zero
    }
    if absent:
        parts.append("not shown: " + ", ".join(f"{label} ({why})" for label, why in sorted(absent.items())))
    if SUBJECT in set(frame["op"]):
        parts.append("LiSA: reconstruction from the paper's abstract")
    return parts
