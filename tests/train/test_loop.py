"""One training: repeatable, honest about its end, and able to learn."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from lisabench import registry
from lisabench.train import data, loop
from lisabench.train.loop import Epoch, Outcome, Point, Recipe, train
from lisabench.train.vit import Size

TINY = Size(dim=8, depth=1, heads=2, mlp_ratio=1)


def point(op: str = "softmax", **fields: Any) -> Point:
    return Point(op=op, options=registry.load(op).resolve({}), **{"data": "digits", "epochs": 2, "seed": 0, "size": TINY} | fields)


def outcome(point: Point, split: data.Split, **settings: Any) -> tuple[Outcome, list[Epoch]]:
    """The value of the training, and what it yielded on the way."""
    training, seen = train(point, split, **settings), []
    while True:
        try:
            seen.append(next(training))
        except StopIteration as end:
            return end.value, seen


@pytest.fixture(scope="module")
def digits() -> data.Split:
    return data.find("digits").read()


@pytest.fixture(scope="module")
def few(digits: data.Split) -> data.Split:
    return data.Split(
        train_images=digits.train_images[:100],
        train_labels=digits.train_labels[:100],
        test_images=digits.test_images[:300],
        test_labels=digits.test_labels[:300],
    )


def test_every_field_makes_another_point() -> None:
    changes: dict[str, Any] = {
        "op": "lisa",
        "options": {"key_dim": 4},
        "data": "others",
        "epochs": 3,
        "seed": 1,
        "digest": "abc",
        "size": replace(TINY, depth=2),
        "recipe": Recipe(learning_rate=1e-4),
    }
    keys = [point().key, *(replace(point(), **{name: value}).key for name, value in changes.items())]
    assert len(set(keys)) == 9
    assert point().key == keys[0]


@pytest.mark.parametrize("op", ["softmax", "lisa", "performer", "afno"])
def test_same_seed_same_result(op: str, few: data.Split) -> None:
    first, again, other = (outcome(point(op, seed=seed), few)[0] for seed in (5, 5, 6))
    assert first.status == "ok"
    assert (first.curve, first.top1, first.loss) == (again.curve, again.top1, again.loss)
    assert first.curve != other.curve


def test_outcome_is_that_of_the_last_epoch(few: data.Split) -> None:
    found, seen = outcome(point(epochs=3), few)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert found.curve == tuple(seen)
    assert (found.top1, found.loss) == (seen[-1].top1, seen[-1].loss)
    assert found.seconds is not None
    assert found.throughput_images_per_s is not None
    assert found.throughput_images_per_s >= 300 / found.seconds


def test_lisa_learns_the_digits(digits: data.Split) -> None:
    """Chance is 0.1."""
    found, _ = outcome(Point(op="lisa", options=registry.load("lisa").resolve({}), data="digits", epochs=2, seed=0), digits)
    assert found.top1 is not None
    assert found.top1 > 0.8


def test_a_loss_that_is_not_finite_ends_the_training(few: data.Split) -> None:
    found, seen = outcome(point(recipe=Recipe(learning_rate=math.inf)), few)
    assert (found.status, found.reason) == ("error", "diverged at epoch 1: loss is not finite")
    assert seen == []
    assert found.top1 is None
    assert found.loss is None
    assert found.curve == ()


def test_a_deadline_that_is_past(few: data.Split) -> None:
    found, seen = outcome(point(), few, deadline=-1.0)
    assert found.status == "skipped"
    assert found.reason is not None
    assert found.reason.startswith("budget: cut off within epoch 1 of 2")
    assert seen == []


def test_a_deadline_that_will_not_be_kept_ends_early(few: data.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))  # an epoch reads it some ten times
    found, seen = outcome(point(epochs=100), few, deadline=200.0)
    assert found.status == "skipped"
    assert found.reason == "budget: ended after epoch 1 of 100, the others do not fit; a larger --budget"
    assert len(seen) == 1
    assert next(clock) < 50


def test_what_an_operator_raises_is_an_outcome(few: data.Split, own_operators: Any) -> None:
    found, _ = outcome(point(f"{own_operators}:Raises"), few)
    assert (found.status, found.reason) == ("error", "RuntimeError: no such luck")


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = list(loop._rates(Recipe(learning_rate=1.0, warmup=0.1), 100))
    assert len(rates) == 100
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert list(loop._rates(Recipe(learning_rate=1.0), 1)) == [1.0]
