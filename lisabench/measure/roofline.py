"""Where a call stands under its device's roofline: the time that its FLOPs and bytes need at the measured peaks.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
CACM 52(4), 2009. Peaks are measured (`lisabench.measure.peaks`), not a data sheet's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FULL_WITHIN = 0.01
# Above one by less than this, a share is two measurements of the same limit.
ABOVE_WITHIN = 0.02


def roofline(
    flops: float | None,
    bytes_moved: float | None,
    seconds: float | None,
    *,
    peaks: Mapping[str, float],
    dtype: str,
    coverage: float | None = 1.0,
) -> dict[str, Any] | str:
    """Reached FLOP/s and bytes/s, the shortest time that the peaks allow, and the share of it that was reached.

    `bytes_moved`: what must be read and written at least. `coverage`: counted over analytic FLOPs; within 1% of 1 is full.
    `peaks`: `flops_per_s_DTYPE` and `bytes_per_s`. `limit_s` is max(flops / peak, bytes / bandwidth), `share` is
    limit_s / seconds, and is not clipped: it is over 1 where data stays in a cache (see `note`). `bound` says which of the
    two is the longer: "compute" or "memory"; at the ridge point itself "compute".

    Where a figure cannot be had, the reason why, as one line, in place of the figures.
    """
    sound: list[float] = []
    for value, what, absent in (
        (flops, "FLOPs", "the FLOPs are not known"),
        (bytes_moved, "bytes moved", "the bytes moved are not known"),
        (seconds, "seconds", "there is no latency"),
        (peaks.get(f"flops_per_s_{dtype}"), f"peak FLOP/s of {dtype}", f"{dtype} has no measured peak on this device"),
        (peaks.get("bytes_per_s"), "peak bytes/s", "the copy bandwidth of this device is not measured"),
    ):
        if value is None:
            return absent
        if not (math.isfinite(value) and value > 0):
            return f"the {what} are {value:g}, which is no measure"
        sound.append(value)
    if coverage is None:
        return "the FLOPs are not checked: there is no second figure to compare them with"
    if not abs(coverage - 1) <= FULL_WITHIN:
        return f"the counters cover {100 * coverage:.1f}% of the analytic FLOPs; no FLOP/s without full coverage"
    work, traffic, taken, peak, bandwidth = sound
    compute_s, memory_s = work / peak, traffic / bandwidth
    limit_s = max(compute_s, memory_s)
    return {
        "flops_per_s": work / taken,
        "bytes_per_s": traffic / taken,
        "limit_s": limit_s,
        "share": limit_s / taken,
        "bound": "compute" if compute_s >= memory_s else "memory",
        "peak_flops_per_s": peak,
        "peak_bytes_per_s": bandwidth,
    }


def product_dtype(dtype: str, environment: Mapping[str, Any]) -> str:
    """Which peak matrix products of `dtype` run under: fp32 ones on a GPU run as tf32 where torch is told so."""
    allowed = (environment.get("gpu") or {}).get("tf32")
    if isinstance(allowed, Mapping):
        allowed = allowed.get("matmul")
    return "tf32" if dtype == "fp32" and allowed in (True, "tf32") else dtype


def note(figures: Mapping[str, Any]) -> str | None:
    """Why a share is over 1, where it is by more than two measurements of one peak differ."""
    if figures["share"] <= 1 + ABOVE_WITHIN:
        return None
    if figures["bound"] == "memory":
        return "faster than a copy of memory allows: its data stays in a cache"
    return "faster than the measured matrix product: `lisabench env` measures the peaks again, and the larger ones are kept"
