"""A plan of trainings brought into a journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lisabench import registry
from lisabench.journal import Journal, Record, read_environments
from lisabench.train import data, engine
from lisabench.train.engine import run_points
from lisabench.train.loop import Epoch, Point
from lisabench.train.vit import Size

TINY = Size(dim=8, depth=1, heads=2, mlp_ratio=1)


class Log:
    def __init__(self) -> None:
        self.trained_epochs = 0
        self.records: list[Record] = []

    def started(self, point: Point) -> None: ...

    def trained(self, point: Point, epoch: Epoch) -> None:
        self.trained_epochs += 1

    def finished(self, point: Point, record: Record) -> None:
        self.records.append(record)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "run", {}) as opened:
        yield opened


@pytest.fixture(scope="module")
def split() -> data.Split:
    whole = data.find("digits").read()
    parts = {"train_images": whole.train_images[:64], "train_labels": whole.train_labels[:64]}
    return replace(whole, **parts)


def run(points: list[Point], split: data.Split, journal: Journal, budget: float | None = None) -> Log:
    log = Log()
    run_points(points, split, device="cpu", journal=journal, budget=budget, observer=log)
    return log


def points(op: str = "softmax", seeds: int = 1, **options: object) -> list[Point]:
    return [
        Point(op=op, options=registry.load(op).resolve(options), data="digits", epochs=1, seed=seed, size=TINY) for seed in range(seeds)
    ]


def test_only_what_is_missing_is_trained(journal: Journal, split: data.Split) -> None:
    first = run(points(seeds=1), split, journal)
    more = run(points(seeds=3), split, journal)
    assert (first.trained_epochs, more.trained_epochs) == (1, 2)
    assert more.records[0] == first.records[0]
    assert [record["seed"] for record in more.records] == [0, 1, 2]
    assert journal.records == more.records


def test_record_names_its_environment_and_what_is_absent(journal: Journal, split: data.Split, own_operators: Path) -> None:
    (record,) = run(points(f"{own_operators}:Plain"), split, journal).records
    assert record["status"] == "ok"
    assert record["flops"] is None
    assert record["absent"] == {"flops": "the operator states no cost"}
    assert set(read_environments(journal.run)) == {record["environment"]}


def test_a_training_that_another_seed_shows_not_to_fit_is_not_begun(
    journal: Journal, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(points(seeds=1), split, journal)
    journal.records[0]["seconds"] = 1e6
    log = run(points(seeds=2), split, journal, budget=1e5)
    assert log.trained_epochs == 0
    assert log.records[1]["status"] == "skipped"
    assert log.records[1]["reason"].startswith("budget: another seed took 1000000.0 s")
    assert set(log.records[1]["absent"]) == set(engine.FIGURES) - {"flops"}
    assert run(points(seeds=2), split, journal).trained_epochs == 1  # a larger budget: it is not settled


def test_what_an_operator_refuses_is_unsupported(journal: Journal, split: data.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = replace(registry.load("softmax"), refuses=lambda workload, **options: f"no grid of {workload.grid}")
    monkeypatch.setattr(registry, "load", lambda name: refusing)
    log = run(points(), split, journal)
    assert log.trained_epochs == 0
    assert (log.records[0]["status"], log.records[0]["reason"]) == ("unsupported", "no grid of 8 x 8")
