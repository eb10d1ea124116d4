"""Figures, rendered for real and held to what readers need: every text free and readable, every operator its own look, every file whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from field_figures import check_apart
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scaling_figures import ALL, CASES, FIVE, MEASURED, NAN, drawn, lines, records, texts

from lisabench.errors import InputError
from lisabench.render import figures
from lisabench.render.labels import spread
from lisabench.render.page import save
from lisabench.render.palette import CVPR_COLUMN, contrast_with_white, looks, token_labels, value_ticks


@pytest.mark.parametrize("style", [figures.CVPR_FULL, CVPR_COLUMN], ids=["full", "column"])
@pytest.mark.parametrize("case", CASES)
def test_no_text_touches_another_or_leaves_the_figure(case: str, style: figures.Style) -> None:
    figure = drawn(case, style=style)
    check_apart(figure, texts(figure))


@pytest.mark.parametrize("quantity", figures.QUANTITIES)
def test_names_and_guides_lie_on_no_curve(quantity: str) -> None:
    figure = drawn("odd-sizes", quantity)
    curves = np.concatenate([dense(line.get_transform().transform(line.get_xydata())) for line in lines(figure, "series:")])
    for text in [*texts(figure, "series-label"), *texts(figure, "failure-label"), *texts(figure, "guide-label")]:
        box = text.get_window_extent()
        x, y = curves.T
        assert not ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any(), f"{text.get_text()!r} lies on a curve"


def dense(points: np.ndarray) -> np.ndarray:
    share = np.linspace(0, len(points) - 1, 500)
    return np.column_stack([np.interp(share, range(len(points)), points[:, axis]) for axis in (0, 1)])


@pytest.mark.parametrize("quantity", figures.QUANTITIES)
@pytest.mark.parametrize("case", ["two", "thirty"])
def test_every_operator_is_named_in_every_panel_in_its_colour_dark_enough_to_read(case: str, quantity: str) -> None:
    figure = drawn(case, quantity)
    expected = looks(CASES[case]["op"])
    for op, look in expected.items():
        named = [text for text in texts(figure, "series-label") if text.get_gid() == f"series-label:{op}"]
        assert len(named) == len(figure.axes)
        assert all(text.get_text().split("\n")[0] == op and to_hex(text.get_color()).upper() == look.ink for text in named)
        assert contrast_with_white(look.ink) >= 4.5


def test_a_look_depends_on_the_name_alone() -> None:
    everyone = looks([*ALL, "mine.py:A"])
    assert all(looks([name])[name] == everyone[name] for name in [*ALL, "mine.py:A"])
    seen = [lines(drawn(case), "series:softmax_dense")[0] for case in ("odd-sizes", "thirty", "one-point")]
    assert {(line.get_color(), line.get_marker()) for line in seen} == {
        (everyone["softmax_dense"].colour, everyone["softmax_dense"].marker)
    }


def test_markers_differ_on_a_grey_printout() -> None:
    strangers = [f"mine.py:Operator{letter}" for letter in "ABCDEF"]
    found = looks([*ALL, *strangers])
    assert len({(look.marker, look.fill) for look in found.values()}) == len(ALL) + len(strangers)
    assert found == looks([*reversed(strangers), *reversed(ALL)])


def test_more_strangers_than_markers_still_differ() -> None:
    assert len(set(looks(f"mine.py:Operator{number}" for number in range(60)).values())) == 60


def test_options_of_one_operator_differ_in_line_style_only() -> None:
    figure = drawn("options")
    (plain,), (other,) = lines(figure, "series:lisa"), lines(figure, "series:lisa (boundary=periodic, engine=fft, patterns=8)")
    assert (plain.get_color(), plain.get_marker()) == (other.get_color(), other.get_marker())
    assert plain.get_linestyle() == "-" != other.get_linestyle()


def test_the_subject_is_strongest_then_the_baseline() -> None:
    figure = figures.draw(CASES["odd-sizes"], "latency", baseline="softmax")
    width = {op: lines(figure, f"series:{op}")[0].get_linewidth() for op in ("lisa", "softmax", "linear")}
    assert width["lisa"] > width["softmax"] > width["linear"]


def test_a_curve_that_failed_ends_in_its_mark_at_the_size_that_failed() -> None:
    figure = figures.draw(records(ends={"softmax_dense": ("oom", 4096), "softmax": ("timeout", 16384)}), "latency")
    (oom,), (timeout,) = lines(figure, "failure:softmax_dense"), lines(figure, "failure:softmax")
    assert (list(oom.get_xdata()), list(timeout.get_xdata())) == ([4096], [16384])
    assert oom.get_marker() == "x" != timeout.get_marker()
    # It stands where the curve would be: softmax is quadratic in the made-up records.
    assert timeout.get_ydata()[0] == pytest.approx(lines(figure, "series:softmax")[0].get_ydata()[-1] * 16)
    said = "\n".join(text.get_text() for text in [*texts(figure, "failure-label"), *texts(figure, "series-label")])
    assert "OOM" in said
    assert "time limit" in said
    assert "extrapolated" in texts(figure, "footnote")[0].get_text()


@pytest.mark.parametrize("status", ["skipped", "crash", "unsupported"])
def test_only_out_of_memory_and_time_limits_are_marked(status: str) -> None:
    figure = figures.draw(records(ends={"softmax": (status, 4096)}), "latency")
    assert not lines(figure, "failure:")
    assert not texts(figure, "failure-label")
    assert list(lines(figure, "series:softmax")[0].get_xdata()) == [256, 1024]


def test_a_failure_below_a_finished_size_does_not_end_the_curve() -> None:
    frame = records(("lisa", "softmax"))
    frame.loc[(frame["op"] == "softmax") & (frame["tokens"] == 1024), ["status", *MEASURED]] = ["oom", *[NAN] * len(MEASURED)]
    figure = figures.draw(frame, "latency")
    assert not lines(figure, "failure:")
    assert list(lines(figure, "series:softmax")[0].get_xdata()) == [256, 4096, 16384]


def test_a_band_is_the_interval_and_is_left_out_where_there_is_none() -> None:
    def bands(figure: Figure) -> list[str]:
        return [part.get_gid() for axes in figure.axes for part in axes.collections]

    frame = CASES["two"]
    whole = figures.draw(frame, "latency")
    assert sorted(bands(whole)) == ["band:lisa", "band:softmax"]
    assert "median with 95% interval" in texts(whole, "footnote")[0].get_text()
    without = figures.draw(frame.assign(**{"latency_s.ci_low": NAN, "latency_s.ci_high": None}), "latency")
    assert bands(without) == []
    assert "95%" not in texts(without, "footnote")[0].get_text()


def test_guides_grow_as_they_say_within_limits_that_ignore_them() -> None:
    figure = drawn("two")
    axes = figure.axes[0]
    for name, law in {"N": lambda n: n, "N log N": lambda n: n * np.log(n), "N²": lambda n: n**2}.items():
        (guide,) = lines(figure, f"guide:{name}")
        tokens, values = axes.transData.inverted().transform(guide.get_transform().transform(guide.get_xydata())).T
        assert np.allclose(values / values[0], law(tokens) / law(tokens[0]), rtol=1e-6)
        assert axes.get_ylim()[0] <= values.min()
        assert values.max() <= axes.get_ylim()[1]
    assert axes.get_ylim()[1] < 2 * CASES["two"]["latency_s.ci_high"].max()


def test_panels_share_an_axis_and_are_titled_by_what_differs() -> None:
    figure = drawn("six-panels")
    assert [text.get_text() for text in texts(figure, "title")] == [
        f"{mode}, batch {batch}" for mode in ("forward", "forward + backward") for batch in (1, 8, 32)
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 3 + ["Tokens N"] * 3
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert len({round(axes.get_position().x0, 6) for axes in figure.axes}) == 3
    note = texts(figure, "footnote")[0].get_text()
    assert "fp32" in note
    assert "dim 192" in note
    assert "3 heads" in note
    assert "AMD EPYC, 2 threads" in note
    assert "batch" not in note
    assert not texts(drawn("two"), "title")


def test_the_reconstruction_is_owned_up_to() -> None:
    sentence = "LiSA: reconstruction from the paper's abstract"
    assert sentence in texts(drawn("two", "flops"), "footnote")[0].get_text()
    assert sentence not in texts(figures.draw(records(("softmax",)), "flops"), "footnote")[0].get_text()


def test_what_cannot_stand_on_a_log_axis_is_said() -> None:
    frame = records(("lisa", "identity", "rsa"))
    frame.loc[frame["op"] == "identity", "flops.analytic"] = 0.0
    frame.loc[frame["op"] == "rsa", "status"] = "wrong"
    figure = figures.draw(frame, "flops")
    assert "not shown: identity (0), rsa (wrong)" in texts(figure, "footnote")[0].get_text()
    assert [line.get_gid() for line in lines(figure, "series:")] == ["series:lisa"]


def test_one_size_gives_markers_without_guides() -> None:
    figure = drawn("one-point", "memory")
    assert all(len(line.get_xdata()) == 1 for line in lines(figure, "series:"))
    assert not lines(figure, "guide:")


def test_of_grids_with_as_many_tokens_the_squarest_carries_the_curve() -> None:
    frame = pd.concat([records(("lisa",)), records(("lisa",), (1024,)).assign(height=16, width=64, **{"latency_s.median": 1e-3})])
    (line,) = lines(figures.draw(frame, "latency"), "series:lisa")
    assert list(line.get_xdata()) == [256, 1024, 4096, 16384]
    assert 1e-3 not in line.get_ydata()


@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame(), records().iloc[:0], records().assign(status="unsupported"), records(ends=dict.fromkeys(FIVE, ("oom", 256)))],
    ids=["no-columns", "no-rows", "unsupported", "out-of-memory"],
)
@pytest.mark.parametrize("quantity", figures.QUANTITIES)
def test_a_frame_without_a_finished_cell_says_so(frame: pd.DataFrame, quantity: str) -> None:
    figure = figures.draw(frame, quantity)
    assert [text.get_text() for text in texts(figure, "empty")] == ["no finished cell"]


def test_a_quantity_that_was_not_measured_is_no_failure() -> None:
    figure = figures.draw(CASES["two"].drop(columns="memory_bytes.transient"), "memory")
    assert "not shown: lisa (not measured), softmax (not measured)" in texts(figure, "footnote")[0].get_text()


def test_unknown_names_are_told() -> None:
    with pytest.raises(InputError, match=r"unknown quantity 'speed'.*latency, memory, flops"):
        figures.draw(CASES["two"], "speed")
    with pytest.raises(InputError, match=r"unknown baseline 'sofmax'; did you mean 'softmax'"):
        figures.draw(CASES["two"], "latency", baseline="sofmax")
    with pytest.raises(InputError, match=r"unknown figure format 'jpeg'"):
        save(Figure(), Path("nowhere"), "name", ["jpeg"])


def test_spread_moves_texts_apart_and_no_further() -> None:
    generator = np.random.default_rng(0)
    for count in (1, 2, 5, 29):
        wanted, heights = generator.uniform(0, 300, count), generator.uniform(5, 10, count)
        centres = np.array(spread(wanted.tolist(), heights.tolist(), 0, 300))
        order = np.argsort(wanted)
        edges = np.column_stack([centres - heights / 2, centres + heights / 2])[order]
        assert (edges[1:, 0] >= edges[:-1, 1] - 1e-9).all()
        assert edges.min() >= -1e-9
        assert edges.max() <= 300 + 1e-9
    assert spread([10, 100, 104], [8, 8, 8], 0, 200) == [10, 98, 106]
    assert spread([], [], 0, 1) == []


def test_ticks_are_round_and_token_labels_keep_apart() -> None:
    assert value_ticks(3e-5, 2.0, 10) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert value_ticks(3e-3, 6e-2, 10) == pytest.approx([5e-3, 1e-2, 2e-2, 5e-2])
    assert value_ticks(900, 5000, 2) == [1024, 2048, 4096]
    font = figures.CVPR_FULL.font(7)
    assert token_labels([256, 1024, 4096], [0, 100, 200], font) == ["256", "1k", "4k"]
    assert token_labels([196, 784, 3136], [0, 100, 200], font) == ["196", "784", "3,136"]
    assert token_labels([256, 512, 1024, 2048, 4096], [0, 12, 24, 36, 48], font) == ["256", "", "1k", "", "4k"]


def test_drawing_needs_neither_torch_nor_scipy_nor_pyplot() -> None:
    code = "import sys, lisabench.render.figures; print(sorted({'torch', 'scipy', 'matplotlib.pyplot'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
