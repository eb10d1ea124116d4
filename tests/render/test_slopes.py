"""The figures `slope`, `throughput`, `energy` and `roofline-share`: what they show of made growth, and what they do not claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from field_figures import check_apart, lines, note, texts
from matplotlib.figure import Figure
from scaling_figures import NAN, SIZES, panels, records

from lisabench.render import figures, slopes
from lisabench.render.curves import complete
from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL, Style
from lisabench.render.quantities import QUANTITIES, TIME

MEDIAN, LOW, HIGH = TIME


def points(figure: Figure, label: str) -> np.ndarray:
    (line,) = lines(figure, f"series:{label}")
    return np.asarray(line.get_xydata())


def growing(power: float, *, width: float = 0.1, label: str = "softmax", tokens: tuple[int, ...] = SIZES) -> pd.DataFrame:
    """An operator whose latency is N^power, with an interval of this relative width to both sides."""
    times = {MEDIAN: 1.0, LOW: 1 / (1 + width), HIGH: 1 + width}
    frame = records((label,), tokens)
    return frame.assign(**{name: 1e-9 * frame["tokens"] ** power * factor for name, factor in times.items()})


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0, -0.3])
def test_a_power_law_has_its_exponent_as_slope_at_the_geometric_means(power: float) -> None:
    found = points(figures.draw(growing(power), "slope"), "softmax")
    assert np.allclose(found[:, 0], [512, 2048, 8192])
    assert np.allclose(np.log2(found[:, 1]), power)


def test_the_interval_holds_the_slope_of_made_noise_as_often_as_it_says() -> None:
    draws, noise = 2000, 0.05
    frame = pd.concat([growing(1.0, tokens=(256, 512))] * draws, ignore_index=True).assign(dim=np.repeat(range(draws), 2))
    times = frame[MEDIAN] * np.exp(noise * np.random.default_rng(0).standard_normal(len(frame)))
    frame = frame.assign(**{MEDIAN: times, LOW: times * np.exp(-1.96 * noise), HIGH: times * np.exp(1.96 * noise)})
    found = slopes.between_sizes(complete(frame, list(TIME)))
    held = ((found[slopes.LOW] <= 2) & (found[slopes.HIGH] >= 2)).mean()
    assert len(found) == draws
    assert 0.935 < held < 0.965  # 95%, give or take three standard errors


def test_medians_without_intervals_give_slopes_without() -> None:
    frame = growing(1.0).assign(**{LOW: NAN, HIGH: None})
    found = slopes.between_sizes(complete(frame, list(TIME)))
    assert found[slopes.GROWTH].notna().all()
    assert found[[slopes.LOW, slopes.HIGH]].isna().all(axis=None)
    assert "95%" not in note(figures.draw(frame, "slope"))


def test_a_curve_of_one_size_has_no_slope_and_is_told() -> None:
    figure = figures.draw(pd.concat([growing(1.0), growing(2.0, label="rsa", tokens=(256,))]), "slope")
    assert "not shown: rsa (fewer than two sizes)" in note(figure)
    assert "linear (1) and quadratic (2)" in note(figure)


def test_curves_are_not_mixed_over_what_a_panel_shares() -> None:
    frame = pd.concat([growing(1.0).assign(compiled=False), growing(2.0).assign(compiled=True)])
    figure = figures.draw(frame, "slope")
    assert [text.get_text() for text in texts(figure, "title")] == ["eager", "compiled"]
    assert [np.log2(line.get_ydata()).round(6).tolist() for line in lines(figure, "series:softmax")] == [[1.0] * 3, [2.0] * 3]


def test_of_grids_with_as_many_tokens_the_squarest_counts() -> None:
    oblong = growing(1.0, tokens=(1024,)).assign(height=16, width=64, **{MEDIAN: 5.0})
    assert np.allclose(points(figures.draw(pd.concat([growing(1.0), oblong]), "slope"), "softmax")[:, 1], 2)


def test_throughput_is_samples_per_second_with_the_ends_of_the_interval_turned_round() -> None:
    frame = records(("softmax",), batch=8)
    figure = figures.draw(frame, "throughput")
    assert np.allclose(points(figure, "softmax")[:, 1], 8 / frame[MEDIAN])
    (band,) = (part for part in figure.axes[0].collections if part.get_gid() == "band:softmax")
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx((8 / frame[HIGH]).min())
    assert heights.max() == pytest.approx((8 / frame[LOW]).max())


def test_what_failed_stands_where_throughput_would_have_fallen_to() -> None:
    frame = pd.concat([records(("lisa", "softmax"), ends={"softmax": ("oom", 16384)}), records(("rsa",), ends={"rsa": ("oom", 256)})])
    figure = figures.draw(frame, "throughput")
    (failure,), (at_once,) = lines(figure, "failure:softmax"), lines(figure, "failure:rsa")
    assert failure.get_ydata()[0] == pytest.approx(points(figure, "softmax")[-1, 1] / 16)  # four times the tokens of a quadratic one
    low, high = np.log(figure.axes[0].get_ylim())
    assert np.log(at_once.get_ydata()[0]) < low + 0.1 * (high - low)  # the worst are below


def test_a_floor_far_above_the_others_throughput_is_told() -> None:
    frame = records(("lisa", "softmax", "identity"))
    frame.loc[frame["op"] == "identity", MEDIAN] = 1e-9
    assert "not shown: identity (far above, 1.0 G/s at least)" in note(figures.draw(frame, "throughput"))


def test_the_share_of_the_roofline_has_the_interval_of_its_latency_and_all_of_it_in_sight() -> None:
    frame = records(("lisa",))
    figure = figures.draw(frame, "roofline-share")
    assert np.allclose(points(figure, "lisa")[:, 1], frame["roofline.share"])
    (band,) = figure.axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx((frame["roofline.share"] / 0.9).max())
    assert figure.axes[0].get_ylim()[1] > 1
    assert "100%" in [text.get_text() for text in texts(figure)]


def test_a_device_without_energy_is_told_and_has_no_empty_panel() -> None:
    frame = panels(device_name=["CPU", "NVIDIA H200"])
    frame.loc[frame["device_name"] == "CPU", "energy_j"] = NAN
    figure = figures.draw(frame, "energy")
    assert [text.get_text() for text in texts(figure, "title")] == ["NVIDIA H200"]
    assert "no figures for CPU" in note(figure)
    assert "NVIDIA" not in note(figure)


@pytest.mark.parametrize("style", [CVPR_COLUMN, CVPR_FULL, Style(width=10, text=14, small=11)], ids=["column", "full", "slides"])
@pytest.mark.parametrize("quantity", ["throughput", "roofline-share", "slope"])
def test_texts_are_apart(quantity: str, style: Style) -> None:
    figure = figures.draw(panels(mode=["forward", "train"]), quantity, style=style)
    figure.canvas.draw()
    check_apart(figure, texts(figure))
    assert figure.get_size_inches()[0] == style.width


def test_what_a_run_does_not_have_is_not_drawn(tmp_path: Path) -> None:
    one = records(tokens=(196,)).drop(columns=["energy_j", "roofline.share"])
    written = figures.write_figures(one, tmp_path, formats=("svg",), baseline="softmax")
    assert {path.stem for path in written} == {"latency", "memory", "flops", "throughput"}
    failed = figures.write_figures(one.assign(status="oom"), tmp_path, formats=("svg",), baseline="softmax")
    assert {path.stem for path in failed} == {name for name, quantity in QUANTITIES.items() if quantity.always}
