"""The figure `roofline`: achieved FLOP/s against arithmetic intensity, under what the measured peaks of the machine allow.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lisabench import units
from lisabench.render import families
from lisabench.render.curves import common, cut, narrowed, not_shown, own_up, rows_of, variants_of
from lisabench.render.palette import CVPR_FULL, Style
from lisabench.render.quantities import FLOPS_NOTE
from lisabench.render.scatter import draw_fields
from lisabench.render.traces import Field, Plot, Roof, tokens_note, trace

_ACHIEVED, _TRAFFIC = "roofline.flops_per_s", "roofline.bytes_per_s"
_PEAK, _BANDWIDTH = "roofline.peak_flops_per_s", "roofline.peak_bytes_per_s"
_COUNT, _INTENSITY = "flops.analytic", "intensity"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else units.significant(value, 1)


_PLOT = Plot("Arithmetic intensity (FLOP per byte)", "Achieved FLOP/s", _number, lambda value: units.flops(value, 1))


def draw(frame: pd.DataFrame, *, baseline: str | None = None, style: Style = CVPR_FULL) -> Figure | None:
    """Achieved FLOP/s against FLOPs per byte of the least traffic, an operator's sizes joined; a device, scope, mode, dtype, dim, heads
    and batch a panel, with the roof of its device and dtype. None where no finished cell has these figures."""
    frame = narrowed(frame, [_ACHIEVED, _TRAFFIC, _PEAK, _BANDWIDTH, _COUNT])
    frame = frame.assign(**{_INTENSITY: (frame[_ACHIEVED] / frame[_TRAFFIC]).where(frame[_TRAFFIC] > 0)})
    variants = variants_of(frame, baseline)
    fields, bare = [], []
    for title, group in cut(frame):
        traces = [trace(rows, variant, _INTENSITY, _ACHIEVED) for variant, rows in rows_of(variants, group)]
        traces = [one for one in traces if len(one.tokens)]
        if traces:
            fields.append(Field(title, tuple(traces), _roof(group)))
        else:
            bare.append(", ".join(title))
    if not fields:
        return None
    note = [*common(frame), tokens_note(fields, style), "FLOP/s at the median latency"]
    if any(field.roof for field in fields):
        machine = "this machine" if frame["device_name"].nunique() == 1 else "each machine"
        note.append(f"roof: peaks measured on {machine}, of a large matrix product and of a copy")
    note.append("bytes: the least traffic, inputs and parameters read once, the output written once")
    note += ["in training as much again for gradients"] if "train" in set(frame["mode"]) else []
    note.append(FLOPS_NOTE)
    note += [f"no figures for {title}" for title in bare]
    drawn = {one.label for field in fields for one in field.traces}
    nothing = {label: "no FLOPs" for label in frame.loc[(frame["status"] == "ok") & (frame[_COUNT] == 0), "label"] if label not in drawn}
    return draw_fields(*families.split(_PLOT, fields), [*note, *not_shown(frame, drawn, nothing), *own_up(frame)], style)


def _roof(rows: pd.DataFrame) -> Roof | None:
    """The largest of the peaks that the cells of a panel were measured beside; None where there is none."""
    known = rows[(rows["status"] == "ok") & (rows[_PEAK] > 0) & (rows[_BANDWIDTH] > 0)]
    if known.empty:
        return None
    peak, bandwidth = float(known[_PEAK].max()), float(known[_BANDWIDTH].max())
    dtype = known["dtype"].iloc[0]
    return Roof(bandwidth, peak, f"{units.flops(bandwidth)}B/s, measured", f"{units.flops(peak)}FLOP/s {dtype}, measured")
