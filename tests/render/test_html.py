from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisabench.render import charts
from lisabench.render.html import page
from lisabench.render.palette import contrast_with_white, looks
from lisabench.results import Run
from tests.made_trainings import ABLATION, write_run, write_sweep
from tests.render.scaling_figures import ALL

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "a & b %{x}", r"\textbf{$x_1$}")
COMMAND = ("lisabench", "report", "runs/a b")


class Parsed(HTMLParser):
    """What a browser would find: elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    @property
    def data(self) -> Any:
        """What the charts are drawn from."""
        return json.loads(self.texts["script"][0])


def without_figures(run: Run) -> Run:
    empty = dict.fromkeys(("latency_s", "memory_bytes", "flops", "ratio", "environment"))
    return replace(run, environments={}, records=[r | {"status": "oom", "reason": "out of memory"} | empty for r in run.records])


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"lisa": (256, 1024), "mine.py:Own": (256,)})
    trainings = [write_run(tmp_path / "training", {"lisa": (0.9, 0.92), "softmax": (0.91, 0.9)})]
    assert page(sweep, trainings, command=COMMAND) == page(sweep, trainings, command=COMMAND, frame=sweep.frame())


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", dict.fromkeys(HOSTILE, (256, 1024)))
    trainings = [write_run(tmp_path / "training", dict.fromkeys(HOSTILE, (0.9, "error")))]
    told = page(sweep, trainings, command=(*COMMAND, *HOSTILE))
    parsed = Parsed(told)
    assert [tag for tag, _ in parsed.elements].count("script") == 3  # data, Plotly, ours
    assert not any(tag in ("img", "b") for tag, _ in parsed.elements)
    assert {one["label"] for one in parsed.data["sweep"]["series"]} == set(HOSTILE)
    assert {one["label"] for one in parsed.data["trainings"]["points"]} == set(HOSTILE)
    assert all(name in "".join(parsed.texts["td"]) for name in HOSTILE)  # they failed as well


def test_only_its_own_scripts_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    parsed = Parsed(page(write_sweep(tmp_path / "sweep", {"lisa": (256,)}), [], command=COMMAND))
    policy = next(found["content"] or "" for _, found in parsed.elements if found.get("http-equiv") == "Content-Security-Policy")
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in parsed.texts["script"][1:]]
    assert re.findall(r"'sha256-(.*?)'", policy) == hashes
    assert policy.startswith("default-src 'none'")
    links = [value for _, found in parsed.elements for name, value in found.items() if name in ("src", "href", "data", "action")]
    assert all(link and link.startswith(("#", "data:")) for link in links)


def test_it_can_be_read_aloud(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"lisa": (256,)})
    parsed = Parsed(page(sweep, [write_run(tmp_path / "training", {"lisa": (0.9,)})], command=COMMAND))
    assert ("html", {"lang": "en"}) in parsed.elements
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [found["id"] for _, found in parsed.elements if "id" in found]
    wanted = [found["aria-labelledby"] for _, found in parsed.elements if "aria-labelledby" in found]
    wanted += [(found["href"] or "").removeprefix("#") for tag, found in parsed.elements if tag == "a"]
    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)


def test_what_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"lisa": (256, 1024), "softmax": (256,)})
    trainings = [write_run(tmp_path / "training", {"lisa": ("error", "error"), "softmax": ("oom",)})]
    parsed = Parsed(page(without_figures(sweep), trainings, command=COMMAND))
    cells = parsed.texts["td"]
    assert [cells[start : start + 5] for start in range(0, len(cells), 5)] == [
        ["lisa", "oom", "2", "256 to 1,024", "out of memory"],
        ["softmax", "oom", "1", "256", "out of memory"],
        ["lisa", "error", "2", "seed 0, 1", "loss is not finite"],
        ["softmax", "oom", "1", "seed 0", "loss is not finite"],
    ]
    assert parsed.data["sweep"]["charts"] == parsed.data["trainings"]["costs"] == []
    told = "".join(parsed.texts["p"])
    assert "No cell has finished" in told
    assert "No training has finished" in told


def test_a_run_without_a_record_has_a_page(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "sweep", {"lisa": (256,)})
    parsed = Parsed(page(replace(run, records=[]), [], command=COMMAND))
    assert parsed.texts["h1"] == ["Nothing was measured"]
    assert parsed.data["sweep"] is None


def test_it_says_how_to_repeat_the_run(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "sweep", {"lisa": (256,)})
    machine = {
        "device_name": "A",
        "cpu": {"threads": 2},
        "libraries": {"torch": "2.13.0+cpu"},
        "git": {"commit": "94acc53f", "dirty": True},
    }
    run = replace(run, plan=run.plan | {"command": ["lisabench", "scale", "--op", "my op"]}, environments={"AMD EPYC": machine})
    parsed = Parsed(page(run, [], command=COMMAND))
    assert parsed.texts["code"] == [
        "git checkout 94acc53f",
        "pip install torch==2.13.0",
        "lisabench scale --op 'my op'\nlisabench report 'runs/a b'\n",
    ]
    assert "not committed" in "".join(parsed.texts["p"])


def test_charts_hold_the_figures_of_the_run(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "sweep", {"lisa": (256, 1024), "softmax": (256,)}, modes=("forward", "train"))
    found = Parsed(page(run, [], command=COMMAND)).data["sweep"]
    columns = found["columns"]
    assert [found["series"][code]["label"] for code in columns["series"]] == [run.label_of(record) for record in run.records]
    assert columns["latency"] == pytest.approx([record["latency_s"]["median"] for record in run.records], rel=1e-4)
    assert [found["places"][code]["mode"] for code in columns["place"]] == [
        {"forward": "forward", "train": "forward + backward"}[record["mode"]] for record in run.records
    ]
    assert [chart["name"] for chart in found["charts"]] == ["latency", "memory", "flops"]


def test_operators_look_as_they_do_in_the_figures(tmp_path: Path) -> None:
    found = Parsed(page(write_sweep(tmp_path / "sweep", dict.fromkeys(ALL, (256,))), [], command=COMMAND)).data["sweep"]["series"]
    assert {one["label"]: one["colour"] for one in found} == {op: look.colour for op, look in looks(ALL).items()}
    assert len({(one["symbol"], one["colour"]) for one in found}) == len(ALL)
    assert all(contrast_with_white(charts.DARK) / contrast_with_white(one["dark"]) >= 4.5 for one in found)
    style = (Path(charts.__file__).parents[1] / "templates" / "report.css").read_text()
    assert f"--paper: {charts.DARK.lower()};" in style


def test_variants_of_an_operator_are_told_apart(tmp_path: Path) -> None:
    accuracies = dict.fromkeys(ABLATION, (0.9, 0.91))
    found = Parsed(page(None, [write_run(tmp_path / "training", accuracies)], command=COMMAND)).data["trainings"]["points"]
    assert len({(one["symbol"], one["colour"]) for one in found}) == len(ABLATION)


def test_numbers_keep_five_digits() -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal(2000) * 10.0 ** generator.integers(-12, 18, 2000)
    assert charts.numbers(values) == [float(f"{value:.5g}") for value in values]
    assert charts.numbers([float("nan"), float("inf"), 0.0, 1e-310]) == [None, None, 0.0, 0.0]
