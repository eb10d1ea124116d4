"""What the page draws its charts and tables from: records, and summaries of trainings, as plain columns for JSON. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle
from numpy.typing import ArrayLike

from lisabench.analysis.accuracy import Series, by_data, data_name, front
from lisabench.render.accuracy import COSTS
from lisabench.render.curves import PANEL_KEYS, SUBJECT, variants_of
from lisabench.render.palette import Look, contrast_with_white
from lisabench.render.quantities import FLOPS_NOTE, QUANTITIES
from lisabench.render.variants import manners
from lisabench.results import FLOOR

DARK = "#15181C"
"""The page's background in the dark; report.css states it too."""
_CONTRAST_IN_THE_DARK = 5.0
_DIGITS = 5
_PIXELS = 1.5  # a point of the paper figures on a screen
_PLACE = "device_name", "device", "scope", "mode", "dtype", "compiled", "dim", "heads"
_WORDS = dict(PANEL_KEYS) | {"compiled": lambda compiled: "compiled" if compiled else "eager"}
_SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left", ">": "triangle-right",
    "p": "pentagon", "P": "cross", "*": "star", "h": "hexagon", "d": "diamond-tall",
}  # fmt: skip
_FILLS = {"full": "", "none": "-open", "bottom": "-open-dot"}  # Plotly has no half-filled markers
_MEMORY = QUANTITIES["memory"]
_LATENCY = QUANTITIES["latency"].column
_FAR = 10  # times: the floor is switched off at first where its curve alone would take a decade of the axis

_COSTS = ("flops", "FLOPs"), ("seconds", "Latency"), ("count", "Parameters"), ("bytes", "Memory")


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its name and title, the frame's columns of the value and its interval, its unit, and what is said below it."""

    name: str
    title: str
    columns: tuple[str, ...]
    unit: str
    note: str


_SPEED_UP_NOTE = "median of ratios within common rounds; band: its 95% interval; above 1 is faster"
CHARTS = (
    Chart("latency", "Latency per call", tuple(QUANTITIES["latency"].columns), "seconds", "median; band: its 95% interval"),
    Chart("speed_up", "Speed-up over {baseline}", ("speed_up", "speed_up.ci_low", "speed_up.ci_high"), "times", _SPEED_UP_NOTE),
    Chart("memory", _MEMORY.axis, (_MEMORY.column,), "bytes", _MEMORY.note),
    Chart("flops", "FLOPs per call", ("flops.analytic",), "flops", FLOPS_NOTE),
    Chart("energy", "Energy per call", ("energy_j",), "joules", "mean over the measured calls"),
)


def sweep_data(frame: pd.DataFrame, *, baseline: str | None, patch: int | None = None) -> dict[str, Any]:
    """Columns of the records, what stands behind their codes, and the charts that have figures.

    `frame` as `curves.complete` gives it. `columns` hold an entry a record: codes into `series`, `places` (what all points of a curve
    share, but for batch and grid), `statuses` and `reasons` (-1: none), and figures (None: absent). Columns without a figure are left out.
    """
    frame = frame.assign(
        **{
            "speed_up": 1 / frame["ratio.median"],
            "speed_up.ci_low": 1 / frame["ratio.ci_high"],
            "speed_up.ci_high": 1 / frame["ratio.ci_low"],
        }
    )
    variants = sorted(
        variants_of(frame, baseline), key=lambda one: (one.op != SUBJECT, one.op != baseline, one.family == "", one.family, one.label)
    )
    floor = frame["op"] == FLOOR
    far_below = bool(frame.loc[floor, _LATENCY].max() * _FAR < frame.loc[~floor, _LATENCY].min())
    code_of = {(one.op, one.label): code for code, one in enumerate(variants)}
    place_codes, places = _places(frame)
    statuses, status_words = pd.factorize(frame["status"])
    reasons, reason_words = pd.factorize(frame["reason"])
    columns: dict[str, list[Any]] = {
        "series": [code_of[pair] for pair in zip(frame["op"].tolist(), frame["label"].tolist(), strict=True)],
        "place": place_codes,
        "status": statuses.tolist(),
        "reason": reasons.tolist(),
        **{name: frame[name].astype(int).tolist() for name in ("batch", "height", "width", "tokens")},
    }
    drawn = [chart for chart in CHARTS if frame[chart.columns[0]].notna().any()]
    for chart in drawn:
        columns |= {chart.name + end: numbers(frame[source]) for end, source in zip(("", "_low", "_high"), chart.columns, strict=False)}
    for name, source in (("share", "roofline.share"), ("error", "relative_error")):
        if frame[source].notna().any():
            columns[name] = numbers(frame[source])
    return {
        "series": [
            {"label": one.label, "family": one.family, "main": one.op in (SUBJECT, baseline), "baseline": one.op == baseline}
            | {"off": one.op == FLOOR and far_below}
            | style(one.look, dashes=one.dashes, weight=one.weight)
            for one in variants
        ],
        "places": places,
        "statuses": [str(word) for word in status_words],
        "reasons": [str(word) for word in reason_words],
        "patch": patch,
        "columns": columns,
        "charts": [
            {"name": chart.name, "title": chart.title.format(baseline=baseline or "the baseline"), "unit": chart.unit, "note": chart.note}
            for chart in drawn
        ],
    }


def needed() -> list[str]:
    """The columns of a run's frame that the page takes figures from."""
    own = [source for chart in CHARTS for source in chart.columns if chart.name != "speed_up"]
    return [*own, "ratio.median", "ratio.ci_low", "ratio.ci_high", "roofline.share", "relative_error"]


def _places(frame: pd.DataFrame) -> tuple[list[int], list[dict[str, str]]]:
    """Each record's place, and what the places are in words; a device's index only where its name does not tell it."""
    names = [name for name in _PLACE if name in frame]
    told = frame[["device_name", "device"]].drop_duplicates()
    if len(told) == frame["device_name"].nunique():
        names.remove("device")
    codes = frame.groupby(names, dropna=False, sort=True).ngroup()
    firsts = frame.loc[~codes.duplicated(), names].assign(code=codes).sort_values("code")
    return codes.tolist(), [{name: _WORDS[name](row[name]) for name in names} for row in firsts.to_dict("records")]


def training_data(series: Sequence[Series]) -> dict[str, Any]:
    """A point a series that has finished seeds, its costs with their intervals, and for each data set and cost the Pareto front."""
    drawn = manners(series, next((one.label for one in series if one.is_baseline), None))
    points: list[dict[str, Any]] = []
    for one in series:
        found = one.accuracy
        costs = {cost.name: cost.of(one) for cost in COSTS}
        point = {
            "label": one.label,
            "family": "",
            "data": data_name(one.data),
            "seeds": len(one.top1),
            "failed": ", ".join(f"{count} {status}" for status, count in sorted(one.failures.items())),
            "accuracy": numbers([found.mean, _nan(found.low), _nan(found.high)]) if found else [None] * 3,
            "seconds": numbers([_nan(one.seconds)])[0],
        }
        point |= {name: numbers([span.median, span.low, span.high]) if span else [None] * 3 for name, span in costs.items()}
        manner = drawn[one.label]
        points.append(point | style(manner.look, dashes="-", weight=manner.weight))
    return {
        "points": points,
        "fronts": {data_name(data): _fronts(data, series) for data in by_data(series)},
        "costs": [
            {"name": cost.name, "title": cost.axis.name, "unit": unit, "short": short}
            for cost, (unit, short) in zip(COSTS, _COSTS, strict=True)
            if any(point[cost.name][0] is not None and point["seeds"] for point in points)
        ],
    }


def _fronts(data: str, series: Sequence[Series]) -> dict[str, list[int]]:
    """For each cost the places in `series` of what is on the front."""
    found = {}
    for cost in COSTS:
        known = [
            (place, span.median, one.accuracy.mean)
            for place, one in enumerate(series)
            if one.data == data and one.accuracy and (span := cost.of(one))
        ]
        found[cost.name] = [known[index][0] for index in front([price for _, price, _ in known], [mean for *_, mean in known])]
    return found


def style(look: Look, *, dashes: Any, weight: float) -> dict[str, Any]:
    """How a series is drawn: colours on white and in the dark, Plotly's marker and dashes, line width in pixels, and its marker as a path
    in a square of 2 by 2 around 0."""
    dash = "solid" if dashes == "-" else ",".join(f"{2 * length:g}px" for length in dashes[1])
    return {
        "colour": look.colour,
        "dark": in_the_dark(look.colour),
        "symbol": _SYMBOLS[look.marker] + _FILLS[look.fill],
        "dash": dash,
        "width": round(_PIXELS * weight, 2),
        "path": _outline(look.marker),
    }


def in_the_dark(colour: str) -> str:
    """'#RRGGBB' mixed with white until it stands out from the dark page."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    share = 0.0
    if len(set(channels)) == 1:  # what is black on white is white on black
        channels = [255 - channel for channel in channels]
    mixed = "#" + "".join(f"{channel:02X}" for channel in channels)
    while contrast_with_white(DARK) / contrast_with_white(mixed) < _CONTRAST_IN_THE_DARK:
        share += 0.05
        mixed = "#" + "".join(f"{round(channel + share * (255 - channel)):02X}" for channel in channels)
    return mixed


def _outline(marker: str) -> str:
    shape = MarkerStyle(marker)
    polygons = shape.get_path().transformed(shape.get_transform()).to_polygons()
    largest = max(float(np.abs(polygon).max()) for polygon in polygons)
    points = (" ".join(f"{x / largest:.2f},{-y / largest:.2f}" for x, y in np.asarray(polygon)) for polygon in polygons)
    return " ".join(f"M{part}Z" for part in points)


def numbers(values: ArrayLike) -> list[float | None]:
    """Rounded to five significant digits, which keeps the page small; None for what is not finite."""
    array = np.asarray(values, dtype=float)
    rounded = np.full(len(array), None, dtype=object)
    usual = np.isfinite(array) & (np.abs(array) > 1e-250)
    power = _DIGITS - 1 - np.floor(np.log10(np.abs(array[usual])))
    # Divided by a power of ten, not multiplied by its inverse: only so is the result the number that the decimal means.
    whole = np.rint(array[usual] * 10.0**power)
    rounded[usual] = np.where(power >= 0, whole / 10.0 ** np.maximum(power, 0), whole * 10.0 ** np.maximum(-power, 0))
    rounded[np.isfinite(array) & ~usual] = 0.0
    found: list[float | None] = rounded.tolist()
    return found


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def failures(frame: pd.DataFrame, *, most: int) -> tuple[list[dict[str, Any]], int]:
    """What did not finish, by status, reason, operator and device ("" where the frame has but one), with how many cells and at which
    tokens; and how many groups are left out."""
    bad = frame[frame["status"] != "ok"].assign(reason=frame["reason"].fillna(""))
    several = frame["device_name"].nunique() > 1
    groups = bad.groupby(["status", "reason", "label", "device_name"], sort=True)["tokens"].agg(["size", "min", "max"]).reset_index()
    rows = [
        {
            "label": row["label"],
            "device": row["device_name"] if several else "",
            "status": row["status"],
            "reason": row["reason"],
            "count": row["size"],
            "sizes": f"{row['min']:,}" if row["min"] == row["max"] else f"{row['min']:,} to {row['max']:,}",
        }
        for row in groups.head(most).to_dict("records")
    ]
    return rows, len(groups) - len(rows)
