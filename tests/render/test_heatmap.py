"""The figure `speedup`: each cell's number, colour and word, and where there is no such figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from field_figures import STYLES, check_apart, note
from matplotlib.figure import Figure
from scaling_figures import ALL, NAN, records

from lisabench.render import figures, heatmap
from lisabench.render.page import save
from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL, Style

BATCHES, TOKENS = (1, 4, 16), (256, 1024, 4096)
OPS = ("lisa", "softmax", "linear")
TIME, RATIO = "latency_s.median", "ratio.median"


def grid(ops: tuple[str, ...] = OPS, *, shared: bool = True, ends: dict[int, dict[str, tuple[str, int]]] | None = None) -> pd.DataFrame:
    """Records over tokens and batch; with `shared` rounds, whose ratio to softmax is a tenth less than that of the medians."""
    frame = pd.concat([records(ops, TOKENS, ends=(ends or {}).get(batch), batch=batch) for batch in BATCHES], ignore_index=True)
    base = frame[frame["op"] == "softmax"].set_index(["batch", "tokens"])[TIME]
    of = pd.MultiIndex.from_frame(frame[["batch", "tokens"]])
    ratio = 0.9 * frame[TIME] / base.reindex(of).to_numpy()
    return frame.assign(**{RATIO: ratio.where((frame["op"] != "softmax") & shared)})


def drawn(frame: pd.DataFrame, **more: Any) -> Figure:
    figure = heatmap.draw(frame, **({"baseline": "softmax"} | more))
    assert figure is not None
    figure.canvas.draw()
    return figure


def cells(figure: Figure, label: str) -> list[str]:
    """What is written in an operator's cells, row by row from the lowest batch."""
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == f"cell:{label}"]


def test_a_cell_is_the_baselines_time_over_the_operators_of_shared_rounds() -> None:
    found = heatmap.speedups(grid(), "softmax")
    own, base = (grid().set_index(["op", "batch", "tokens"])[TIME][op] for op in ("linear", "softmax"))
    linear = found[found["op"] == "linear"].set_index(["batch", "tokens"])["speedup"]
    assert np.allclose(linear, (base / own / 0.9).reindex(linear.index))
    assert set(found["op"]) == {"lisa", "linear"}
    assert "~" not in "".join(cells(drawn(grid()), "linear"))


def test_without_shared_rounds_there_is_a_tilde_and_a_note() -> None:
    figure = drawn(grid(shared=False))
    assert all(text.startswith("~") for text in cells(figure, "lisa"))
    assert "~: not shared" in note(figure)


def test_ratios_to_another_baseline_are_not_taken_for_ratios_to_this_one() -> None:
    found = heatmap.speedups(grid(), "linear")
    assert not found["shared"].any()


@pytest.mark.parametrize("column", ["run", "device_name", "mode", "dtype", "compiled", "dim", "height"])
def test_only_cells_of_one_workload_and_run_are_pairs(column: str) -> None:
    frame = grid(shared=False)
    other = {"run": ("a", "b"), "height": (32, 64)}.get(column, (1, 0))
    frame[column] = np.where(frame["op"] == "softmax", *other)
    assert heatmap.speedups(frame, "softmax")["speedup"].isna().all()
    assert heatmap.draw(frame, baseline="softmax") is None


def test_what_has_no_figure_says_why() -> None:
    ends = {16: {"lisa": ("oom", 1024), "softmax": ("oom", 4096)}, 4: {"lisa": ("timeout", 4096)}, 1: {"linear": ("crash", 4096)}}
    frame = grid(ends=ends)
    frame = frame[~((frame["op"] == "linear") & (frame["batch"] == 4) & (frame["tokens"] == 256))]
    figure = drawn(frame)
    assert cells(figure, "lisa")[5:] == ["time\nlimit", cells(figure, "lisa")[6], "OOM", "skipped"]
    assert cells(figure, "linear")[2:4] == ["crash", "not\nrun"]
    assert cells(figure, "linear")[8] == "no\npair"
    assert "no pair: softmax has no time there" in note(figure)


def test_slower_and_faster_are_told_apart_in_grey() -> None:
    colours = [heatmap._colour(times, np.log(10)) for times in (0.01, 0.1, 0.5, 0.99, 1, 1.01, 2, 10, 100)]
    weights = np.array([0.299, 0.587, 0.114])
    greys = [weights @ [int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in colours]
    assert greys == sorted(greys)
    assert greys[5] - greys[3] > 25  # a tenth of all greys between hardly slower and hardly faster
    assert heatmap._colour(NAN, 1) == "#FFFFFF"


def test_numbers_keep_two_digits_and_extremes_are_short() -> None:
    assert [heatmap._times(value) for value in (1e-6, 0.0123, 0.996, 1.0, 12.3, 1234.5, 9999.4, 1e6)] == [
        "<0.01", "0.012", "1.0", "1.0", "12", "1234", "9999", ">9999",
    ]  # fmt: skip


@STYLES
@pytest.mark.parametrize("ops", [OPS[:2], (*OPS, "my_$operator_<b>&", "performer")], ids=["one", "hostile-names"])
def test_texts_are_apart_and_names_are_as_given(ops: tuple[str, ...], style: Style) -> None:
    figure = drawn(grid(ops), style=style)
    found = [*figure.texts, *(text for axes in figure.axes for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()])]
    check_apart(figure, [text for text in found if text.get_text()])
    assert [text.get_text() for text in figure.texts if text.get_gid() == "title"] == ["lisa", *sorted({*ops} - {"lisa", "softmax"})]
    assert figure.get_size_inches()[0] == style.width


def test_cells_without_room_for_a_figure_are_told() -> None:
    frame = pd.concat([records(OPS, tuple(64 * place for place in range(1, 41)), batch=batch) for batch in (1, 2)])
    figure = drawn(frame, style=CVPR_COLUMN)
    assert "no room for a figure" in note(figure)
    assert "no room" not in note(drawn(frame, style=Style(width=12)))


def test_a_crowd_fits_a_page() -> None:
    figure = heatmap.draw(grid(ALL), baseline="softmax", style=CVPR_FULL)
    assert figure is not None
    assert figure.get_size_inches()[1] < 8.875


@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame(), grid().iloc[:0], records(), grid().query("tokens == 256"), grid().assign(status="oom"), grid().drop(columns=[TIME])],
    ids=["no-columns", "no-rows", "one-batch", "one-size", "failed", "not-measured"],
)
def test_there_is_no_figure_of_less_than_two_sizes_and_batches(frame: pd.DataFrame) -> None:
    assert heatmap.draw(frame, baseline="softmax") is None
    assert heatmap.draw(grid(), baseline=None) is None


def test_files_are_the_same_bytes_in_any_order_of_rows_one_for_each_condition(tmp_path: Path) -> None:
    frame = pd.concat([grid().assign(mode=mode) for mode in ("forward", "train")])

    def write(frame: pd.DataFrame, name: str) -> dict[str, bytes]:
        for end, part in figures.families.conditions_of(frame, heatmap.KEYS):
            save(drawn(part), tmp_path / name, f"speedup{end}", ("pdf", "svg"))
        return {file: (tmp_path / name / file).read_bytes() for file in os.listdir(tmp_path / name)}

    first = write(frame, "a")
    assert set(first) == {f"speedup-{mode}.{form}" for mode in ("forward", "forward-backward") for form in ("pdf", "svg")}
    assert write(frame.sample(frac=1, random_state=1), "b") == first
    assert b"/Type3" not in first["speedup-forward.pdf"]
