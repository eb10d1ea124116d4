"""Every figure at every venue's widths: texts lie within the page and apart, and no two series look the same in grey."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
import test_error_figure
import test_patterns
import test_roofline_figure
from field_figures import check_apart, note, texts
from made_trainings import ABLATION, accuracies, write_run
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scaling_figures import CASES, records

from lisabench.analysis.accuracy import summarise
from lisabench.render import accuracy, error, figures, learning, patterns, roofline
from lisabench.render.palette import CVPR_FULL, Style
from lisabench.render.variants import manners
from lisabench.render.venues import VENUES, WIDTHS, style_of

STYLES = {style_of(venue, width): f"{venue}-{width}" for venue, width in itertools.product(list(VENUES)[::-1], WIDTHS[::-1])}
# The narrowest of each font, and the widest: what lies between follows from them, and is tried where there is time.
QUICK = {"ijcv-column", "slides-column", "poster-full"}
EACH_STYLE = pytest.mark.parametrize(
    "style", [pytest.param(s, id=n, marks=[] if n in QUICK else pytest.mark.slow) for s, n in STYLES.items()]
)

OPS = ("lisa", "softmax_dense", "experiments/attention/my_own_operators.py:CrossCovariance")
FRAME = records(OPS, ends={"softmax_dense": ("oom", 4096)})
OPTIONS = ("lisa", "lisa (patterns=8)", "lisa (boundary=periodic)", "lisa, run a", "lisa, run b")

Drawn = dict[str, Figure | None]


def scaling(style: Style, _: Path) -> Drawn:
    return {name: figures.draw(FRAME, name, style=style) for name in ("latency", "memory")}


def fields(style: Style, _: Path) -> Drawn:
    plain, dtypes = test_roofline_figure.FIGURE.cases, test_error_figure.FIGURE.cases
    return {
        "roofline": roofline.draw(next(iter(plain.values())), style=style),
        "error": error.draw(next(iter(dtypes.values())), style=style),
    }


def trainings(style: Style, folder: Path) -> Drawn:
    series = summarise([write_run(folder / "run", accuracies(["lisa", "softmax", "lisa (boundary=periodic)"]))])
    cost = next(cost for cost in accuracy.COSTS if cost.name == "memory")
    return {"accuracy": accuracy.draw(series, cost, style=style), **learning.figures(series, style=style)}


def learned(style: Style, _: Path) -> Drawn:
    one = test_patterns.found(depth=2)
    key = test_patterns.LONG
    return {"patterns": patterns.draw_patterns(key, one, style=style), "kernels": patterns.draw_kernels({key: one}, style=style)}


@EACH_STYLE
@pytest.mark.parametrize("draw", [scaling, fields, trainings, learned])
def test_texts_lie_within_the_page_and_apart(draw: Callable[[Style, Path], Drawn], style: Style, tmp_path: Path) -> None:
    drawn = draw(style, tmp_path)
    assert len(drawn) == 2
    for name, figure in drawn.items():
        assert figure is not None, name
        assert figure.get_size_inches()[0] == pytest.approx(style.width)
        with mpl.rc_context(style.settings):  # as it is saved
            figure.canvas.draw()
            check_apart(figure, texts(figure) if all(axes.axison for axes in figure.axes) else test_patterns.texts(figure))


@EACH_STYLE
def test_a_footnote_is_broken_between_words_and_loses_none(style: Style) -> None:
    figure = figures.draw(FRAME.assign(device_name=" ".join(f"device{n}" for n in range(40))), "flops", style=style)
    assert " ".join(f"device{n}" for n in range(40)) in note(figure)


@pytest.mark.slow
@pytest.mark.parametrize("style", [s for s in STYLES if s.width < 5], ids=[n for s, n in STYLES.items() if s.width < 5])
def test_a_crowd_fits_on_a_page(style: Style) -> None:
    for name in ("latency", "roofline"):
        crowd = test_roofline_figure.FIGURE.cases["thirty"] if name == "roofline" else CASES["families"]
        figure = roofline.draw(crowd, style=style) if name == "roofline" else figures.draw(crowd, name, style=style)
        assert figure is not None
        with mpl.rc_context(style.settings):
            figure.canvas.draw()
            check_apart(figure, texts(figure))
        assert figure.get_size_inches()[1] < 9


def manners_of(figure: Figure, kind: str) -> dict[str, tuple[object, ...]]:
    """The marker, its filling and the dashes of each series."""
    found = {str(line.get_gid()): line for line in figure.findobj(Line2D) if str(line.get_gid()).startswith(kind)}
    return {gid: (line.get_marker(), line.get_fillstyle(), str(line._unscaled_dash_pattern)) for gid, line in found.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", ["crowd", "options"])
def test_any_two_series_differ_in_marker_or_dashes(case: str) -> None:
    options = pd.concat([records(("lisa",)).assign(label=label) for label in OPTIONS])
    found = manners_of(figures.draw(CASES["families"] if case == "crowd" else options, "latency", style=CVPR_FULL), "series:")
    assert len(found) >= len(OPTIONS)
    assert len(set(found.values())) == len(found)


def test_any_two_operators_of_trainings_differ_in_marker_or_dashes(tmp_path: Path) -> None:
    drawn = manners(summarise([write_run(tmp_path / "run", accuracies(ABLATION, seeds=1))]), "softmax")
    looks = {(manner.look.marker, manner.look.fill, str(manner.dashes)) for manner in drawn.values()}
    assert len(looks) == len(ABLATION)
