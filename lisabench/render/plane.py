"""Panels whose axes are their own and whose y axis is linear: where data lie in them, their ticks, and the page that they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lisabench.render.labels import Box, Points
from lisabench.render.page import Page, Sign, Ticks, arrange
from lisabench.render.palette import LEADING, Style, text_size

_BETWEEN = 10.0  # points between panels that have no ticks between them
_BESIDE_TICKS = 8.0  # points between a panel's tick texts and what is left of them


@dataclass(frozen=True)
class Plane:
    """A panel's axes: where they lie, their limits, and whether x is logarithmic."""

    box: Box
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False

    def at(self, x: ArrayLike, y: ArrayLike) -> Points:
        """Where data lie on the page."""
        low, high = np.log(self.x) if self.log else np.asarray(self.x)
        share_x = ((np.log(x) if self.log else np.asarray(x, float)) - low) / (high - low)
        share_y = (np.asarray(y, float) - self.y[0]) / (self.y[1] - self.y[0])
        box = self.box
        return np.column_stack([box.left + share_x * (box.right - box.left), box.bottom + share_y * (box.top - box.bottom)])


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many multiples of 1, 2 or 5 times a power of ten within the limits."""
    step = 10.0 ** np.floor(np.log10((high - low) / most))
    size = next(step * factor for factor in (1, 2, 5, 10) if np.floor(high / (step * factor)) - np.ceil(low / (step * factor)) < most)
    return [float(tick * size) for tick in range(int(np.ceil(low / size - 1e-9)), int(np.floor(high / size + 1e-9)) + 1)]


def texts_of(ticks: Sequence[float], *, percent: bool) -> list[str]:
    """The ticks as texts, with as many decimals as tell them apart."""
    shown = [100 * tick for tick in ticks] if percent else list(ticks)
    step = min(np.diff(shown), default=1.0)
    decimals = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    return [f"{tick:.{decimals}f}{'%' if percent else ''}" for tick in shown]


def page_of(
    titles: Sequence[Sequence[str]],
    footnote: Sequence[str],
    style: Style,
    *,
    columns: int,
    tick_width: float,
    named: bool,
    gutter: float,
    height: float,
    key: Sequence[Sign] = (),
    shared: bool = False,
) -> Page:
    """A page whose panels all have texts at their ticks; `tick_width` is that of the widest on a y axis, which has a name where `named`.
    Panels whose axes are `shared` have those of y in the first column only, and one name of x."""
    below = LEADING * style.text + 2
    left = tick_width + _BESIDE_TICKS + (1.2 * style.text if named else 0)
    gap = _BETWEEN if shared else tick_width + _BESIDE_TICKS
    # A last row that is not full is laid out as if it were, so that all rows lie equally far apart.
    count = len(titles)
    full = [*titles, *[()] * (-count % columns)]
    page = arrange(
        full,
        footnote,
        style,
        columns=columns,
        left=left,
        gutter=gutter,
        height=height + below,
        gap=gap,
        key=key,
        small=shared,
    )
    # The last column needs no gap behind it, and all rows have the room for tick texts that was asked for as height.
    cell = (page.size[0] - left + gap - 4) / columns
    boxes = [
        replace(box, left=(start := left + index % columns * cell), right=start + cell - gutter - gap, top=box.top - below)
        for index, box in enumerate(page.boxes[:count])
    ]
    size = page.size[0], page.size[1] - below + 1  # a title at the upper edge must not lose a hair to rounding
    return replace(
        page, boxes=tuple(boxes), across=cell - gutter - gap, size=size, bottom_row=page.bottom_row[:count], titles=page.titles[:count]
    )


def add_axes(page: Page, figure: Figure, index: int, plane: Plane, *, ticks: tuple[Ticks, Ticks], names: tuple[str, str]) -> Axes:
    """A panel's axes with a light grid, ticks and texts at both; the name of x under the lowest panels, that of y left of the first column."""
    # Names, title and looks are those of all figures; the scales are set here.
    nothing: Ticks = ([], [])
    axes = page.add_axes(figure, index, limits=((1, 2), (1, 2)), ticks=(nothing, nothing), names=names)
    axes.set(xscale="log" if plane.log else "linear", yscale="linear", xlim=plane.x, ylim=plane.y)
    axes.minorticks_off()
    (x_places, x_texts), (y_places, y_texts) = ticks
    first = plane.box.left == page.boxes[0].left
    axes.set_xticks(x_places, x_texts)
    axes.set_yticks(y_places, y_texts if first or not page.small else [""] * len(y_texts))
    return axes


def width_of(texts: Sequence[str], style: Style) -> float:
    """The widest of some tick texts, in points."""
    return max((text_size(text, style.font(style.text - 0.5))[0] for text in texts), default=0.0)
