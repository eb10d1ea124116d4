"""Curves that are only to be seen behind those that a panel is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from lisabench.render.page import CONTEXT


def draw_context(axes: Axes, curves: Iterable[tuple[str, ArrayLike, ArrayLike]], **look: Any) -> None:
    """Draws (label, x, y) of each in grey, all as one line with gaps: matplotlib takes as long for a line of 5 points as for one of 200."""
    curves, gap = list(curves), [np.nan]
    if curves:
        x, y = (np.concatenate([np.append(np.asarray(curve[axis], dtype=float), gap) for curve in curves]) for axis in (1, 2))
        name = "|".join(label for label, _, _ in curves)
        axes.plot(x, y, color=CONTEXT, linewidth=0.5, zorder=1, gid=f"context:{name}", **look)
