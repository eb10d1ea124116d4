"""Laws of every figure over all operators: texts apart and in sight, the same bytes each time, fonts a publisher takes."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
import test_error_figure
import test_roofline_figure
from field_figures import STYLES, FieldFigure, check_apart, texts

from lisabench.render import figures, page
from lisabench.render.palette import Style

FIGURES = (test_error_figure.FIGURE, test_roofline_figure.FIGURE)
DRAWN = [pytest.param(figure, case, id=f"{figure.name}-{case}") for figure in FIGURES for case in figure.cases]
CROWDED = {"error": "dtypes", "roofline": "twelve"}
EACH = pytest.mark.parametrize("of", FIGURES, ids=[figure.name for figure in FIGURES])


@STYLES
@pytest.mark.parametrize(("of", "case"), DRAWN)
def test_no_text_touches_another_or_leaves_the_figure(of: FieldFigure, case: str, style: Style) -> None:
    figure = of.drawn(case, style)
    check_apart(figure, texts(figure))


@EACH
def test_files_are_the_same_bytes_whatever_the_order_of_rows_and_the_users_settings(of: FieldFigure, tmp_path: Path) -> None:
    def save(frame: pd.DataFrame, name: str) -> list[bytes]:
        figure = of.draw(frame, baseline="softmax")
        assert figure is not None
        return [path.read_bytes() for path in page.save(figure, tmp_path / name, of.name, ("pdf", "png", "svg"))]

    frame = of.cases[CROWDED[of.name]]
    first = save(frame, "a")
    with mpl.rc_context({"lines.linewidth": 9, "font.family": "monospace", "pdf.fonttype": 3, "savefig.dpi": 30}):
        assert save(frame.sample(frac=1, random_state=1), "b") == first


@EACH
def test_write_figures_writes_it_with_fonts_a_publisher_takes(of: FieldFigure, tmp_path: Path) -> None:
    paths = figures.write_figures(of.cases[CROWDED[of.name]], tmp_path)
    assert {f"{of.name}.pdf", f"{of.name}.png"} <= {path.name for path in paths} == set(os.listdir(tmp_path))
    held = (tmp_path / f"{of.name}.pdf").read_bytes()
    assert b"/Type3" not in held
    assert b"/CIDFontType2" in held
    assert b"CreationDate" not in held
