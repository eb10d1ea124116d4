"""How steeply latency grows between neighbouring sizes, made from a frame for the figure `slope`. Draws nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from lisabench.results import CURVE

GROWTH, LOW, HIGH = "growth", "growth.ci_low", "growth.ci_high"
TOO_FEW = "fewer than two sizes"
_TIME = ("latency_s.median", "latency_s.ci_low", "latency_s.ci_high")
_SERIES = ("op", "label", "family", "device_name", *CURVE)


def between_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of neighbouring finished sizes of a curve, at their geometric mean of tokens; of several grids with as many
    tokens the one nearest to a square counts.

    `growth` is 2^slope, what twice the tokens cost times as much at the local slope d log t / d log N: so a slope's place on a linear
    axis is that of its growth on a logarithmic one. Its interval follows from those of the two medians, which are independent: the
    distances of their ends from them, as logarithms, add up as squares (a curve without intervals has none). A curve of fewer than two
    sizes is a row that is not `ok` and says so.

    Source: G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27, 2008,
    equation 3: limits for a difference from those of its two terms.
    """
    by = list(_SERIES)
    finished = frame[(frame["status"] == "ok") & (frame[_TIME[0]] > 0)]
    oblong = np.abs(np.log(finished["height"] / finished["width"]))
    rows = finished.assign(oblong=oblong).sort_values([*by, "tokens", "oblong", "height"], kind="stable")
    rows = rows.drop_duplicates([*by, "tokens"], ignore_index=True)
    measured = rows[["tokens", *_TIME]].astype(float)
    logs = pd.DataFrame(np.log(measured.where(measured > 0).to_numpy()), columns=["size", "time", "low", "high"])
    before = logs.groupby([rows[name] for name in by], dropna=False).shift()
    octaves = (logs["size"] - before["size"]) / np.log(2)
    rise = logs["time"] - before["time"]
    down = np.hypot(logs["time"] - logs["low"], before["high"] - before["time"])
    up = np.hypot(logs["high"] - logs["time"], before["time"] - before["low"])
    growth = {GROWTH: rise, LOW: rise - down, HIGH: rise + up}
    growth = {name: np.exp(part / octaves) for name, part in growth.items()}
    pairs = rows.assign(**growth, tokens=np.exp((logs["size"] + before["size"]) / 2))[octaves.notna()]
    curves = frame.drop_duplicates(by)
    lone = curves[~pd.MultiIndex.from_frame(curves[by]).isin(pd.MultiIndex.from_frame(pairs[by]))]
    found: pd.DataFrame = pd.concat([pairs, lone.assign(status=TOO_FEW, **dict.fromkeys(growth, np.nan))], ignore_index=True)
    return found


def ticks(low: float, high: float) -> list[float]:
    """Where round slopes stand on an axis of growth."""
    ends = np.log2([low, high])
    return [2.0**slope for slope in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*ends) if ends[0] <= slope <= ends[1]]
