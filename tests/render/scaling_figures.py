"""Made frames of scaling runs, and what stands in the figures drawn of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisabench.render import figures

FIVE = ("lisa", "softmax", "softmax_dense", "performer", "linear")
ALL = (
    *FIVE, "softmax_rpe", "nprf", "topvit", "urpe", "rsa", "gfnet", "afno", "fnet", "nystrom", "linformer", "xcit", "efficientvit",
    "focused", "agent", "cosformer", "soft", "lambda", "toeplitz", "hydra", "separable", "window", "sra", "identity", "pool", "depthwise",
)  # fmt: skip
FAMILIES = {
    "quadratic": ("softmax", "softmax_dense", "softmax_rpe", "urpe"),
    "structure-aware": ("lisa", "rsa", "nprf", "topvit", "lambda", "toeplitz"),
    "kernel": ("performer", "linear", "efficientvit", "focused", "cosformer"),
    "low rank": ("nystrom", "linformer", "agent", "soft", "sra"),
    "spectral": ("gfnet", "afno", "fnet"),
    "channel": ("xcit", "hydra", "separable"),
    "local and control": ("window", "depthwise", "pool", "identity"),
}
FAMILY = {op: family for family, ops in FAMILIES.items() for op in ops}
SIZES = (256, 1024, 4096, 16384)
NAN = float("nan")
MEASURED = [
    "latency_s.median", "latency_s.ci_low", "latency_s.ci_high", "memory_bytes.transient", "flops.analytic", "energy_j", "roofline.share",
]  # fmt: skip


def records(
    ops: Sequence[str] = FIVE, tokens: Sequence[int] = SIZES, *, ends: dict[str, tuple[str, int]] | None = None, **axes: Any
) -> pd.DataFrame:
    """Made-up records of some growth; `ends` maps an operator to (status, tokens): so it ends, and what is larger was skipped."""
    rows = []
    for place, op in enumerate(ops):
        power = 2 if op in ("softmax", "softmax_dense", "urpe") else 1.1
        for count in tokens:
            side = round(count**0.5)
            status, at = (ends or {}).get(op, ("ok", 0))
            row = {"op": op, "label": op, "scope": "mixing", "mode": "forward", "batch": 1, "height": side, "width": side, "tokens": count}
            row |= {"dim": 192, "heads": 3, "dtype": "fp32", "device": "cpu", "device_name": "AMD EPYC, 2 threads", "reason": None}
            row["status"] = "ok" if status == "ok" or count < at else status if count == at else "skipped"
            size = (1 + place % 7) * count**power
            figures = size * 1e-9, size * 0.9e-9, size * 1.1e-9, size * 8, size * 40, size * 3e-8, count**0.1 / (4 + place % 7)
            row |= dict(zip(MEASURED, figures, strict=True))
            rows.append(row | axes | ({} if row["status"] == "ok" else dict.fromkeys(MEASURED, NAN)))
    return pd.DataFrame(rows)


def panels(**axes: list[Any]) -> pd.DataFrame:
    ends = {"softmax_dense": ("oom", 4096), "softmax": ("timeout", 16384)}
    choices = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return pd.concat([records(ends=ends, **choice) for choice in choices])


def by_family(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as a run gives it that knows families; a user's own operators have none."""
    return frame.assign(family=frame["op"].map(FAMILY).fillna(""))


ENDS = {"softmax_dense": ("oom", 4096), "urpe": ("oom", 4096), "rsa": ("timeout", 16384), "topvit": ("skipped", 4096)}
CROWD = by_family(records(ALL, ends=ENDS))

CASES = {
    "families": CROWD,
    "families-own": by_family(records((*ALL, "experiments/variants/my_own_operators.py:CrossCovarianceAttention", "mine.py:B"))),
    "families-options": pd.concat([CROWD, by_family(records(("lisa",))).assign(label="lisa (engine=direct)")]),
    "families-one-point": by_family(records(ALL, (196,))),
    "two": records(("lisa", "softmax")),
    "odd-sizes": records(tokens=(196, 256, 784, 1024, 3136, 4096, 12544, 16384), ends={"softmax_dense": ("oom", 12544)}),
    "thirty": records(ALL, ends={"softmax_dense": ("oom", 4096), "urpe": ("oom", 4096), "rsa": ("timeout", 16384)}),
    "six-panels": panels(mode=["forward", "train"], batch=[1, 8, 32]),
    "devices": panels(
        device_name=["AMD EPYC 9B14 96-Core Processor, 2 threads of 192, OMP passive", "NVIDIA H200"], dtype=["fp32", "bf16"]
    ),
    "options": pd.concat([records(), records(("lisa",)).assign(label="lisa (boundary=periodic, engine=fft, patterns=8)")]),
    "long-name": records(("lisa", "experiments/attention/variants/my_own_operators.py:CrossCovarianceAttention")),
    "all-at-once": records(FIVE, ends={"softmax_dense": ("oom", 256), "softmax": ("oom", 256), "linear": ("timeout", 1024)}),
    "same-values": pd.concat([records(("lisa",)).assign(op=op, label=op) for op in FIVE]),
    "one-point": records(tokens=(196,)),
    "nothing": records().assign(status="unsupported"),
}


def texts(figure: Figure, kind: str = "") -> list[Any]:
    """The texts of a figure that are drawn, those whose gid begins with a kind."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in found if text.get_text() and text.get_visible() and (text.get_gid() or "").startswith(kind)]


def lines(figure: Figure, gid: str) -> list[Line2D]:
    """The lines with a gid; with "kind:" those of a kind."""
    found = [(line.get_gid() or "", line) for line in figure.findobj(Line2D)]
    return [line for name, line in found if name == gid or (gid.endswith(":") and name.startswith(gid))]


@functools.cache
def _drawn(case: str, quantity: str, style: figures.Style) -> Figure:
    figure = figures.draw(CASES[case], quantity, style=style)
    figure.canvas.draw()
    return figure


def drawn(case: str, quantity: str = "latency", style: figures.Style = figures.CVPR_FULL) -> Figure:
    """A case's figure, rendered. It is only looked at, so the tests share it."""
    return _drawn(case, quantity, style)
