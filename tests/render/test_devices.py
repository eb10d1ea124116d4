"""A run over several kinds of devices: each stands apart, in figures, laws, tables and on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from lisabench.analysis import growth
from lisabench.analysis.accuracy import summarise
from lisabench.render import error, families, figures, heatmap, roofline
from lisabench.render.html import page
from lisabench.render.sweep_latency import sweep_latency
from lisabench.render.tables import write_tables
from lisabench.results import Run, joined, read_run
from tests.made_runs import A100, EPYC, H200, fleet_run
from tests.made_trainings import write_run
from tests.render.scaling_figures import texts

MANY = tuple(f"op{place}" for place in range(10))
Made = Callable[..., Run]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A run over a fleet: kinds of devices with how slow each is, and what else `fleet_run` takes."""

    def make(slowness: dict[str, float], *, name: str = "run", **settings: object) -> Run:
        fleet_run(tmp_path / name, slowness, **settings)  # type: ignore[arg-type]
        return read_run(tmp_path / name)

    return make


def curves(axes: figures.Axes) -> dict[str, list[float]]:
    """The values of each curve in a panel."""
    return {gid[7:]: list(line.get_ydata()) for line in axes.lines if (gid := line.get_gid() or "").startswith("series:")}  # type: ignore[arg-type]


def test_a_figure_has_a_panel_a_kind_under_its_name(made: Made) -> None:
    run = made({H200: 1, EPYC: 3})
    figure = figures.draw(run.frame(), "latency", baseline="softmax")
    assert [text.get_text() for text in texts(figure, "title")] == [EPYC, H200]
    epyc, h200 = map(curves, figure.axes)
    assert {label: len(values) for label, values in epyc.items()} == {"lisa": 5, "softmax": 5}
    assert {label: [value / 3 for value in values] for label, values in epyc.items()} == {
        label: pytest.approx(values) for label, values in h200.items()
    }


@pytest.mark.parametrize("draw", [roofline.draw, error.draw])
def test_figures_of_points_have_a_panel_a_kind_too(draw: Callable[..., figures.Figure | None], made: Made) -> None:
    figure = draw(made({H200: 1, EPYC: 3}).frame(), baseline="softmax")
    assert figure is not None
    assert [text.get_text() for text in texts(figure, "title")] == [EPYC, H200]


def test_a_crowd_has_a_figure_a_kind_and_a_table_that_name_it(made: Made, tmp_path: Path) -> None:
    run = made({H200: 1, EPYC: 3}, ops=MANY, families=("quadratic", "kernel"))
    drawings = {one.name: one for one in figures.drawings(run.frame(), baseline=MANY[-1])}
    assert {"latency-nvidia-h200", "latency-amd-epyc-2-threads", "error-nvidia-h200"} <= {*drawings}
    for name, kind in (("latency-nvidia-h200", H200), ("error-amd-epyc-2-threads", EPYC)):
        one = drawings[name]
        figure = one.draw(one.frame, **one.given)
        assert figure is not None
        assert kind in {text.get_text() for text in texts(figure, "key-label")}
    write_tables(run, [], tmp_path)
    told = (tmp_path / "latency-nvidia-h200.md").read_text()
    assert told.startswith("| device | operator |")
    assert (told.count(f"| {H200} |"), EPYC in told) == (10, False)


def test_of_more_panels_than_a_page_has_each_kind_shows_its_first(made: Made) -> None:
    frame = made({H200: 1, EPYC: 3}, sizes=(256,), axes=[{"batch": batch} for batch in range(1, 15)]).frame()
    found = families.figures_of(frame)
    assert [end for end, _ in found] == ["-amd-epyc-2-threads", "-nvidia-h200"]
    assert [sorted(rows["batch"].unique()) for _, rows in found] == [list(range(1, 13))] * 2
    assert families.left_out(frame) == "figures show the first 24 of 28 combinations of device, batch"
    conditions = families.conditions_of(frame, ("device_name", "batch"))
    assert [(set(rows["device_name"]), set(rows["batch"])) for _, rows in conditions] == [({EPYC}, {1}), ({H200}, {1})]


def test_laws_and_crossings_are_of_one_kind(made: Made) -> None:
    run = made({H200: 1, EPYC: 3}, ended={(EPYC, "softmax", 65536): "timeout"})
    laws = {(one.label, one.where["device_name"]): one for one in growth.growths(run, axes=("tokens",)) if one.quantity == "latency"}
    assert {key: len(one.sizes) for key, one in laws.items()} == {
        ("lisa", H200): 5,
        ("lisa", EPYC): 5,
        ("softmax", H200): 5,
        ("softmax", EPYC): 4,
    }
    met = [one for one in growth.crossings(run) if one.quantity == "latency"]
    assert {one.where["device_name"]: one.crossover and one.crossover.up_to for one in met} == {H200: 65536, EPYC: 16384}


def test_no_kind_takes_the_place_of_anothers_laws(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made({H200: 1, EPYC: 3}, ops=("lisa", "linear", "softmax"))
    monkeypatch.setattr(growth, "MOST", 1)
    kept, more = growth.first_series(run, "tokens")
    assert (sorted(one.where["device_name"] for one in kept), more) == ([EPYC, H200], 4)
    assert sorted({one.where["device_name"] for one in growth.crossings(run)}) == [EPYC, H200]


def test_speed_ups_are_over_the_baseline_of_the_same_kind(made: Made) -> None:
    """Two CPUs have one `device`: nothing but the kind tells their cells apart."""
    run = made({EPYC: 3, "AMD EPYC, 8 threads": 1})
    frame = run.frame().assign(**{"ratio.median": float("nan")})
    found = heatmap.speedups(frame, "softmax").set_index(["device_name", "tokens"])["speedup"]
    assert len(found) == 10
    assert list(found[EPYC]) == pytest.approx(list(found["AMD EPYC, 8 threads"]))


def test_tables_have_the_device_and_mark_the_best_of_each(made: Made, tmp_path: Path) -> None:
    write_tables(made({H200: 1, EPYC: 3}), [], tmp_path)
    lines = (tmp_path / "latency.md").read_text().splitlines()
    assert lines[0].startswith("| device | operator |")
    assert [(line.split(" | ")[0][2:], line.count("**") // 2) for line in lines[2:6]] == [(EPYC, 3), (EPYC, 2), (H200, 3), (H200, 2)]
    assert (tmp_path / "summary.csv").read_text().count(f'"{EPYC}",,') == 2
    assert (tmp_path / "latency.tex").read_text().count(r"{\itshape ") == 2


def test_what_never_ran_counts_as_the_kind_that_it_was_meant_for(made: Made, tmp_path: Path) -> None:
    run = made({H200: 1, EPYC: 3}, never=(EPYC,))
    assert {(name, record["status"]) for name, part in run.by_device().items() for record in part.records} == {
        (EPYC, "skipped"),
        (H200, "ok"),
    }
    assert run.frame().groupby("device_name")["status"].unique().map(list).to_dict() == {EPYC: ["skipped"], H200: ["ok"]}
    write_tables(run, [], tmp_path)
    summary = (tmp_path / "summary.md").read_text()
    assert "at 65536 tokens" in summary, "a node that is gone takes no other's figures with it"
    assert re.search(rf"\| {EPYC} \| lisa \|.*skipped", summary)
    shown = page(run, [], command=["lisabench"])
    assert re.search(rf"<td>lisa</td><td>{EPYC}</td><td>skipped</td>", shown)


def test_in_joined_runs_it_counts_as_its_own_runs_kind(made: Made) -> None:
    first = made({EPYC: 1}, name="first", sizes=(256,), known=False)
    second = made({"AMD EPYC, 8 threads": 1}, name="second", sizes=(256, 512), known=False)
    second.records[1] |= {"status": "skipped", "environment": None}
    for runs in ([first, second], [second, first]):
        both = joined(runs)
        assert [both.device_of(each) for each in both.records if each["status"] == "skipped"] == ["AMD EPYC, 8 threads"]


def test_the_page_lets_one_choose_the_device(made: Made) -> None:
    text = page(made({H200: 1, EPYC: 3}), [], command=["lisabench"])
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])["sweep"]
    assert [place["device_name"] for place in data["places"]] == [EPYC, H200]
    assert sorted(data["columns"]["place"]) == [0] * 10 + [1] * 10
    assert f"device {H200}: lisa&#39;s time grows" in text


def test_latency_beside_accuracy_is_of_one_kind(made: Made, tmp_path: Path) -> None:
    ended = {(EPYC, "softmax", 1024): "oom", ("AMD EPYC, 8 threads", "lisa", 1024): "oom"}
    run = made({EPYC: 3, "AMD EPYC, 8 threads": 1}, sizes=(256, 1024), ended=ended)
    for record in run.records:
        record["options"] = {"patterns": "4"} if record["op"] == "lisa" else {}
    found = sweep_latency(summarise([write_run(tmp_path / "trained", {"lisa": [0.9], "softmax": [0.8]})]), [run])
    assert found is not None
    assert found.tokens == 256, "only on two kinds together have both finished 1,024"


def test_three_kinds_and_their_names_stand_side_by_side(made: Made) -> None:
    figure = figures.draw(made({H200: 1, A100: 2, EPYC: 3}).frame(), "latency", baseline="softmax")
    titles = texts(figure, "title")
    assert [text.get_text() for text in titles] == [EPYC, A100, H200]
    boxes = [text.get_window_extent() for text in titles]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
