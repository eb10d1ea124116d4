"""The roofline, rendered for real: points where the numbers say, a roof that is the lower of two peaks, and texts that hide nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from field_figures import STYLES, FieldFigure, lines, note, texts
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lisabench.render import figures, roofline
from lisabench.render.callouts import place_callouts, place_pairs
from lisabench.render.labels import Box, Ending, Occupied
from lisabench.render.palette import CVPR_FULL, Style, contrast_with_white, looks, text_size

FIVE = ("lisa", "softmax", "softmax_dense", "performer", "linear")
TWELVE = (*FIVE, "softmax_rpe", "nprf", "topvit", "urpe", "rsa", "gfnet", "afno")
THIRTY = (*TWELVE, *(f"mine.py:Operator{number}" for number in range(18)))
SIZES = (256, 1024, 4096, 16384)
PEAK, BANDWIDTH = 1e11, 2e10
PEAKS = {"roofline.peak_flops_per_s": PEAK, "roofline.peak_bytes_per_s": BANDWIDTH}
FIGURES = ["roofline.flops_per_s", "roofline.bytes_per_s", *PEAKS]
NAN = float("nan")


def records(ops: Sequence[str] = FIVE, tokens: Sequence[int] = SIZES, **axes: Any) -> pd.DataFrame:
    """Made-up records, all under the roof: intensity grows with the tokens for some operators and stays for others."""
    rows = []
    for place, op in enumerate(ops):
        for count in tokens:
            side = round(count**0.5)
            row = {"op": op, "label": op, "scope": "mixing", "mode": "forward", "batch": 1, "height": side, "width": side, "tokens": count}
            row |= {"dim": 192, "heads": 3, "dtype": "fp32", "device": "cpu", "device_name": "AMD EPYC, 2 threads", "reason": None}
            intensity = (2 + place) * (count / 64 if op.startswith(("softmax", "urpe")) else 6)
            achieved = min(PEAK, intensity * BANDWIDTH) * 0.8 / (1 + place % 5) * count / (count + 900)
            row |= {"status": "ok", "roofline.flops_per_s": achieved, "roofline.bytes_per_s": achieved / intensity}
            rows.append(row | PEAKS | axes)
    return pd.DataFrame(rows)


CASES = {
    "one": records(("lisa",)),
    "one-size": records(tokens=(1024,)),
    "one-point": records(("lisa",), tokens=(1024,)),
    "five": records(),
    "twelve": records(TWELVE),
    "thirty": records(THIRTY),
    "above-the-roof": records().assign(**dict.fromkeys(PEAKS, 1e9)),
    "no-roof": records().assign(**dict.fromkeys(PEAKS, NAN)),
    "far-ridge": records().assign(**{"roofline.peak_flops_per_s": 1e15}),
    "long-name": records(("lisa", "experiments/attention/variants/my_own_operators.py:CrossCovarianceAttention")),
    "options": pd.concat([records(), records(("lisa",)).assign(label="lisa (boundary=periodic, engine=fft, patterns=8)")]),
    "three-dtypes": pd.concat([records(TWELVE, dtype=dtype) for dtype in ("fp32", "bf16", "fp16")]),
    "six-panels": pd.concat([records(mode=mode, batch=batch) for mode in ("forward", "train") for batch in (1, 8, 32)]),
}
FIGURE = FieldFigure(name="roofline", draw=roofline.draw, cases=CASES)


def drawn(case: str, style: Style = CVPR_FULL) -> Figure:
    return FIGURE.drawn(case, style)


@STYLES
@pytest.mark.parametrize("case", ["five", "twelve", "six-panels", "above-the-roof"])
def test_no_text_in_a_panel_lies_on_a_line(case: str, style: Style) -> None:
    figure = drawn(case, style)
    shown = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 1]
    curves = np.concatenate([dense(line.get_transform().transform(line.get_xydata())) for line in shown])
    for text in [*texts(figure, "series-label"), *texts(figure, "roof-label"), *texts(figure, "tokens")]:
        box, (x, y) = text.get_window_extent(), curves.T
        assert not ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any(), f"{text.get_text()!r} lies on a line"


def dense(points: np.ndarray) -> np.ndarray:
    share = np.linspace(0, len(points) - 1, 500)
    return np.column_stack([np.interp(share, range(len(points)), points[:, axis]) for axis in (0, 1)])


@STYLES
@pytest.mark.parametrize("case", CASES)
def test_every_operator_is_named_in_every_panel_in_ink_dark_enough_to_read(case: str, style: Style) -> None:
    figure, frame = drawn(case, style), CASES[case]
    found = looks(frame["op"])
    for op, label in frame[["op", "label"]].drop_duplicates().itertuples(index=False):
        named = texts(figure, f"series-label:{label}")
        named = [text for text in named if text.get_gid() == f"series-label:{label}"]
        assert len(named) == len(figure.axes)
        assert {to_hex(text.get_color()).upper() for text in named} == {found[op].ink}
        assert contrast_with_white(found[op].ink) >= 4.5


def test_a_crowd_leaves_the_rest_of_the_names_to_a_column_with_their_markers() -> None:
    figure = drawn("thirty", Style(width=2.5))
    right = figure.axes[0].get_window_extent().x1
    aside = [text for text in texts(figure, "series-label") if text.get_window_extent().x0 > right]
    assert aside
    for text in aside:
        label = text.get_gid().partition(":")[2]
        (marker,) = lines(figure, f"legend:{label}")
        assert (marker.get_marker(), marker.get_color()) == (looks(THIRTY)[label].marker, looks(THIRTY)[label].colour)


def test_points_lie_at_intensity_and_achieved_flops_in_order_of_tokens_and_grow() -> None:
    figure, frame = drawn("five"), CASES["five"]
    for op, rows in frame.groupby("op"):
        expected = np.column_stack([rows["roofline.flops_per_s"] / rows["roofline.bytes_per_s"], rows["roofline.flops_per_s"]])
        assert np.allclose(lines(figure, f"series:{op}")[0].get_xydata(), expected)
        points = lines(figure, f"point:{op}")
        assert np.allclose(np.concatenate([point.get_xydata() for point in points]), expected)
        sizes = [point.get_markersize() for point in points]
        assert sizes == sorted(set(sizes))
        assert {(point.get_marker(), point.get_fillstyle()) for point in points} == {(looks([op])[op].marker, looks([op])[op].fill)}
    assert "markers grow with the tokens: 256 to 16k" in note(figure)
    assert {text.get_text() for text in texts(figure, "tokens")} == {"256", "16k"}


@STYLES
@pytest.mark.parametrize("case", ["five", "above-the-roof", "far-ridge", "three-dtypes"])
def test_the_roof_is_the_lower_of_both_peaks_and_its_ridge_is_in_sight(case: str, style: Style) -> None:
    frame = CASES[case]
    peak, bandwidth = (float(frame[name].iloc[0]) for name in PEAKS)
    for axes in drawn(case, style).axes:
        (roof,) = (line for line in axes.lines if line.get_gid() == "roof")
        x, y = roof.get_xydata().T
        assert np.allclose(y, np.minimum(peak, bandwidth * x))
        assert np.isclose(x, peak / bandwidth).any()
        assert np.isclose([x[-1], y[-1]], [axes.get_xlim()[1], peak]).all()
        inside = axes.transAxes.inverted().transform(axes.transData.transform((peak / bandwidth, peak)))
        assert (inside > 0.05).all()
        assert (inside < 0.97).all()


def test_both_parts_of_the_roof_are_named_with_their_figures() -> None:
    for axes_count, case in ((1, "five"), (1, "above-the-roof"), (6, "six-panels")):
        said = [text.get_text().replace("\n", " ") for text in texts(drawn(case), "roof-label")]
        flat, slope = ("100 GFLOP/s fp32, measured", "20.0 GB/s, measured")
        if case == "above-the-roof":
            flat, slope = ("1.00 GFLOP/s fp32, measured", "1.00 GB/s, measured")
        assert sorted(said) == sorted([flat, slope] * axes_count)
    assert "peaks measured on this machine" in note(drawn("five"))


def test_each_panel_has_the_roof_of_its_own_dtype() -> None:
    frame = pd.concat([records(), records(dtype="bf16").assign(**{"roofline.peak_flops_per_s": 4e11})])
    figure = roofline.draw(frame)
    assert figure is not None
    assert [text.get_text() for text in texts(figure, "title")] == ["fp32", "bf16"]
    assert [max(roof.get_ydata()) for roof in lines(figure, "roof")] == [1e11, 4e11]
    assert any("400 GFLOP/s bf16" in text.get_text() for text in texts(figure, "roof-label"))


def test_without_peaks_there_are_points_and_no_roof() -> None:
    figure = drawn("no-roof")
    assert not lines(figure, "roof")
    assert not texts(figure, "roof-label")
    assert len(lines(figure, "series:lisa")) == 1
    assert "peaks" not in note(figure)


def test_the_footnote_says_what_was_counted() -> None:
    said = note(drawn("five"))
    for part in (
        "inputs and parameters read once, the output written once",
        "a multiply-add is 2",
        "reconstruction from the paper's abstract",
    ):
        assert part in said
    assert "gradients" not in said
    assert "in training as much again for gradients" in note(drawn("six-panels"))


def test_operators_and_panels_without_figures_are_told() -> None:
    frame = pd.concat([records(("lisa", "softmax", "fnet")), records(("lisa", "softmax", "fnet"), batch=8)])
    frame.loc[frame["op"] == "fnet", FIGURES] = NAN
    frame.loc[frame["op"] == "softmax", ["status", *FIGURES]] = ["oom", *[NAN] * 4]
    frame.loc[frame["batch"] == 8, FIGURES] = NAN
    figure = roofline.draw(frame)
    assert figure is not None
    assert len(figure.axes) == 1
    assert "not shown: fnet (not measured), softmax (oom)" in note(figure)
    assert "no figures for batch 8" in note(figure)


def test_of_grids_with_as_many_tokens_the_squarest_carries_the_line() -> None:
    oblong = records(("lisa",), (1024,)).assign(height=16, width=64, **{"roofline.flops_per_s": 3e9})
    figure = roofline.draw(pd.concat([records(("lisa",)), oblong]))
    assert figure is not None
    assert 3e9 not in lines(figure, "series:lisa")[0].get_ydata()
    assert list(lines(figure, "other-grid:lisa")[0].get_ydata()) == [3e9]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        records().iloc[:0],
        records().assign(status="unsupported"),
        records().drop(columns=FIGURES),
        records().assign(**dict.fromkeys(FIGURES, NAN)),
        records().assign(**dict.fromkeys(FIGURES)),
        records().assign(**dict.fromkeys(FIGURES, 0.0)),
    ],
    ids=["no-columns", "no-rows", "unsupported", "old-run", "nan", "none", "zero"],
)
def test_nothing_is_drawn_where_there_are_no_figures(frame: pd.DataFrame, tmp_path: Path) -> None:
    assert roofline.draw(frame) is None
    figures.write_figures(frame, tmp_path, formats=("svg",))
    assert not (tmp_path / "roofline.svg").exists()


def test_callouts_lie_on_nothing_and_have_lines_that_cross_no_name() -> None:
    font = CVPR_FULL.font(7)
    generator = np.random.default_rng(0)
    points = generator.uniform(40, 160, (14, 2))
    occupied = Occupied(Box(0, 0, 200, 200))
    for point in points:
        occupied.add_path(point[None], radius=3)
    wanted = [Ending((float(x), float(y)), f"name{index}", font) for index, (x, y) in enumerate(points)]
    placed = place_callouts(occupied, wanted, [np.delete(points, index, axis=0) for index in range(len(points))])
    found = [text for text in placed if text]
    assert len(found) == len(points)
    for one, other in itertools.combinations(found, 2):
        assert not one.box.overlaps(other.box)
    for text in found:
        assert not (
            (points[:, 0] > text.box.left)
            & (points[:, 0] < text.box.right)
            & (points[:, 1] > text.box.bottom)
            & (points[:, 1] < text.box.top)
        ).any()
        for leader in (other.leader for other in found if other.leader is not None and other is not text):
            way = leader[0] + np.linspace(0, 1, 200)[:, None] * (leader[1] - leader[0])
            assert not (
                (way[:, 0] > text.box.left) & (way[:, 0] < text.box.right) & (way[:, 1] > text.box.bottom) & (way[:, 1] < text.box.top)
            ).any()


def test_there_is_no_callout_where_there_is_no_room() -> None:
    font = CVPR_FULL.font(7)
    width, height = text_size("softmax", font)
    occupied = Occupied(Box(0, 0, width - 1, height + 20))
    assert place_callouts(occupied, [Ending((5, 5), "softmax", font)], [np.empty((0, 2))]) == [None]


def test_a_pair_of_texts_is_placed_whole_or_not_at_all() -> None:
    font = CVPR_FULL.font(6)
    occupied = Occupied(Box(0, 0, 100, 40))
    pair = Ending((20, 20), "256", font), Ending((80, 20), "16k", font)
    assert [(index, text.text) for index, text in place_pairs(occupied, [pair])] == [(0, "256"), (0, "16k")]
    occupied.add_box(Box(60, 0, 100, 40))
    assert place_pairs(occupied, [pair]) == []
