"""The figure of two runs compared, of few cells and of many, with names that are hostile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scaling_figures import lines, texts

from lisabench.analysis.compare import Verdict
from lisabench.render.comparison import Row, draw
from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL, Style
from lisabench.results import Run

OPS = ("lisa", "softmax", "linear")


def made(ops: Sequence[str], cells: int, *, changed: dict[str, float] | None = None, spread: float = 0.02) -> tuple[list[Row], Run]:
    """So many cells of each operator, whose ratios scatter about 1 or about what is given."""
    generator = np.random.default_rng(1)
    rows: list[Row] = []
    for op in ops:
        for place in range(cells):
            about = (changed or {}).get(op)
            ratio = (about or 1.0) * float(np.exp(generator.normal(0, spread)))
            verdict = Verdict(
                verdict="same" if about is None else "faster" if about < 1 else "slower",
                ratio=ratio,
                ci_low=ratio * 0.97,
                ci_high=ratio * 1.03,
                p_value=0.5,
                p_adjusted=0.5,
            )
            record = {"cell": f"{op} {place}", "op": op, "tokens": 2 ** (4 + place % 10), "height": 4, "width": 2 ** (2 + place % 10)}
            record |= {"device": "cpu", "scope": "mixing", "mode": "forward", "dtype": "fp32", "compiled": False, "dim": 192, "heads": 3}
            record |= {"batch": 1 + place // 10, "environment": "e"}
            rows.append((record, record, verdict))
    environments = {"e": {"device_name": "a CPU", "cpu": {"threads": 2}}}
    run = Run(path=Path("new"), plan={"operators": {op: {"given": {}} for op in ops}}, records=[], environments=environments)
    return rows, run


def drawn(ops: Sequence[str], cells: int, style: Style = CVPR_FULL, **more: dict[str, float]) -> Figure:
    rows, run = made(ops, cells, **more)  # type: ignore[arg-type]
    figure = draw(rows, run, threshold=0.05, style=style)
    figure.canvas.draw()
    return figure


def said(figure: Figure, kind: str) -> list[str]:
    return [text.get_text() for text in texts(figure, kind)]


@pytest.mark.parametrize("style", [CVPR_FULL, CVPR_COLUMN], ids=["full", "column"])
@pytest.mark.parametrize("cells", [1, 5, 20, 60, 2000])
def test_all_is_on_the_page_and_no_texts_overlap(cells: int, style: Style) -> None:
    figure = drawn(OPS, cells, style, changed={"lisa": 1.5})
    assert figure.get_figwidth() == style.width
    assert figure.get_figheight() < 9
    found = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    page = figure.bbox
    for place, (text, box) in enumerate(found):
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text
        # A raster rounds texts up by a pixel.
        assert not [other for other, beside in found[:place] if box.padded(-1).overlaps(beside.padded(-1))], text


def test_few_cells_are_lines_with_their_tokens_and_the_slowest_operator_is_above() -> None:
    figure = drawn(OPS, 3, changed={"linear": 2.0, "softmax": 0.5})
    assert said(figure, "operator") == ["linear", "lisa", "softmax"]
    assert said(figure, "cell") == ["16", "32", "64"] * 3
    assert len(lines(figure, "interval:linear")) == 3
    heights = [float(np.asarray(line.get_ydata())[0]) for line in lines(figure, "slower:linear") + lines(figure, "faster:softmax")]
    assert heights == sorted(heights, reverse=True)


def test_lines_lie_where_the_ratios_are() -> None:
    rows, run = made(("lisa",), 4, changed={"lisa": 1.5})
    figure = draw(rows, run, threshold=0.1)
    for kind, expected in (
        ("slower:lisa", [[row[2].ratio] for row in rows]),
        ("interval:lisa", [[row[2].ci_low, row[2].ci_high] for row in rows]),
    ):
        assert [np.asarray(line.get_xdata()).tolist() for line in lines(figure, kind)] == expected
    (band,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "threshold"]
    box = band.get_window_extent().transformed(figure.axes[0].transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((1 / 1.1, 1.1))


def test_axes_that_vary_stand_at_the_cells_and_the_others_in_the_note() -> None:
    figure = drawn(("lisa",), 12)
    assert "16, batch 1" in said(figure, "cell")
    assert "16, batch 2" in said(figure, "cell")
    (note,) = (text.replace("\n", " ") for text in said(figure, "footnote"))
    for words in ("a CPU, 2 threads", "fp32", "dim 192", "band: up to 5%, the same", "12 same of 12 cells", "LiSA: reconstruction"):
        assert words in note
    assert "batch" not in note


def test_more_cells_are_lines_with_the_count_of_what_changed() -> None:
    figure = drawn(OPS, 30, changed={"linear": 2.0})
    assert said(figure, "cell") == ["30 slower of 30"]
    assert len(lines(figure, "interval:lisa")) == 30


def test_very_many_cells_are_quantiles() -> None:
    figure = drawn(OPS, 1000, changed={"linear": 2.0})
    assert len(figure.findobj(Line2D)) < 100
    assert said(figure, "cell") == ["1,000 slower of 1,000"]
    (half,) = lines(figure, "half:lisa")
    low, high = np.asarray(half.get_xdata())
    # Quartiles of a normal distribution with a deviation of 0.02.
    assert (np.log(low), np.log(high)) == pytest.approx((-0.0135, 0.0135), abs=0.003)


def test_of_too_many_operators_those_that_changed_least_are_left_out_and_counted() -> None:
    ops = [f"op{place}" for place in range(100)]
    figure = drawn(ops, 10, changed={"op7": 2.0, "op8": 0.5})
    shown = said(figure, "operator")
    assert (shown[0], shown[-1]) == ("op7", "op8")
    assert f"{100 - len(shown)} operators that changed least are not shown" in said(figure, "footnote")[0].replace("\n", " ")


def test_hostile_names_are_written_as_they_are() -> None:
    names = ["<b>x</b> & y", "$\\frac{1}{", "a_b^c%", "own.py:Very" + "Long" * 20]
    figure = drawn(names, 1)
    shown = said(figure, "operator")
    assert {"<b>x</b> & y", "$\\frac{1}{", "a_b^c%"} <= set(shown)
    assert sum(text.startswith("Very") for text in shown) == 1
