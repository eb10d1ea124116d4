"""Figures, rendered for real and held to what readers need: every text free and readable, every operator its own look, every file whole."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisabench.errors import InputError, RunError
from lisabench.render import figures
from lisabench.render.labels import spread
from lisabench.render.palette import CVPR_COLUMN, contrast_with_white, looks, token_labels, value_ticks

FIVE = ("lisa", "softmax", "softmax_dense", "performer", "linear")
ALL = (
    *FIVE, "softmax_rpe", "nprf", "topvit", "urpe", "rsa", "gfnet", "afno", "fnet", "nystrom", "linformer", "xcit", "efficientvit",
    "focused", "agent", "cosformer", "soft", "lambda", "toeplitz", "hydra", "separable", "window", "sra", "identity", "pool", "depthwise",
)  # fmt: skip
SIZES = (256, 1024, 4096, 16384)
NAN = float("nan")
MEASURED = ["latency_s.median", "latency_s.ci_low", "latency_s.ci_high", "memory_bytes.transient", "flops.analytic"]


def records(
    ops: Sequence[str] = FIVE, tokens: Sequence[int] = SIZES, *, ends: dict[str, tuple[str, int]] | None = None, **axes: Any
) -> pd.DataFrame:
    """Made-up records of some growth; `ends` maps an operator to (status, tokens): so it ends, and what is larger was skipped."""
    rows = []
    for place, op in enumerate(ops):
        power = 2 if op in ("softmax", "softmax_dense", "urpe") else 1.1
        for count in tokens:
            side = round(count**0.5)
            status, at = (ends or {}).get(op, ("ok", 0))
            row = {"op": op, "label": op, "scope": "mixing", "mode": "forward", "batch": 1, "height": side, "width": side, "tokens": count}
            row |= {"dim": 192, "heads": 3, "dtype": "fp32", "device": "cpu", "device_name": "AMD EPYC, 2 threads", "reason": None}
            row["status"] = "ok" if status == "ok" or count < at else status if count == at else "skipped"
            size = (1 + place % 7) * count**power
            row |= dict(zip(MEASURED, (size * 1e-9, size * 0.9e-9, size * 1.1e-9, size * 8, size * 40), strict=True))
            rows.append(row | axes | ({} if row["status"] == "ok" else dict.fromkeys(MEASURED, NAN)))
    return pd.DataFrame(rows)


def panels(**axes: list[Any]) -> pd.DataFrame:
    ends = {"softmax_dense": ("oom", 4096), "softmax": ("timeout", 16384)}
    choices = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return pd.concat([records(ends=ends, **choice) for choice in choices])


CASES = {
    "two": records(("lisa", "softmax")),
    "odd-sizes": records(tokens=(196, 256, 784, 1024, 3136, 4096, 12544, 16384), ends={"softmax_dense": ("oom", 12544)}),
    "thirty": records(ALL, ends={"softmax_dense": ("oom", 4096), "urpe": ("oom", 4096), "rsa": ("timeout", 16384)}),
    "six-panels": panels(mode=["forward", "train"], batch=[1, 8, 32]),
    "devices": panels(
        device_name=["AMD EPYC 9B14 96-Core Processor, 2 threads of 192, OMP passive", "NVIDIA H200"], dtype=["fp32", "bf16"]
    ),
    "options": pd.concat([records(), records(("lisa",)).assign(label="lisa (boundary=periodic, engine=fft, patterns=8)")]),
    "long-name": records(("lisa", "experiments/attention/variants/my_own_operators.py:CrossCovarianceAttention")),
    "all-at-once": records(FIVE, ends={"softmax_dense": ("oom", 256), "softmax": ("oom", 256), "linear": ("timeout", 1024)}),
    "same-values": pd.concat([records(("lisa",)).assign(op=op, label=op) for op in FIVE]),
    "one-point": records(tokens=(196,)),
    "nothing": records().assign(status="unsupported"),
}


def texts(figure: Figure, kind: str = "") -> list[Any]:
    """The texts of a figure that are drawn, those whose gid begins with a kind."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in found if text.get_text() and text.get_visible() and (text.get_gid() or "").startswith(kind)]


def lines(figure: Figure, gid: str) -> list[Line2D]:
    """The lines with a gid; with "kind:" those of a kind."""
    found = [(line.get_gid() or "", line) for line in figure.findobj(Line2D)]
    return [line for name, line in found if name == gid or (gid.endswith(":") and name.startswith(gid))]


@functools.cache
def _drawn(case: str, quantity: str, style: figures.Style) -> Figure:
    figure = figures.draw(CASES[case], quantity, style=style)
    figure.canvas.draw()
    return figure


def drawn(case: str, quantity: str = "latency", style: figures.Style = figures.CVPR_FULL) -> Figure:
    """A case's figure, rendered. It is only looked at, so the tests share it."""
    return _drawn(case, quantity, style)


@pytest.mark.parametrize("style", [figures.CVPR_FULL, CVPR_COLUMN], ids=["full", "column"])
@pytest.mark.parametrize("case", CASES)
def test_no_text_touches_another_or_leaves_the_figure(case: str, style: figures.Style) -> None:
    figure = drawn(case, style=style)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, f"{text!r} is clipped: {box}"
    for (one, box), (other, another) in itertools.combinations(boxes, 2):
        # Half a pixel of a rounded box is not an overlap.
        across = min(box.x1, another.x1) - max(box.x0, another.x0)
        along = min(box.y1, another.y1) - max(box.y0, another.y0)
        assert across <= 0.5 or along <= 0.5, f"{one!r} and {other!r} overlap by {across:.1f} x {along:.1f} pixels"


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
        figures.save(Figure(), Path("nowhere"), "name", ["jpeg"])


def test_files_are_the_same_bytes_whatever_the_order_of_rows_and_the_users_settings(tmp_path: Path) -> None:
    frame = CASES["odd-sizes"]
    first = figures.save(figures.draw(frame, "latency"), tmp_path / "a", "latency", ("pdf", "png", "svg"))
    with mpl.rc_context({"lines.linewidth": 9, "font.family": "monospace", "pdf.fonttype": 3, "savefig.dpi": 30}):
        shuffled = frame.sample(frac=1, random_state=1)
        again = figures.save(figures.draw(shuffled, "latency"), tmp_path / "b", "latency", ("pdf", "png", "svg"))
    assert [path.name for path in first] == ["latency.pdf", "latency.png", "latency.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_write_figures_writes_every_quantity_with_fonts_a_publisher_takes(tmp_path: Path) -> None:
    paths = figures.write_figures(CASES["odd-sizes"], tmp_path / "figures", baseline="softmax")
    assert sorted(path.name for path in paths) == sorted(f"{name}.{form}" for name in figures.QUANTITIES for form in ("pdf", "png"))
    assert sorted(os.listdir(tmp_path / "figures")) == sorted(path.name for path in paths)
    for path in paths:
        if path.suffix == ".pdf":
            assert b"/Type3" not in path.read_bytes()
            assert b"/CIDFontType2" in path.read_bytes()
            assert b"CreationDate" not in path.read_bytes()


def test_the_default_is_as_wide_as_a_cvpr_page() -> None:
    figsizes = pytest.importorskip("tueplots.figsizes")
    for style, source in ((figures.CVPR_FULL, figsizes.cvpr2024_full), (CVPR_COLUMN, figsizes.cvpr2024_half)):
        assert figures.draw(CASES["two"], "latency", style=style).get_size_inches()[0] == source()["figure.figsize"][0]


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latency.png").write_bytes(b"old")

    def full(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"latency.png.* cannot be written \(No space left"):
        figures.save(drawn("two"), tmp_path, "latency", ["png"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"latency.png": b"old"}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        figures.save(drawn("two"), tmp_path / "figures", "latency", ["png"])


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
