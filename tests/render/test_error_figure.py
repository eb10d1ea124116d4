"""Error against latency, rendered for real: dtypes share a panel and differ in shape, and what has no place on a log axis is told."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from field_figures import STYLES, FieldFigure, lines, note, texts
from matplotlib.figure import Figure

from lisabench.render import error, figures
from lisabench.render.palette import CVPR_FULL, Style, looks

FIVE = ("lisa", "softmax", "softmax_dense", "performer", "linear")
TWELVE = (*FIVE, "softmax_rpe", "nprf", "topvit", "urpe", "rsa", "gfnet", "afno")
SIZES = (256, 1024, 4096, 16384)
ROUNDING = {"fp64": 2e-16, "fp32": 2e-7, "bf16": 3e-3, "fp16": 4e-4, "fp8": 5e-2}
LATENCY = ["latency_s.median", "latency_s.ci_low", "latency_s.ci_high"]
NAN = float("nan")


def records(ops: Sequence[str] = FIVE, tokens: Sequence[int] = SIZES, dtypes: Sequence[str] = ("fp32",), **axes: Any) -> pd.DataFrame:
    """Made-up records: error grows a little with the tokens, and by orders of magnitude from one dtype to the next."""
    rows = []
    for (place, op), count, dtype in itertools.product(enumerate(ops), tokens, dtypes):
        side, power = round(count**0.5), 2 if op.startswith("softmax") else 1.1
        row = {"op": op, "label": op, "scope": "mixing", "mode": "forward", "batch": 1, "height": side, "width": side, "tokens": count}
        row |= {"dim": 192, "heads": 3, "dtype": dtype, "device": "cpu", "device_name": "AMD EPYC, 2 threads", "status": "ok"}
        latency = (1 + place % 7) * count**power * (1e-9 if dtype == "fp32" else 6e-10)
        row |= dict(zip(LATENCY, (latency, latency * 0.9, latency * 1.2), strict=True))
        rows.append(row | {"relative_error": ROUNDING[dtype] * (1 + place % 4) * (count / 256) ** 0.1} | axes)
    return pd.DataFrame(rows)


CASES = {
    "one": records(("lisa",)),
    "one-size": records(tokens=(1024,)),
    "one-point": records(("lisa",), tokens=(1024,)),
    "five": records(),
    "twelve": records(TWELVE),
    "dtypes": records(dtypes=("fp32", "bf16", "fp16")),
    "twelve-dtypes": records(TWELVE, dtypes=("fp32", "bf16", "fp16")),
    "same-values": records(("lisa",))
    .merge(pd.DataFrame({"other": FIVE}), how="cross")
    .assign(op=lambda f: f["other"], label=lambda f: f["other"]),
    "devices": pd.concat([records(dtypes=("fp32", "bf16"), device_name=name) for name in ("AMD EPYC, 2 threads", "NVIDIA H200")]),
    "options": pd.concat([records(), records(("lisa",)).assign(label="lisa (boundary=periodic, engine=fft, patterns=8)")]),
    "six-panels": pd.concat([records(mode=mode, batch=batch) for mode in ("forward", "train") for batch in (1, 8, 32)]),
}
FIGURE = FieldFigure(name="error", draw=error.draw, cases=CASES)


def drawn(case: str, style: Style = CVPR_FULL) -> Figure:
    return FIGURE.drawn(case, style)


@STYLES
@pytest.mark.parametrize("case", CASES)
def test_every_operator_is_named_in_every_panel_once_a_dtype(case: str, style: Style) -> None:
    figure, frame = drawn(case, style), CASES[case]
    for label in frame["label"].unique():
        named = [text for text in texts(figure) if text.get_gid() == f"series-label:{label}"]
        assert len(named) == len(figure.axes) * frame["dtype"].nunique()


def test_dtypes_share_a_panel_and_are_told_by_shape_operators_by_colour() -> None:
    figure, frame = drawn("dtypes"), CASES["dtypes"]
    assert len(figure.axes) == 1
    assert [text.get_text() for text in texts(figure, "key-label")] == ["fp32", "bf16", "fp16"]
    shapes = {dtype: lines(figure, f"key:{dtype}")[0].get_marker() for dtype in ("fp32", "bf16", "fp16")}
    assert len(set(shapes.values())) == 3
    for row in frame.to_dict("records"):
        here = [
            point
            for point in lines(figure, f"point:{row['op']}")
            if np.allclose(point.get_xydata(), [[row["latency_s.median"], row["relative_error"]]], rtol=1e-9)
        ]
        assert [point.get_marker() for point in here] == [shapes[row["dtype"]]]
        assert here[0].get_color() == looks(FIVE)[row["op"]].colour


def test_one_dtype_keeps_the_operators_own_markers() -> None:
    figure = drawn("twelve")
    assert not texts(figure, "key-label")
    assert {op: lines(figure, f"point:{op}")[0].get_marker() for op in TWELVE} == {op: look.marker for op, look in looks(TWELVE).items()}
    assert "fp32" in note(figure)


def test_a_dtype_that_is_not_known_has_a_shape_too() -> None:
    figure = error.draw(records(("lisa",), dtypes=("fp64", "fp8")))
    assert figure is not None
    assert [text.get_text() for text in texts(figure, "key-label")] == ["fp64", "fp8"]
    assert len({lines(figure, f"key:{dtype}")[0].get_marker() for dtype in ("fp64", "fp8")}) == 2


def test_points_lie_at_latency_and_error_in_order_of_tokens_and_grow() -> None:
    figure, frame = drawn("five"), CASES["five"]
    for op, rows in frame.groupby("op"):
        assert np.allclose(lines(figure, f"series:{op}")[0].get_xydata(), rows[["latency_s.median", "relative_error"]], rtol=1e-9)
        sizes = [point.get_markersize() for point in lines(figure, f"point:{op}")]
        assert len(sizes) == len(SIZES)
        assert sizes == sorted(set(sizes))
    assert "markers grow with the tokens: 256 to 16k" in note(figure)
    assert "1k tokens" in note(drawn("one-size"))


def test_an_interval_is_drawn_where_it_is_wider_than_its_point() -> None:
    frame = records(("lisa", "softmax"))
    frame.loc[frame["op"] == "lisa", ["latency_s.ci_low", "latency_s.ci_high"]] = frame.loc[
        frame["op"] == "lisa", ["latency_s.median"] * 2
    ].values
    figure = error.draw(frame)
    assert figure is not None
    assert not lines(figure, "interval:lisa")
    bars = lines(figure, "interval:softmax")
    expected = frame[frame["op"] == "softmax"]
    assert np.allclose([bar.get_xdata() for bar in bars], expected[["latency_s.ci_low", "latency_s.ci_high"]])
    assert np.allclose([bar.get_ydata()[0] for bar in bars], expected["relative_error"], rtol=1e-9)
    assert "95% interval" in note(figure)


def test_without_intervals_none_is_spoken_of() -> None:
    figure = error.draw(records().drop(columns=["latency_s.ci_low", "latency_s.ci_high"]))
    assert figure is not None
    assert not lines(figure, "interval:lisa")
    assert "95%" not in note(figure)
    assert "median latency" in note(figure)


def test_an_error_of_zero_is_told_and_not_drawn() -> None:
    frame = records(("lisa", "identity", "pool"))
    frame.loc[frame["op"] == "identity", "relative_error"] = 0.0
    frame.loc[(frame["op"] == "pool") & (frame["tokens"] == 256), "relative_error"] = 0.0
    figure = error.draw(frame)
    assert figure is not None
    assert "not shown: identity (0), pool (0 in 1 of 4 cells)" in note(figure)
    assert not lines(figure, "series:identity")
    assert len(lines(figure, "point:pool")) == 3


def test_what_was_wrong_or_not_measured_is_told_and_not_drawn() -> None:
    frame = pd.concat([records(("lisa", "rsa", "fnet")), records(("lisa",), mode="train").assign(relative_error=NAN)])
    frame.loc[frame["op"] == "rsa", "status"] = "wrong"
    frame.loc[frame["op"] == "fnet", "relative_error"] = NAN
    figure = error.draw(frame)
    assert figure is not None
    assert "not shown: fnet (not measured), rsa (wrong)" in note(figure)
    assert "no figures for forward + backward" in note(figure)
    assert len(figure.axes) == 1


def test_ticks_are_powers_and_units() -> None:
    figure = drawn("dtypes")
    assert {"10⁻⁶", "10⁻⁴"} <= {text.get_text() for text in figure.axes[0].get_yticklabels()}
    assert any(text.get_text().endswith(" ms") for text in figure.axes[0].get_xticklabels())
    assert any("·10⁻⁷" in text.get_text() for text in drawn("one").axes[0].get_yticklabels())


def test_the_footnote_says_what_error_is_and_owns_up() -> None:
    said = note(drawn("five"))
    assert "‖out − ref‖ / ‖ref‖ to the operator's own float64 dense reference" in said
    assert "reconstruction from the paper's abstract" in said


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        records().assign(status="unsupported"),
        records().drop(columns="relative_error"),
        records().assign(relative_error=NAN),
        records().assign(relative_error=None),
        records().assign(relative_error=0.0),
        records().assign(**dict.fromkeys(LATENCY, NAN)),
    ],
    ids=["no-columns", "unsupported", "old-run", "nan", "none", "exact", "no-latency"],
)
def test_nothing_is_drawn_where_there_are_no_figures(frame: pd.DataFrame, tmp_path: Path) -> None:
    assert error.draw(frame) is None
    figures.write_figures(frame, tmp_path, formats=("svg",))
    assert not (tmp_path / "error.svg").exists()
