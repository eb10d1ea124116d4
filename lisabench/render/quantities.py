"""What a figure of curves can show against tokens: a column of the frame, or one derived from it, and how it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from lisabench import units
from lisabench.render import slopes

TIME = ("latency_s.median", "latency_s.ci_low", "latency_s.ci_high")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a figure shows: its column of the frame (with those of its 95% interval), its axis with the text for a value and a number of
    digits and the base of its ticks, what the footnote says of it, and what the best one is ("": none is).

    A quantity that is not in the frame is derived from the columns `of`. A cost grows with the tokens and the least is the best; with
    `falls` it is the other way round. `levels` are values, each with its name, at which there is a line across every panel. `always` drawn
    is what every run has; of the others there is a figure where there is something to show.
    """

    name: str
    column: str
    axis: str
    note: str
    text: Callable[[float, int], str]
    best: str = ""
    base: int = 10
    low: str | None = None
    high: str | None = None
    of: tuple[str, ...] = ()
    derive: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame
    ticks: Callable[[float, float], list[float]] | None = None
    levels: tuple[tuple[str, float], ...] = ()
    falls: bool = False
    always: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns of a run's frame that it needs."""
        return [*self.of] or [column for column in (self.column, self.low, self.high) if column]


def flops_text(value: float, digits: int) -> str:
    """2.5e9 -> '2.50 GFLOP'."""
    number, _, prefix = units.flops(value, digits).partition(" ")
    return f"{number} {prefix}FLOP"


def _throughput(frame: pd.DataFrame) -> pd.DataFrame:
    median, low, high = (frame["batch"] / frame[column] for column in TIME)
    return frame.assign(**{"throughput": median, "throughput.ci_low": high, "throughput.ci_high": low})


def _share(frame: pd.DataFrame) -> pd.DataFrame:
    """The share's interval is that of the latency: what the roofline allows is taken as exact."""
    limit = frame["roofline.share"] * frame["latency_s.median"]
    return frame.assign(
        **{"roofline.share_low": limit / frame["latency_s.ci_high"], "roofline.share_high": limit / frame["latency_s.ci_low"]}
    )


FLOPS_NOTE = "analytic count: a multiply-add is 2, a complex FFT of n points 5 n log₂ n"

QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            name="latency",
            column="latency_s.median",
            axis="Latency per call",
            note="median",
            best="fastest",
            text=units.seconds,
            low="latency_s.ci_low",
            high="latency_s.ci_high",
            always=True,
        ),
        Quantity(
            name="memory",
            column="memory_bytes.transient",
            axis="Transient memory",
            note="peak above inputs, parameters and what the module keeps",
            best="smallest",
            text=units.size_in_bytes,
            base=2,
            always=True,
        ),
        Quantity(
            name="flops", column="flops.analytic", axis="FLOPs per call", note=FLOPS_NOTE, best="cheapest", text=flops_text, always=True
        ),
        Quantity(
            name="energy",
            column="energy_j",
            axis="Energy per call",
            note="by the device's own counter, idle draw included",
            best="most frugal",
            text=units.energy,
        ),
        Quantity(
            name="throughput",
            column="throughput",
            axis="Samples per second",
            note="batch over median latency,",
            best="fastest",
            text=lambda value, digits: f"{units.flops(value, digits)}/s",
            low="throughput.ci_low",
            high="throughput.ci_high",
            of=TIME,
            derive=_throughput,
            falls=True,
        ),
        Quantity(
            name="roofline-share",
            column="roofline.share",
            axis="Share of the roofline",
            note="least time that the measured peaks allow, over the median latency",
            best="nearest the roofline",
            text=lambda value, digits: f"{units.significant(100 * value, digits)}%",
            low="roofline.share_low",
            high="roofline.share_high",
            of=("roofline.share", *TIME),
            derive=_share,
            levels=(("all that they allow", 1.0),),
            falls=True,
        ),
        Quantity(
            name="slope",
            column=slopes.GROWTH,
            axis="Local slope  d log t / d log N",
            note="slope between neighbouring sizes (at their geometric mean)",
            text=lambda value, digits: f"{math.log2(value):g}",
            low=slopes.LOW,
            high=slopes.HIGH,
            of=TIME,
            derive=slopes.between_sizes,
            ticks=slopes.ticks,
            levels=(("linear", 2.0), ("quadratic", 4.0)),
        ),
    )
}
