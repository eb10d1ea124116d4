"""A figure's page: panels side by side, what is written around them, and its files. In points (1/72 inch) until matplotlib draws."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pgf import RendererPgf
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from numpy.typing import ArrayLike

from lisabench.errors import unknown
from lisabench.files import write_whole
from lisabench.render.labels import Box, Placed
from lisabench.render.latex import escape
from lisabench.render.palette import CVPR_FULL, LEADING, Look, Style, text_size, wrap, wrap_words

# A font that is not there costs a line a text; the families of a style fall back to what matplotlib brings.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_DPI = 200
_KEY_LINE = 13.0  # points
INK, CONTEXT = "#444444", "#D2D2D2"
"""The colours of what is written around panels, and of what is in a panel only to be seen."""

SAFE = 0.95
"""The share of a page's width that is for footnotes: drawn in other settings than a style's, hinted letters are some percent wider."""

Ticks = tuple[Sequence[float], Sequence[str]]
"""Where ticks stand, and the text of each ("" for none)."""


@dataclass(frozen=True)
class Sign:
    """An entry of the key: a text with its marker, its line (`width` in points), or both."""

    text: str
    colour: str
    look: Look | None = None
    width: float = 0.0

    @property
    def indent(self) -> float:
        """Where its text begins, in points from where it does."""
        return _KEY_LINE + 3 if self.width else 5


@dataclass(frozen=True)
class Page:
    """A figure's measures, found before anything is drawn: how wide panels are, each one's axes, whether ticks under it have texts, its
    title; with `small` panels one name of the x axis stands for all."""

    style: Style
    size: tuple[float, float]
    across: float
    boxes: tuple[Box, ...]
    bottom_row: tuple[bool, ...]
    titles: tuple[str, ...]
    footnote: str
    key: tuple[Sign, ...]
    small: bool

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
        self.write(figure, Placed(self.footnote, font, Box(2, 2, 2 + size[0], 2 + size[1])), "footnote", INK)

    def write_key(self, figure: Figure) -> None:
        """Writes what lines and markers mean above the panels."""
        font, leading = self.style.font(self.style.text - 0.5), LEADING * self.style.text
        for sign, (x, row) in zip(self.key, _key_places(self.key, self.boxes[0].left, self.style)[0], strict=True):
            y = self.size[1] - (row + 0.5) * leading - 1
            if sign.width:
                self.line(figure, [(x, y), (x + _KEY_LINE, y)], color=sign.colour, linewidth=sign.width, gid="key-line")
            if sign.look:
                middle, size = (x + _KEY_LINE / 2, 2.6) if sign.width else (x, 4.4)
                self.line(figure, [(middle, y)], color=sign.colour, linestyle="", gid=f"key:{sign.text}", **marker_of(sign.look, size))
            width, height = text_size(sign.text, font)
            start, top = x + sign.indent, y + LEADING * font.points / 2
            self.write(figure, Placed(sign.text, font, Box(start, top - height, start + width, top)), "key-label", INK)

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
        if self.bottom_row[index] and not self.small:
            axes.set_xlabel(names[0], labelpad=2)
        elif self.small and index == 0:  # small panels are narrower than the name: it stands once, under the middle of all
            right, bottom = max(box.right for box in self.boxes), min(box.bottom for box in self.boxes)
            at = (box.left + right) / 2 / width, (bottom - 1.9 * font.points - 4) / height
            figure.text(*at, names[0], fontproperties=font.properties, ha="center", va="center", gid="axis")
        long = self.small and text_size(names[1], font)[0] > box.top - box.bottom  # the name of y would run into that of the next row
        if first and (index == 0 or not long):
            bottom = min(box.bottom for box in self.boxes) if long else box.bottom
            at = 0.65 * font.points / width, (bottom + box.top) / 2 / height
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


def columns_of(panels: int, style: Style, *, small: bool = False) -> int:
    """How many panels stand side by side: as many as keep 2 inches each, at most 3; small ones 1.45 inches, in rows as even as can be."""
    if small:
        rows = -(-panels // max(1, int(style.width / 1.45)))
        return -(-panels // rows)
    most = max(1, min(3, int(style.width / 2)))
    return min(most, panels) if panels != 4 else min(most, 2)


def _key_places(key: Sequence[Sign], left: float, style: Style) -> tuple[list[tuple[float, int]], int]:
    """Where each entry of a key begins, and in which line, if the first panel begins at `left`; how many lines they take."""
    font, places = style.font(style.text - 0.5), list[tuple[float, int]]()
    x, first, lines = left + 3, 0, 0
    for sign in key:
        width = text_size(sign.text, font)[0] + sign.indent
        if places and x + width > style.width * 72 - 2:
            x, first = left + 3, lines
        places.append((x, first))
        x, lines = x + width + 13, max(lines, first + 1 + sign.text.count("\n"))
    return places, lines


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
    key: Sequence[Sign] = (),
    small: bool = False,
) -> Page:
    """A page with a panel a title, so many `columns` of them side by side. `left` is kept for the texts of the y axis, `gutter` right of
    each panel for labels, `gap` between that and the next panel; `height` is a panel's. The key stands above, the footnote below."""
    font, fine = style.font(style.text), style.font(style.small)
    width, count = style.width * 72, len(titles)
    rows = -(-count // columns)
    cell = (width - left) / columns
    across = cell - gutter - gap
    wrapped = [wrap(title, ", ", cell - 8, font) for title in titles]
    title_height = max(text_size(title, font)[1] for title in wrapped) + 3 if any(wrapped) else 3
    note = wrap_words(footnote, " · ", SAFE * (width - 4), fine)
    under = 2.4 * style.text + 8  # tick labels and the axis label
    has_axis = [index + columns >= count for index in range(count)]
    top = text_size(note, fine)[1] + 4
    bottoms: list[float] = [0.0] * rows
    for row in reversed(range(rows)):
        if row == rows - 1 or any(has_axis[row * columns : (row + 1) * columns]):
            top += under if row == rows - 1 or not small else under - LEADING * style.text
        else:
            top += 6
        bottoms[row] = top
        top += height + title_height
    boxes = []
    for index in range(count):
        x, y = left + index % columns * cell, bottoms[index // columns]
        boxes.append(Box(x, y, x + across, y + height))
    small_font = style.font(style.text - 0.5)
    signs = [replace(sign, text=wrap_words([sign.text], " ", width - left - sign.indent - 5, small_font)) for sign in key]
    head = _key_places(signs, left, style)[1] * LEADING * style.text + 3 if key else 0
    return Page(style, (width, top + head), across, tuple(boxes), tuple(has_axis), tuple(wrapped), note, tuple(signs), small)


class _Pgf(RendererPgf):
    """Writes PGF without LaTeX at hand: texts are measured as they were to be placed, and their special characters escaped."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: bool | Literal["TeX"]) -> tuple[float, float, float]:
        width, height, descent = (
            self.points_to_pixels(length) for length in TextToPath().get_text_width_height_descent(s, prop, ismath=False)
        )
        return width, height, descent

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: FontProperties, angle: float, ismath: Any = False, mtext: Any = None
    ) -> None:
        # LaTeX would put the middle of the letters that a text has where the middle of a line belongs.
        anchored = mtext if mtext is not None and mtext.get_verticalalignment() != "center" else None
        super().draw_text(gc, x, y, "".join(_SIGNS.get(character) or escape(character) for character in s), prop, angle, mtext=anchored)


_SIGNS = {" ": " ", "★": r"\ensuremath{\star}", "…": r"\ldots{}"}  # what stands in figures and in no table


def _pgf(figure: Figure) -> bytes:
    """The figure for \\input in a LaTeX document that loads pgf; it has the document's fonts."""
    held, (width, height) = io.StringIO(), figure.get_size_inches()
    corner = rf"\pgfqpoint{{{width:f}in}}{{{height:f}in}}"
    bounds = rf"\pgfpathrectangle{{\pgfpointorigin}}{{{corner}}}\pgfusepath{{use as bounding box, clip}}"
    held.write(rf"\begingroup\makeatletter\begin{{pgfpicture}}{bounds}%" + "\n")
    figure.draw(_Pgf(figure, held))
    held.write(r"\end{pgfpicture}\makeatother\endgroup" + "\n")
    return held.getvalue().encode()


# What to leave out of a file so that it depends on nothing but the figure.
_METADATA: Mapping[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
FORMATS = (*_METADATA, "pgf")


def check_formats(formats: Iterable[str]) -> None:
    """Raises: InputError for a format that figures are not written in."""
    for form in formats:
        if form not in FORMATS:
            raise unknown("figure format", form, FORMATS)


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = ("pdf", "png")) -> list[Path]:
    """Writes a figure as FOLDER/NAME.FORMAT ("pdf", "png" with 200 dpi, "svg", "pgf") and returns the paths. A file is whole or not
    there, and the same figure gives the same bytes. PGF cannot hold pictures: what has some is written as PDF in its place.

    Raises: InputError for an unknown format, RunError where the files cannot be written.
    """
    check_formats(formats := list(formats))
    if figure.findobj(AxesImage):
        formats = list(dict.fromkeys("pdf" if form == "pgf" else form for form in formats))
    paths = [folder / f"{name}.{form}" for form in formats]
    for form, path in zip(formats, paths, strict=True):
        with mpl.rc_context(CVPR_FULL.settings):
            write_whole(path, _pgf(figure) if form == "pgf" else _drawn(figure, form))
    return paths


def _drawn(figure: Figure, form: str) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format=form, dpi=_DPI, metadata=_METADATA[form])
    return held.getvalue()
