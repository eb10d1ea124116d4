"""A figure's page: panels side by side, what is written around them, and its files. In points (1/72 inch) until matplotlib draws."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from lisabench.errors import unknown
from lisabench.files import write_whole
from lisabench.render.labels import Box, Placed
from lisabench.render.palette import CVPR_FULL, LEADING, Look, Style, text_size, wrap

# A font that is not there costs a line a text; the families of a style fall back to what matplotlib brings.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_DPI = 200

Ticks = tuple[Sequence[float], Sequence[str]]
"""Where ticks stand, and the text of each ("" for none)."""


@dataclass(frozen=True)
class Page:
    """A figure's measures, found before anything is drawn: how wide panels are, each one's axes, whether ticks under it have texts, its
    title."""

    style: Style
    size: tuple[float, float]
    across: float
    boxes: tuple[Box, ...]
    bottom_row: tuple[bool, ...]
    titles: tuple[str, ...]
    footnote: str

    def start(self) -> Figure:
        """An empty figure of this size."""
        figure = Figure(figsize=(self.size[0] / 72, self.size[1] / 72), dpi=_DPI)
        FigureCanvasAgg(figure)
        return figure

    def write(self, figure: Figure, placed: Placed, kind: str, colour: str) -> None:
        """Writes a text into its place; its gid says what it is."""
        at = placed.box.left / self.size[0], (placed.box.bottom + placed.box.top) / 2 / self.size[1]
        figure.text(
            *at,
            placed.text,
            fontproperties=placed.font.properties,
            va="center",
            linespacing=LEADING,
            color=colour,
            gid=kind,
            parse_math=False,
        )

    def line(self, figure: Figure, points: ArrayLike, **look: Any) -> None:
        """Draws a line through points of the page, or markers on them."""
        figure.add_artist(Line2D(*(np.asarray(points) / self.size).T, **look))

    def write_footnote(self, figure: Figure) -> None:
        """Writes the footnote under everything."""
        font = self.style.font(self.style.small)
        size = text_size(self.footnote, font)
        self.write(figure, Placed(self.footnote, font, Box(2, 2, 2 + size[0], 2 + size[1])), "footnote", "#444444")

    def add_axes(
        self,
        figure: Figure,
        index: int,
        *,
        limits: tuple[tuple[float, float], tuple[float, float]],
        ticks: tuple[Ticks, Ticks],
        names: tuple[str, str],
    ) -> Axes:
        """A panel's axes, both logarithmic: a light grid, ticks and what is written around them. Limits, ticks and names are of x and y;
        their texts stand under the lowest panels and left of the first column."""
        box, (width, height) = self.boxes[index], self.size
        font, small = self.style.font(self.style.text), self.style.font(self.style.text - 0.5)
        axes = figure.add_axes((box.left / width, box.bottom / height, (box.right - box.left) / width, (box.top - box.bottom) / height))
        axes.set(xscale="log", yscale="log", xlim=limits[0], ylim=limits[1])
        axes.minorticks_off()
        axes.grid(True, color="#E4E4E4", linewidth=0.4)
        axes.set_axisbelow(True)
        axes.tick_params(length=2, width=0.5, pad=2, labelsize=small.points)
        (x_ticks, x_texts), (y_ticks, y_texts) = ticks
        first = box.left == self.boxes[0].left
        axes.set_xticks(x_ticks, x_texts if self.bottom_row[index] else [""] * len(x_texts))
        axes.set_yticks(y_ticks, y_texts if first else [""] * len(y_texts))
        if self.bottom_row[index]:
            axes.set_xlabel(names[0], labelpad=2)
        if first:
            at = 0.65 * font.points / width, (box.bottom + box.top) / 2 / height
            figure.text(*at, names[1], fontproperties=font.properties, rotation=90, ha="center", va="center", gid="axis")
        if self.titles[index]:
            size = text_size(self.titles[index], font)
            place = Box(box.left, box.top + 3, box.left + size[0], box.top + 3 + size[1])
            self.write(figure, Placed(self.titles[index], font, place), "title", "black")
        return axes


def marker_of(look: Look, size: float) -> dict[str, Any]:
    """How matplotlib is told an operator's marker, `size` in points."""
    filled = {"markerfacecolor": "white" if look.fill == "none" else look.colour, "markerfacecoloralt": "white"}
    return {"marker": look.marker, "markersize": size, "markeredgewidth": 0.7, "fillstyle": look.fill} | filled


def columns_of(panels: int, style: Style) -> int:
    """How many panels stand side by side: as many as keep 2 inches each, at most 3."""
    most = max(1, min(3, int(style.width / 2)))
    return min(most, panels) if panels != 4 else min(most, 2)


def arrange(
    titles: Sequence[Sequence[str]],
    footnote: Sequence[str],
    style: Style,
    *,
    columns: int,
    left: float,
    gutter: float,
    height: float,
    gap: float = 4,
    head: float = 0,
) -> Page:
    """A page with a panel a title, so many `columns` of them side by side. `left` is kept for the texts of the y axis, `gutter` right of each panel for labels, `gap` between
    that and the next panel, `head` free above everything; `height` is a panel's."""
    font, small = style.font(style.text), style.font(style.small)
    width, count = style.width * 72, len(titles)
    rows = -(-count // columns)
    cell = (width - left) / columns
    across = cell - gutter - gap
    wrapped = [wrap(title, ", ", cell - 8, font) for title in titles]
    title_height = max(text_size(title, font)[1] for title in wrapped) + 3 if any(wrapped) else 3
    note = wrap(footnote, " · ", width - 4, small)
    under = 2.4 * style.text + 8  # tick labels and the axis label
    has_axis = [index + columns >= count for index in range(count)]
    top = text_size(note, small)[1] + 4
    bottoms: list[float] = [0.0] * rows
    for row in reversed(range(rows)):
        top += under if any(has_axis[row * columns : (row + 1) * columns]) else 6
        bottoms[row] = top
        top += height + title_height
    boxes = []
    for index in range(count):
        x, y = left + index % columns * cell, bottoms[index // columns]
        boxes.append(Box(x, y, x + across, y + height))
    return Page(style, (width, top + head), across, tuple(boxes), tuple(has_axis), tuple(wrapped), note)


# What to leave out of a file so that it depends on nothing but the figure.
_METADATA: Mapping[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = ("pdf", "png")) -> list[Path]:
    """Writes a figure as FOLDER/NAME.FORMAT ("pdf", "png" with 200 dpi, "svg") and returns the paths. A file is whole or not there,
    and the same figure gives the same bytes.

    Raises: InputError for an unknown format, RunError where the files cannot be written.
    """
    formats = list(formats)
    for form in formats:
        if form not in _METADATA:
            raise unknown("figure format", form, _METADATA)
    paths = []
    for form in formats:
        held = io.BytesIO()
        with mpl.rc_context(CVPR_FULL.settings):
            figure.savefig(held, format=form, dpi=_DPI, metadata=_METADATA[form])
        path = folder / f"{name}.{form}"
        write_whole(path, held.getvalue())
        paths.append(path)
    return paths
