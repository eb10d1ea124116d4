"""Figures and tables of trainings, rendered for real from made-up runs: nothing hidden, everything named once, the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_figures import check_apart, lines, note, texts
from made_trainings import ABLATION, accuracies, write_run, write_sweep
from matplotlib.figure import Figure
from rich.console import Console

from lisabench import registry
from lisabench.analysis.accuracy import Series, Span, by_data, summarise
from lisabench.cli.console import fitting
from lisabench.render import accuracy, learning
from lisabench.render.accuracy_table import accuracy_table, least_needed, notes
from lisabench.render.marks import Mark, Panel, extent, is_below, shows_chance
from lisabench.render.page import save
from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL, Look, contrast_with_white
from lisabench.render.plane import round_ticks, texts_of
from lisabench.render.sweep_latency import sweep_latency
from lisabench.render.variants import Manner, manners

COSTS = {cost.name: cost for cost in accuracy.COSTS}
PLAIN = Manner(Look("#000000", "o"), "-", 1.0)
STRUCTURES = "structures:offset"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Series]]:
    """Two operators; thirteen variants on three data sets, of which one failed; every operator; one seed each."""
    folder = tmp_path_factory.mktemp("cases")
    three = [
        write_run(folder / "digits", accuracies(ABLATION)),
        write_run(folder / "offset", accuracies(ABLATION, top=0.95, spread=0.5, start=1), data=STRUCTURES),
        write_run(folder / "shape", accuracies(ABLATION, top=0.8, spread=0.3) | {"gfnet": ["error"] * 3}, data="structures:shape"),
    ]
    every = accuracies(registry.names(), spread=0.1) | {"fnet": [0.31, 0.33, 0.3], "identity": [0.55, 0.56, 0.52]}
    return {
        "two": summarise([write_run(folder / "two", accuracies(["lisa", "softmax"]))]),
        "three-sets": summarise(three),
        "few-on-three": summarise(
            [write_run(folder / f"few{n}", accuracies(["lisa", "softmax", "nprf"], start=n), data=f"set{n}") for n in range(3)]
        ),
        "every": summarise([write_run(folder / "every", every)]),
        "one-seed": summarise([write_run(folder / "one", accuracies(["lisa", "softmax", "performer"], seeds=1))]),
    }


def named(figure: Figure) -> list[str]:
    return sorted((text.get_gid() or "").partition(":")[2] for text in texts(figure, "series-label"))


@pytest.mark.parametrize(
    ("case", "cost", "style"),
    [("two", "latency", CVPR_FULL), ("two", "latency", CVPR_COLUMN), ("three-sets", "flops", CVPR_FULL), ("every", "memory", CVPR_FULL)],
)
def test_every_point_is_drawn_and_named_once_and_no_text_touches_another(cases: Any, case: str, cost: str, style: Any) -> None:
    figure = accuracy.draw(cases[case], COSTS[cost], style=style)
    assert figure is not None
    figure.canvas.draw()
    check_apart(figure, texts(figure))
    sets = list(by_data(cases[case]))
    assert [text.get_text() for text in texts(figure, "title")] == (sets if len(sets) > 1 else [])
    assert ("not shown: gfnet on structures:shape (error)" in note(figure)) == (case == "three-sets")
    assert "mean over 3 seeds with 95% interval" in note(figure)
    finished = [one for one in cases[case] if one.top1]
    assert named(figure) == sorted(one.label for one in finished)
    for one in finished:
        assert len(lines(figure, f"point:{one.label}")) == sum(other.label == one.label for other in finished)


def test_points_lie_where_their_figures_are(cases: Any) -> None:
    figure = accuracy.draw(cases["two"], COSTS["flops"])
    assert figure is not None
    (axes,) = figure.axes
    for one in cases["two"]:
        (point,) = lines(figure, f"point:{one.label}")
        at = figure.transFigure.transform(np.column_stack(point.get_data()))
        assert axes.transData.inverted().transform(at)[0] == pytest.approx((one.flops, np.mean(one.top1)), rel=1e-6)
        (bar,) = lines(figure, f"interval:{one.label}")
        ends = axes.transData.inverted().transform(figure.transFigure.transform(np.column_stack(bar.get_data())))[:, 1]
        assert one.accuracy is not None
        assert ends[0] == pytest.approx(max(one.accuracy.low, axes.get_ylim()[0]), rel=1e-6)
        assert ends[1] == pytest.approx(min(one.accuracy.high, axes.get_ylim()[1]), rel=1e-6)


def test_what_lies_far_below_stands_at_the_edge_and_says_its_accuracy(cases: Any) -> None:
    figure = accuracy.draw(cases["every"], COSTS["parameters"])
    assert figure is not None
    said = {text.get_text().replace("\n", "") for text in texts(figure, "series-label")}
    assert {"fnet (31.3%)", "identity (54.3%)"} <= said
    assert figure.axes[0].get_ylim()[0] > 0.56
    assert "at the lower edge" in note(figure)


def test_one_seed_has_a_point_without_a_bar_and_the_note_says_so(cases: Any) -> None:
    figure = accuracy.draw(cases["one-seed"], COSTS["flops"])
    assert figure is not None
    assert lines(figure, "interval:lisa") == []
    assert len(lines(figure, "point:lisa")) == 1
    assert "one seed: no interval" in note(figure)


def test_without_a_finished_training_there_is_no_figure(tmp_path: Path) -> None:
    series = summarise([write_run(tmp_path / "run", {"lisa": ["error"], "softmax": ["skipped"]})])
    assert accuracy.figures(series) == {}


def test_latency_of_a_sweep_is_at_the_most_tokens_that_all_have(tmp_path: Path) -> None:
    reach = {"lisa": [64, 256, 1024], "softmax": [64, 256], "lisa (patterns=8)": [64], "hydra": [64]}
    sweep = write_sweep(tmp_path / "sweep", reach, modes=("forward", "train"))
    trained = summarise([write_run(tmp_path / "run", {"lisa": [0.9], "softmax": [0.8], "lisa (patterns=2)": [0.7], "hydra": ["oom"]})])
    found = sweep_latency(trained, [sweep])
    assert found is not None
    assert found.tokens == 256
    assert found.words == "mixing only, forward, fp32, dim 192, 3 heads, batch 1, AMD EPYC, 2 threads"
    assert [span and span.median for span in map(found.of, trained)] == [256e-9, 512e-9, None, None]
    figure = accuracy.draw(trained, accuracy.sweep_cost(found))
    assert figure is not None
    assert named(figure) == ["lisa", "softmax"]
    assert "not shown: lisa (patterns=2) (not in the sweep), hydra (oom)" in note(figure)
    assert accuracy.write_sweep_figure([one for one in trained if one.label == "lisa (patterns=2)"], [sweep], tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def panel(*means: float, chance: float | None = None, half: float = 0.001) -> Panel:
    marks = [Mark(str(mean), PLAIN, Span(1.0, np.nan, np.nan), Span(mean, mean - half, mean + half)) for mean in means]
    return Panel((), tuple(marks), (), chance)


def test_extent() -> None:
    assert extent(panel(0.5, 0.9)) == pytest.approx((0.499, 0.901))
    low, high = extent(panel(0.9, half=0.3))  # an interval far longer than points are apart does not set the limits
    assert (low, high) == pytest.approx((0.86, 0.94))
    crowd = panel(0.1, 0.96, 0.97, 0.98)
    assert extent(crowd)[0] > 0.9
    assert [is_below(mark, crowd) for mark in crowd.marks] == [True, False, False, False]
    assert extent(panel(0.1, 0.97, 0.98))[0] < 0.1  # one of three is no stray
    assert not shows_chance(panel(0.9, 0.95, chance=0.1))
    assert shows_chance(panel(0.55, 0.95, chance=0.5))


def test_ticks_are_round_and_told_apart() -> None:
    ticks = round_ticks(0.9312, 0.9888, 6)
    assert texts_of(ticks, percent=True) == ["94%", "95%", "96%", "97%", "98%"]
    assert texts_of(round_ticks(0.981, 0.9888, 5), percent=True) == ["98.2%", "98.4%", "98.6%", "98.8%"]


@pytest.mark.parametrize("case", ["two", "few-on-three"])
def test_learning_has_loss_and_accuracy_of_each_data_set(cases: Any, case: str) -> None:
    found = learning.figures(cases[case])
    assert set(found) == {"learning"}
    figure = found["learning"]
    figure.canvas.draw()
    check_apart(figure, texts(figure))
    sets = by_data(cases[case])
    assert len(figure.axes) == 2 * len(sets)
    assert named(figure) == sorted(2 * [one.label for one in cases[case]])
    for one in sets[next(iter(sets))]:
        (mean,) = [line for line in figure.axes[0].lines if line.get_gid() == f"series:{one.label}"]
        seeds = [line for line in figure.axes[0].lines if line.get_gid() == f"seed:{one.label}"]
        assert len(seeds) == 3
        np.testing.assert_allclose(np.asarray(mean.get_ydata()), np.mean([np.asarray(line.get_ydata()) for line in seeds], axis=0))


def test_a_mean_ends_where_a_seed_lacks_epochs(cases: Any) -> None:
    seeds = (np.array([[1, 2.0], [2, 1.0], [3, 0.5]]), np.array([[1, 4.0], [2, 2.0]]))
    assert learning._mean(seeds).tolist() == [[1, 3.0], [2, 1.5]]


def test_a_crowd_learns_by_family(cases: Any) -> None:
    digits = by_data(cases["three-sets"])["digits"]
    found = learning.figures(digits)
    assert set(found) == {"learning", "learning-loss"}
    figure = found["learning"]
    figure.canvas.draw()
    check_apart(figure, texts(figure))
    assert named(figure) == sorted(ABLATION)
    assert len(figure.axes) == 4  # the families that ablations have here
    assert "digits · 30 epochs · thin: a seed, strong: the mean over 3 seeds" in note(figure)
    assert [text.get_text() for text in texts(figure, "axis")] == ["Epoch", "Test accuracy", "Test accuracy"]
    assert lines(figure, "sample")  # of the many variants of one family, in place of lines that meet in one point
    assert len(lines(figure, "leader")) <= 6


def test_variants_share_a_hue_and_differ_in_marker_and_shade(cases: Any) -> None:
    drawn = manners(cases["three-sets"], "softmax")
    variants = [manner for label, manner in drawn.items() if label.startswith("lisa")]
    assert drawn["lisa"].look == Look("#D55E00", "o")
    assert len({(manner.look.marker, manner.look.fill) for manner in variants}) == len(variants)
    assert drawn["lisa"].weight > drawn["softmax"].weight > drawn["lisa (patterns=8)"].weight
    assert min(contrast_with_white(manner.look.colour) for manner in variants) > 1.8
    assert manners([], None) == {}


def test_files_are_the_same_bytes_in_fonts_a_publisher_takes(cases: Any, tmp_path: Path) -> None:
    def held(name: str) -> list[bytes]:
        figure = accuracy.draw(cases["two"], COSTS["flops"])
        assert figure is not None
        return [path.read_bytes() for path in save(figure, tmp_path / name, "figure")]

    first = held("a")
    assert held("b") == first
    assert b"/Type3" not in first[0]


def shown(series: Sequence[Series], width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(fitting(console, lambda omitted: accuracy_table(series, omitted=omitted), least_needed(series), whole="results.csv"))
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("case", ["two", "every", "one-seed"])
def test_table_fits_and_has_what_counts(cases: Any, case: str, width: int) -> None:
    text = shown(cases[case], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for one in cases[case]:
        (row,) = [line for line in text.splitlines() if line.split()[0] == one.label]
        assert f"{100 * np.mean(one.top1):.2f}%" in row
    assert ("left out" in text) == (width < 160)


def test_table_tells_larger_images_searches_failures_and_interval(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / "run",
            {"lisa": [0.96, 0.95, 1.0], "softmax": [0.8, 0.81, 0.82], "performer": ["error", 0.5, "error"], "fnet": ["oom"] * 3},
            elsewhere={"16 x 16": 0.5},
            search=8,
            match="flops",
        )
    ]
    series = summarise(runs)
    rows = {line.split()[0]: line for line in shown(series, 200).splitlines() if line}
    assert "97.00%  +3.00 −6.57  +16.00 ±5.74  48.5% ±3.3" in rows["lisa"]
    assert "one seed" in rows["performer"]
    assert "1 of 3" in rows["performer"]
    assert "oom" in rows["fnet"]
    told = "\n".join(map(str, notes(series, runs)))
    for words in (
        "bold: the best",
        "always guessing the commonest class: 10.0%",
        "search: 8 trials each on held-out training images; learning rate and weight decay found: lisa 0.003 and 0.05",
        "equal FLOPs: lisa 96",
        "16 x 16: top-1 on images larger than those trained on",
        "mean cosine of the kernels of a layer's heads on 32 test images (1: all alike): softmax 0.51 (–), lisa 0.50 (–)",
        "unrelated random kernels have an absolute cosine of about 0.052 at 16 tokens",
        "over the seeds (Student's t), no narrower than half an image; other test images are not covered; + −: uneven where",
        "performer, 2 seeds error: loss is not finite",
        "lisa: a reconstruction",
    ):
        assert words in told


def test_table_without_a_search_says_so(cases: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"lisa": [0.9]}, baseline=None)
    told = [str(line) for line in notes(summarise([run]), [run])]
    assert "no search: all operators had the same recipe (learning rate 0.003, weight decay 0.05)" in told
    assert "bold" not in told[0]
