"""What a figure of one quantity against another shows: an operator's points, what bounds them, a panel, the axes. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lisabench.render.curves import Floats, Variant
from lisabench.render.labels import Points
from lisabench.render.page import Sign
from lisabench.render.palette import Look, Style, token_labels


@dataclass(frozen=True, eq=False)
class Trace:
    """An operator's points in order of tokens; `spans` are the intervals of x (NaN for none), `others` the points of further grids."""

    variant: Variant
    look: Look
    tokens: Floats
    x: Floats
    y: Floats
    spans: Points
    others: Points

    @property
    def label(self) -> str:
        """The operator's name, with its options."""
        return self.variant.label

    @property
    def family(self) -> str:
        """The operator's family, "" for none."""
        return self.variant.family

    @property
    def weight(self) -> float:
        """The width of its line in figures of curves."""
        return self.variant.weight


@dataclass(frozen=True)
class Roof:
    """The highest y at each x: `slope` times x, and `peak` at the most; and what is written by its two parts."""

    slope: float
    peak: float
    slope_text: str
    peak_text: str

    @property
    def ridge(self) -> float:
        """The x at which the two parts meet."""
        return self.peak / self.slope


@dataclass(frozen=True)
class Field:
    """What a panel shows: traces with their names; `known` ones that are named elsewhere; `context`, which is only to be seen."""

    title: tuple[str, ...]
    traces: tuple[Trace, ...]
    roof: Roof | None = None
    known: tuple[Trace, ...] = ()
    context: tuple[Trace, ...] = ()


@dataclass(frozen=True)
class Plot:
    """What the axes are called, the texts of their values, and the key to what has no name beside it."""

    x_axis: str
    y_axis: str
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]
    key: tuple[Sign, ...] = ()


def trace(rows: pd.DataFrame, variant: Variant, x: str, y: str, *, span: tuple[str, str] | None = None, look: Look | None = None) -> Trace:
    """A trace from the finished rows of a variant that have both figures over 0, the rows in the variant's order."""
    both = rows[[x, y]].to_numpy(float)
    drawn = rows[(rows["status"] == "ok").to_numpy() & (np.isfinite(both) & (both > 0)).all(axis=1)]
    curve, others = drawn.drop_duplicates("tokens"), drawn[drawn.duplicated("tokens")]
    spans = curve[list(span)].to_numpy(float) if span else np.full((len(curve), 2), np.nan)
    spans = np.where((spans > 0).all(axis=1, keepdims=True), spans, np.nan)
    tokens, xs, ys = (curve[name].to_numpy(float) for name in ("tokens", x, y))
    return Trace(variant, look or variant.look, tokens, xs, ys, spans, others[[x, y]].to_numpy(float))


def tokens_note(fields: Sequence[Field], style: Style) -> str:
    """What the sizes of the markers say."""
    tokens = tokens_of(fields)
    texts = token_texts(tokens, style)
    return f"markers grow with the tokens: {texts[0]} to {texts[-1]}" if len(tokens) > 1 else f"{texts[0]} tokens"


def tokens_of(fields: Sequence[Field]) -> list[int]:
    """All token counts of a figure."""
    return sorted({int(count) for field in fields for one in field.traces for count in one.tokens})


def token_texts(tokens: Sequence[int], style: Style) -> list[str]:
    """A text for each count, as the axes of other figures have them."""
    return token_labels(tokens, [1e4 * place for place in range(len(tokens))], style.font(style.small))  # far apart: none is left out
