"""What the tests of a figure over all operators look at: its cases, rendered once, and the texts and lines in them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL, Style

STYLES = pytest.mark.parametrize("style", [CVPR_FULL, CVPR_COLUMN], ids=["full", "column"])


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldFigure:
    """A kind of figure, the name of its files, and made-up records to draw it from."""

    name: str
    draw: Callable[..., Figure | None]
    cases: Mapping[str, pd.DataFrame]

    @functools.cache  # noqa: B019 (there are two figures, and they live as long as the tests)
    def drawn(self, case: str, style: Style) -> Figure:
        """A case's figure, rendered. It is only looked at, so the tests share it."""
        figure = self.draw(self.cases[case], style=style)
        assert figure is not None
        figure.canvas.draw()
        return figure


def texts(figure: Figure, kind: str = "") -> list[Any]:
    """The texts of a figure that are drawn, those whose gid begins with a kind."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in found if text.get_text() and (text.get_gid() or "").startswith(kind)]


def lines(figure: Figure, gid: str) -> list[Line2D]:
    return [line for line in figure.findobj(Line2D) if line.get_gid() == gid]


def note(figure: Figure) -> str:
    return str(texts(figure, "footnote")[0].get_text()).replace("\n", " ")


def check_apart(figure: Figure, found: Iterable[Any]) -> None:
    """Fails where one of the texts touches another or leaves the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    for text, box in boxes:
        assert min(box.x0, box.y0, figure.bbox.width - box.x1, figure.bbox.height - box.y1) > -1e-6, f"{text!r} is clipped: {box}"
    for (one, box), (other, another) in itertools.combinations(boxes, 2):
        # Half a pixel of a rounded box is not an overlap.
        across = min(box.x1, another.x1) - max(box.x0, another.x0)
        along = min(box.y1, another.y1) - max(box.y0, another.y0)
        assert across <= 0.5 or along <= 0.5, f"{one!r} and {other!r} overlap by {across:.1f} x {along:.1f} pixels"
