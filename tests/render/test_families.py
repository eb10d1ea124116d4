"""Figures of a crowd of operators: a panel a family, in which each is named once, the best stand out and all others are in sight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import test_error_figure
import test_roofline_figure
from field_figures import STYLES, FieldFigure, check_apart, note
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scaling_figures import ALL, CROWD, FAMILIES, FAMILY, NAN, by_family, lines, records, texts

from lisabench import contract, registry
from lisabench.render import error, families, figures, page, palette, roofline
from lisabench.render.palette import CVPR_FULL, Style, looks

BEST = families.SUMMARY
FIELDS = {
    "error": FieldFigure(
        name="error",
        draw=error.draw,
        cases={
            "crowd": by_family(test_error_figure.records(ALL)),
            "dtypes": by_family(test_error_figure.records(ALL, dtypes=("fp32", "bf16"))),
        },
    ),
    "roofline": FieldFigure(name="roofline", draw=roofline.draw, cases={"crowd": by_family(test_roofline_figure.records(ALL))}),
}


def panel(figure: Figure, title: str) -> Axes:
    """The axes under a title."""
    titles = [text.get_text() for text in texts(figure, "title")]
    return figure.axes[titles.index(title)]


def names_in(figure: Figure, axes: Axes) -> set[str]:
    """The labels of the series that have their lines in these axes."""
    return {line.get_gid().partition(":")[2] for line in axes.lines if (line.get_gid() or "").startswith("series:")}


def kind(axes: Axes, gid: str) -> list[Line2D]:
    return [line for line in axes.lines if (line.get_gid() or "").startswith(gid)]


def key(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in texts(figure, "key-label"))


def crowd(quantity: str = "latency", frame: pd.DataFrame = CROWD, **more: Any) -> Figure:
    return figures.draw(frame, quantity, **({"baseline": "softmax"} | more))


def test_families_are_those_of_the_contract() -> None:
    assert families.FAMILIES == contract.FAMILIES
    assert {registry.load(name).family for name in registry.names()} <= set(families.FAMILIES)


def test_every_built_in_operator_has_a_look_for_ever() -> None:
    assert set(registry.names()) <= set(palette._FIXED)


@pytest.mark.parametrize("quantity", ["latency", "memory", "flops", "throughput"])
def test_each_operator_is_drawn_and_named_in_the_panel_of_its_family(quantity: str) -> None:
    figure = crowd(quantity)
    assert [text.get_text() for text in texts(figure, "title")] == [*FAMILIES, BEST]
    for family, ops in FAMILIES.items():
        axes = panel(figure, family)
        assert names_in(figure, axes) == set(ops)
        assert {line.get_gid().partition(":")[2] for line in kind(axes, "known:")} == {"lisa", "softmax"} - set(ops)
        assert {name for line in kind(axes, "context:") for name in line.get_gid().partition(":")[2].split("|")} == set(ALL) - set(ops) - {
            "lisa",
            "softmax",
        }
    for op, look in looks(ALL).items():
        named = [text for text in texts(figure, "series-label") if text.get_gid() == f"series-label:{op}"]
        assert len(named) == 1 + (op in names_in(figure, panel(figure, BEST)))
        assert {to_hex(text.get_color()).upper() for text in named} == {look.ink}
        assert {(line.get_color(), line.get_marker()) for line in lines(figure, f"series:{op}")} == {(look.colour, look.marker)}


def test_of_throughput_the_most_is_the_best() -> None:
    def heavy(quantity: str) -> set[str]:
        figure = crowd(quantity)
        shown = [kind(panel(figure, family), "series:") for family in FAMILIES]
        return {line.get_gid() for series in shown for line in series if line.get_linewidth() >= 1.8}

    assert heavy("throughput") == heavy("latency")


def test_slopes_are_not_ranked() -> None:
    figure = crowd("slope")
    assert [text.get_text() for text in texts(figure, "title")] == [*FAMILIES]
    assert "★" not in key(figure)


def test_panels_share_their_limits_and_a_name_for_the_tokens() -> None:
    figure = crowd()
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    assert [text.get_text() for text in texts(figure, "axis")].count("Tokens N") == 1
    assert not any(axes.get_xlabel() for axes in figure.axes)


def at(frame: pd.DataFrame, tokens: int) -> pd.Series[float]:
    """Latency of the finished operators at a size, but for what mixes nothing."""
    rows = frame[(frame["status"] == "ok") & (frame["tokens"] == tokens) & (frame["op"] != "identity")]
    return rows.set_index("op")["latency_s.median"]


def test_the_best_of_a_family_at_the_largest_size_that_all_have_is_bold_and_the_best_of_all_has_a_star() -> None:
    dead = dict.fromkeys(FAMILIES["channel"], ("oom", 16384))  # so that all families have 4,096 tokens, and not all 16,384
    frame = by_family(records(ALL, ends=dead))
    figure, values = crowd(frame=frame), at(frame, 4096)
    assert "fastest of its family at N = 4,096; ★ of all but identity" in key(figure)
    for family, ops in FAMILIES.items():
        there = values.reindex([op for op in ops if op in values])
        best = set(there.index[there <= there.min() * (1 + 1e-9)])
        axes = panel(figure, family)
        heavy = {line.get_gid().partition(":")[2] for line in kind(axes, "series:") if line.get_linewidth() >= 1.8}
        assert heavy == best
        bold = {
            text.get_gid().partition(":")[2]
            for text in texts(figure, "series-label")
            if text.get_fontproperties().get_weight() == "bold" and text.get_gid().partition(":")[2] in ops
        }
        assert bold == best
        assert best <= names_in(figure, panel(figure, BEST))
    starred = {
        text.get_gid().partition(":")[2]
        for text in texts(figure, "series-label")
        if text.get_text().startswith(text.get_gid().partition(":")[2] + " ★")
    }
    assert starred == set(values.index[values <= values.min() * (1 + 1e-9)])


def test_what_has_not_finished_the_size_is_not_ranked() -> None:
    fast = by_family(records(ALL, ends={"hydra": ("oom", 16384)}))
    fast.loc[(fast["op"] == "hydra") & (fast["status"] == "ok"), "latency_s.median"] = 1e-9
    (line,) = kind(panel(crowd(frame=fast), "channel"), "series:hydra")
    assert line.get_linewidth() < 1


def test_families_without_a_common_size_have_no_best() -> None:
    dead = dict.fromkeys(FAMILIES["channel"], ("oom", 256)) | dict.fromkeys(FAMILIES["spectral"], ("oom", 1024))
    frame = by_family(records(ALL, ends=dead))
    frame = frame[~((frame["family"] == "kernel") & (frame["tokens"] == 256))]
    figure = crowd(frame=frame)
    assert BEST not in [text.get_text() for text in texts(figure, "title")]
    assert "of its family" not in key(figure)


def test_the_key_says_what_has_no_name_beside_it() -> None:
    assert key(crowd()).startswith("lisa, in every panel | softmax, in every panel | operators of other families")
    assert "cheapest of its family" in key(crowd("flops"))
    assert "softmax" not in key(crowd(baseline=None))
    options = pd.concat([CROWD, by_family(records(("lisa",))).assign(label="lisa (engine=direct)")])
    assert key(crowd(frame=options)).count("in every panel") == 2


def test_what_costs_nothing_is_told_and_not_ranked() -> None:
    frame = CROWD.copy()
    frame.loc[frame["op"].isin(["identity", "pool"]), "flops.analytic"] = 0.0
    figure = crowd("flops", frame)
    assert "★ of all but identity, pool" in key(figure)
    assert "not shown: identity (0), pool (0)" in note(figure)
    assert names_in(figure, panel(figure, "local and control")) == {"window", "depthwise"}


@pytest.mark.parametrize("ops", [ALL, ("lisa", "softmax", "identity")], ids=["crowd", "few"])
def test_a_floor_that_would_leave_the_axis_empty_is_told(ops: tuple[str, ...]) -> None:
    frame = by_family(records(ops))
    floor = frame["op"] == "identity"
    frame.loc[floor, "latency_s.median"] = 5e-8
    frame.loc[~floor, ["latency_s.median", "latency_s.ci_low", "latency_s.ci_high"]] += 1e-4
    figure = crowd(frame=frame)
    assert "not shown: identity (far below, 50 ns at most)" in note(figure)
    assert not lines(figure, "series:identity")
    assert figure.axes[0].get_ylim()[0] > 5e-7
    frame.loc[floor, "latency_s.median"] = 5e-5
    assert lines(crowd(frame=frame), "series:identity")


def test_own_operators_come_last() -> None:
    own = by_family(records((*ALL, "mine.py:A", "mine.py:B")))
    own.loc[own["op"] == "mine.py:B", "family"] = "mine"
    assert [text.get_text() for text in texts(crowd(frame=own), "title")] == [*FAMILIES, "mine", "own", BEST]


@pytest.mark.parametrize(
    "frame",
    [
        records(ALL),
        records(ALL).assign(family=""),
        records(ALL).assign(family=None),
        records(ALL).assign(family="kernel"),
        CROWD[CROWD["op"].isin(ALL[:9])],
        pd.concat([CROWD[CROWD["op"].isin(ALL[:5])].assign(label=lambda f: f["op"], dtype=dtype) for dtype in ("fp32", "bf16", "fp16")]),
    ],
    ids=["old-run", "none", "missing", "one-family", "nine", "few-dtypes"],
)
def test_what_is_no_crowd_of_several_families_is_drawn_as_ever(frame: pd.DataFrame) -> None:
    figure = crowd(frame=frame)
    assert not texts(figure, "key-label")
    assert not lines(figure, "context:")
    assert len(figure.axes) == frame["dtype"].nunique()


def test_several_dtypes_of_a_few_operators_are_no_crowd() -> None:
    figure = error.draw(by_family(test_error_figure.records(dtypes=("fp32", "bf16", "fp16"))))
    assert figure is not None
    assert len(figure.axes) == 1


@STYLES
@pytest.mark.parametrize(("name", "case"), [(name, case) for name, field in FIELDS.items() for case in field.cases])
def test_texts_of_a_field_by_family_are_apart_and_all_there(name: str, case: str, style: Style) -> None:
    figure, frame = FIELDS[name].drawn(case, style), FIELDS[name].cases[case]
    check_apart(figure, texts(figure))
    assert [text.get_text() for text in texts(figure, "title")] == list(FAMILIES)
    for op in ALL:
        named = [text for text in texts(figure, "series-label") if text.get_gid() == f"series-label:{op}"]
        assert len(named) == frame["dtype"].nunique()
    for family, ops in FAMILIES.items():
        assert names_in(figure, panel(figure, family)) == set(ops)


def test_the_roof_is_over_every_family_and_its_figures_stand_once() -> None:
    figure = FIELDS["roofline"].drawn("crowd", CVPR_FULL)
    assert len(lines(figure, "roof")) == len(FAMILIES)
    assert len(texts(figure, "roof-label")) == 2


def test_an_operator_without_flops_is_told_so() -> None:
    frame = by_family(test_roofline_figure.records(ALL)).assign(**{"flops.analytic": 1.0})
    frame.loc[frame["op"] == "pool", ["flops.analytic", "roofline.flops_per_s"]] = [0.0, NAN]
    figure = roofline.draw(frame)
    assert figure is not None
    assert "not shown: pool (no FLOPs)" in note(figure)


def test_of_several_panels_each_has_files_of_its_own_where_operators_crowd(tmp_path: Path) -> None:
    frame = pd.concat([CROWD.assign(mode=mode, batch=batch) for mode, batch in (("forward", 1), ("forward", 8), ("train", 1))])
    ends = ["-forward-batch-1", "-forward-batch-8", "-forward-backward-batch-1"]
    assert [end for end, _ in families.figures_of(frame)] == ends
    few = frame[frame["op"].isin(ALL[:5])]
    written = figures.write_figures(few, tmp_path / "few", formats=("svg",), baseline="softmax")
    assert sorted(path.name for path in written) == sorted([*(f"{name}.svg" for name in figures.QUANTITIES), "speedup-forward.svg"])


@pytest.mark.parametrize(("ops", "shown"), [(ALL, 1), (ALL[:5], 12)], ids=["crowd", "few"])
def test_of_more_panels_than_anyone_looks_through_the_first_are_drawn_and_the_rest_is_told(ops: tuple[str, ...], shown: int) -> None:
    few = by_family(records(ops, (256,)))
    frame = pd.concat([few.assign(dim=64 * dim, mode=mode) for dim in range(1, 8) for mode in ("forward", "train")])
    parts = families.figures_of(frame)
    assert sum(len(part) for _, part in parts) == shown * len(few)
    assert {*parts[0][1]["mode"]} == {"forward"} if shown == 1 else {"forward", "train"}
    assert families.left_out(frame) == f"figures show the first {shown} of 14 combinations of mode, dim"
    assert families.left_out(frame[frame["dim"] < 448]) == ""


def test_parts_that_would_share_a_name_are_numbered_and_nothing_is_lost() -> None:
    alike = pd.concat([CROWD.assign(device_name=name) for name in ("GPU A", "GPU-A")])
    parts = figures.families.figures_of(alike)
    assert [end for end, _ in parts] == ["-gpu-a-1", "-gpu-a-2"]
    assert sum(len(part) for _, part in parts) == len(alike)


@pytest.mark.parametrize("name", ["latency", "slope", *FIELDS])
def test_the_same_bytes_whatever_the_order_of_rows_and_the_users_settings(name: str, tmp_path: Path) -> None:
    def save(frame: pd.DataFrame, folder: str) -> list[bytes]:
        figure = FIELDS[name].draw(frame, baseline="softmax") if name in FIELDS else crowd(name, frame)
        return [path.read_bytes() for path in page.save(figure, tmp_path / folder, name, ("pdf", "png", "svg"))]

    frame = FIELDS[name].cases["crowd"] if name in FIELDS else CROWD
    first = save(frame, "a")
    with mpl.rc_context({"lines.linewidth": 9, "font.family": "monospace", "pdf.fonttype": 3, "savefig.dpi": 30}):
        assert save(frame.sample(frac=1, random_state=1), "b") == first


def test_a_crowd_fits_a_page() -> None:
    own = by_family(records((*ALL, "mine.py:A")))
    drawn = [
        crowd(),
        crowd("memory", own),
        crowd(style=palette.CVPR_COLUMN),
        *(field.drawn("crowd", CVPR_FULL) for field in FIELDS.values()),
    ]
    assert np.max([figure.get_size_inches()[1] for figure in drawn]) < 8.875  # the height of a CVPR page's text


def test_families_cover_the_made_up_records() -> None:
    assert set(FAMILY) == set(ALL)
