"""The figure `error`: relative error against latency, an operator a colour and a dtype a shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lisabench import units
from lisabench.render import families
from lisabench.render.curves import PANEL_KEYS, common, cut, narrowed, not_shown, own_up, rows_of, variants_of
from lisabench.render.page import INK, Sign
from lisabench.render.palette import CVPR_FULL, Look, Style
from lisabench.render.scatter import draw_fields
from lisabench.render.traces import Field, Plot, tokens_note, trace

_ERROR, _LATENCY = "relative_error", "latency_s.median"
_INTERVAL = ("latency_s.ci_low", "latency_s.ci_high")
_SHAPES = {"fp64": "D", "fp32": "o", "tf32": "p", "bf16": "^", "fp16": "s"}
_OTHER_SHAPE = "h"


def _power(value: float) -> str:
    """2e-07 -> '2·10⁻⁷'; as matplotlib's own math is off, so that a name with a dollar sign stays as it is."""
    factor, _, exponent = f"{value:.0e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if factor == "1" else f"{factor}·10{raised}"


def draw(frame: pd.DataFrame, *, baseline: str | None = None, style: Style = CVPR_FULL) -> Figure | None:
    """Relative error to the float64 reference against latency a call, an operator's sizes joined; a device, scope, mode, dim, heads and
    batch a panel. Where there are several dtypes, the shape of a marker is the dtype's; else it is the operator's, as in other figures.
    None where no finished cell has both figures."""
    frame = narrowed(frame, [_ERROR, _LATENCY, *_INTERVAL])
    variants = variants_of(frame, baseline)
    measured = frame[(frame["status"] == "ok") & (frame[_ERROR] > 0) & (frame[_LATENCY] > 0)]
    dtypes = sorted(set(measured["dtype"]), key=lambda dtype: ([*_SHAPES, dtype].index(dtype), dtype))
    shapes = {dtype: _SHAPES.get(dtype, _OTHER_SHAPE) for dtype in dtypes}
    fields, bare = [], []
    for title, group in cut(frame, [name for name in PANEL_KEYS if name != "dtype"]):
        traces = []
        for variant, rows in rows_of(variants, group):
            for dtype, shape in shapes.items():
                look = replace(variant.look, marker=shape, fill="full") if len(shapes) > 1 else variant.look
                traces.append(trace(rows[rows["dtype"] == dtype], variant, _LATENCY, _ERROR, span=_INTERVAL, look=look))
        traces = [one for one in traces if len(one.tokens)]
        if traces:
            fields.append(Field(title, tuple(traces)))
        else:
            bare.append(", ".join(title))
    if not fields:
        return None
    key = tuple(Sign(dtype, INK, Look(INK, shape)) for dtype, shape in shapes.items()) if len(shapes) > 1 else ()
    plot = Plot("Latency per call", "Rounding error (relative)", lambda value: units.seconds(value, 1), _power, key)
    spans = any(np.isfinite(one.spans).any() for field in fields for one in field.traces)
    note = [*common(frame), tokens_note(fields, style)]
    note.append("median latency" + (", with its 95% interval where that is wider than the marker" if spans else ""))
    note.append("error: ‖out − ref‖ / ‖ref‖ to the operator's own float64 dense reference, not to softmax")
    note += [f"no figures for {title}" for title in bare]
    drawn = {one.label for field in fields for one in field.traces}
    return draw_fields(*families.split(plot, fields), [*note, *not_shown(frame, drawn, _zero(frame)), *own_up(frame)], style)


def _zero(frame: pd.DataFrame) -> dict[str, str]:
    """Operator -> how much of it has an error of exactly 0, which has no place on a log axis."""
    known = frame[(frame["status"] == "ok") & (frame[_LATENCY] > 0) & frame[_ERROR].notna()]
    found = {}
    for label, rows in known.groupby("label"):
        zeros = int((rows[_ERROR] == 0).sum())
        if zeros:
            found[str(label)] = "0" if zeros == len(rows) else f"0 in {zeros} of {len(rows)} cells"
    return found
