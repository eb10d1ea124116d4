"""The page in a real browser: what is drawn, and what a reader can do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lisabench import units
from lisabench.render.html import page
from lisabench.results import Run
from tests.made_trainings import write_run, write_sweep

CHROMIUM = "/usr/bin/chromium"
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason=f"there is no {CHROMIUM}")

OWN = "<img src=x onerror=alert(1)>"
LATENCY = "document.querySelector('#sweep-charts .plot')"


def _sweep(path: Path) -> Run:
    """Three operators in two modes, one of which runs out of memory at its largest size."""
    run = write_sweep(path, dict.fromkeys(("lisa", "softmax", OWN), (256, 1024, 4096)), modes=("forward", "train"))
    failure = {"status": "oom", "reason": "out of memory", "latency_s": None, "memory_bytes": None, "flops": None}
    records = [record | failure if record["op"] == "softmax" and record["tokens"] == 4096 else record for record in run.records]
    return replace(run, plan=run.plan | {"baseline": "softmax", "patch": 16}, records=records)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    trainings = [write_run(folder / "training", {"lisa": (0.95, 0.96), "softmax": (0.9, 0.92), OWN: (0.8, "error")})]
    path = folder / "report.html"
    path.write_text(page(_sweep(folder / "sweep"), trainings, command=["lisabench", "report", "sweep"]))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Opened:
    """The page in a window of its own, what it asked for and what it said on the console."""

    def __init__(self, browser: Any, path: Path, **window: Any) -> None:
        self.context = browser.new_context(**window)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(path.as_uri())

    def curves(self) -> list[str]:
        """The names of the curves that the first chart draws, without marks of failure."""
        found: list[str] = self.page.evaluate(f"{LATENCY}.data.filter((one) => one.mode === 'lines+markers').map((one) => one.name).sort()")
        return found

    def column(self, place: int, table: str = "sweep-table") -> list[str]:
        found: list[str] = self.page.locator(f"#{table} tbody td:nth-child({place})").all_inner_texts()
        return found


@pytest.fixture(scope="module")
def desk(browser: Any, written: Path) -> Iterator[Opened]:
    opened = Opened(browser, written, viewport={"width": 1280, "height": 900})
    yield opened
    assert opened.said == []
    assert opened.asked == [written.as_uri()]
    opened.context.close()


@pytest.fixture
def fresh(desk: Opened) -> Opened:
    desk.page.reload()
    desk.asked[:] = desk.asked[-1:]
    return desk


def test_charts_are_drawn_and_nothing_is_said_or_fetched(fresh: Opened) -> None:
    for section, curves in (("sweep", 3), ("training", 3)):
        plots = fresh.page.locator(f"#{section}-charts .plot")
        assert plots.count() >= 1
        for plot in plots.all():
            assert plot.locator(".scatterlayer .points path").count() >= curves
    assert fresh.curves() == sorted(("lisa", "softmax", OWN))
    assert fresh.page.locator("#sweep-charts .scatterlayer path.js-line").count() >= 9
    assert fresh.page.locator("img").count() == 0
    assert fresh.said == []
    assert len(fresh.asked) == 1


def test_a_curve_ends_with_its_failure(fresh: Opened) -> None:
    marks = fresh.page.evaluate(f"{LATENCY}.data.filter((one) => one.mode === 'markers').map((one) => [one.name, one.x, one.text])")
    assert [(name, x) for name, x, _ in marks] == [("softmax", [4096])]
    assert "oom" in marks[0][2][0]
    assert "out of memory" in marks[0][2][0]


def test_a_curve_is_switched_off_by_click_and_by_key(fresh: Opened) -> None:
    button = fresh.page.locator("#sweep-operators li button", has_text="softmax")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert fresh.curves() == sorted(("lisa", OWN))
    button.focus()
    fresh.page.keyboard.press("Enter")
    assert fresh.curves() == sorted(("lisa", "softmax", OWN))
    fresh.page.get_by_role("button", name="Only lisa, softmax").click()
    assert fresh.curves() == ["lisa", "softmax"]


def test_hovering_names_the_operator_as_it_is(fresh: Opened) -> None:
    fresh.page.get_by_role("button", name="Hide all").first.click()
    fresh.page.locator("#sweep-operators button", has_text=OWN).click()
    fresh.page.evaluate(f"{LATENCY}.scrollIntoView({{block: 'center'}})")
    fresh.page.locator("#sweep-charts .plot").first.locator(".points path").first.hover(force=True)
    text = fresh.page.locator("#sweep-charts .hoverlayer").first.text_content()
    assert OWN in text
    assert "256 tokens (16×16)" in text
    assert "95%" in text


def test_axes_and_workload_are_chosen(fresh: Opened) -> None:
    value = f"{LATENCY}.data.find((one) => one.name === 'lisa' && one.mode === 'lines+markers')"
    forward = fresh.page.evaluate(f"{value}.y")
    fresh.page.get_by_label("Mode").select_option("forward + backward")
    assert fresh.page.evaluate(f"{value}.y") == pytest.approx([3 * one for one in forward], rel=1e-4)
    assert fresh.page.evaluate(f"{LATENCY}.layout.xaxis.type") == "log"
    fresh.page.get_by_label("log x").first.uncheck()
    fresh.page.get_by_label("log y").uncheck()
    assert fresh.page.evaluate(f"[{LATENCY}.layout.xaxis.type, {LATENCY}.layout.yaxis.type]") == ["linear", "linear"]
    fresh.page.get_by_label("Horizontal axis").first.select_option("side")
    assert fresh.page.evaluate(f"{value}.x") == [256, 512, 1024]
    assert "px; patch 16" in fresh.page.evaluate(f"{LATENCY}.layout.xaxis.title.text")


def test_the_table_is_sorted_and_filtered(fresh: Opened) -> None:
    head = fresh.page.locator("#sweep-table th", has_text="Tokens")
    head.get_by_role("button").click()
    sizes = [int(text.replace(",", "")) for text in fresh.column(2)]
    assert head.get_attribute("aria-sort") == "ascending"
    assert sizes == sorted(sizes)
    assert len(sizes) == 18
    head.get_by_role("button").focus()
    fresh.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [int(text.replace(",", "")) for text in fresh.column(2)] == sizes[::-1]
    latency = fresh.page.locator("#sweep-table th", has_text="Latency")
    for _ in range(2):  # what is absent stands last in both orders
        latency.get_by_role("button").click()
        assert fresh.column(6)[-2:] == [units.MISSING] * 2
    fresh.page.get_by_label("Filter").last.fill("softmax oom")
    assert fresh.column(1) == ["softmax", "softmax"]
    assert "2 of 18 cells" in fresh.page.locator("#sweep-table").inner_text()


def test_numbers_read_as_they_do_elsewhere(fresh: Opened) -> None:
    values = [1e-9, 9.9996e-7, 1.234e-5, 0.00123, 1.0, 59.99, 999.96, 1e6, 3145728.0, 2.5e12]
    cases = {"seconds": (units.seconds, values[:6]), "bytes": (units.size_in_bytes, values[4:]), "joules": (units.energy, values[1:6])}
    for unit, (words, known) in cases.items():
        assert fresh.page.evaluate(f"{known}.map((value) => text(value, '{unit}'))") == [words(value) for value in known]
    flops = fresh.page.evaluate(f"{values[4:]}.map((value) => text(value, 'flops').replace('FLOP', '').trim())")
    assert flops == [units.flops(value) for value in values[4:]]


@pytest.mark.slow
def test_a_phone_scrolls_no_page_sideways(browser: Any, written: Path) -> None:
    opened = Opened(browser, written, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = opened.page.evaluate("[...document.querySelectorAll('.plot svg.main-svg')].map((svg) => svg.getBoundingClientRect().right)")
    assert wide
    assert max(wide) <= 360
    assert opened.said == []
    opened.context.close()


@pytest.mark.slow
def test_in_the_dark_charts_are_light_and_on_paper_they_are_dark(browser: Any, written: Path) -> None:
    opened = Opened(browser, written, color_scheme="dark", viewport={"width": 1280, "height": 900})
    colour = f"{LATENCY}.data.find((one) => one.name === 'softmax').line.color"
    assert opened.page.evaluate(colour) == "#FFFFFF"
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.evaluate(colour) == "#000000"
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.evaluate(colour) == "#FFFFFF"
    assert opened.said == []
    opened.context.close()


@pytest.mark.slow
def test_a_run_without_a_figure_has_a_page_without_a_chart(browser: Any, tmp_path: Path) -> None:
    run = _sweep(tmp_path / "sweep")
    empty = dict.fromkeys(("latency_s", "memory_bytes", "flops"))
    run = replace(run, records=[record | empty | {"status": "timeout"} for record in run.records])
    path = tmp_path / "report.html"
    path.write_text(page(run, [write_run(tmp_path / "training", {"lisa": ("error",)})], command=["lisabench"]))
    opened = Opened(browser, path)
    assert opened.page.locator(".plot").count() == 0
    assert opened.column(5) == ["timeout"] * 18
    assert opened.said == []
    opened.context.close()
