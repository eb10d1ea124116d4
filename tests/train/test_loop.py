"""One training: repeatable, honest about its end, and able to learn."""

from __future__ import annotations

import gc
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training import TINY, digits, few, point, trained

from lisabench.train import loop
from lisabench.train.data import Part, Split
from lisabench.train.point import Recipe
from lisabench.train.vit import MICRO


def test_every_field_makes_another_point() -> None:
    changes: dict[str, Any] = {
        "op": "lisa",
        "options": {"key_dim": 4},
        "data": "others",
        "patch": 1,
        "image_size": 32,
        "epochs": 3,
        "seed": 1,
        "digest": "abc",
        "data_digest": "abc",
        "size": replace(TINY, depth=3),
        "positions": False,
        "mlp_hidden": 7,
        "recipe": Recipe(learning_rate=1e-4),
        "dtype": "bf16",
        "compiled": True,
        "validating": True,
    }
    assert set(changes) == set(point().__dataclass_fields__)
    keys = [point().key, *(replace(point(), **{name: value}).key for name, value in changes.items())]
    assert len(set(keys)) == len(changes) + 1
    assert point().key == keys[0]


@pytest.mark.parametrize("op", ["softmax", "lisa", "performer", "afno"])
def test_same_seed_same_result(op: str) -> None:
    (first, _), (again, _), (other, _) = (trained(point(op, seed=seed)) for seed in (5, 5, 6))
    assert first.model is not None
    assert again.model is not None
    assert first.outcome.status == "ok"
    losses = [[(epoch.loss, epoch.top1) for epoch in one.outcome.curve] for one in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_outcome_is_that_of_the_last_epoch() -> None:
    found, seen = trained(point(epochs=3))
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert found.outcome.curve == tuple(seen)
    assert (found.outcome.top1, found.outcome.loss) == (seen[-1].top1, seen[-1].loss)
    assert found.outcome.seconds is not None
    assert found.outcome.throughput_images_per_s is not None
    assert found.outcome.throughput_images_per_s >= 300 / found.outcome.seconds


def test_lisa_learns_the_digits() -> None:
    """Chance is 0.1."""
    found, _ = trained(point("lisa", size=MICRO), digits())
    assert found.outcome.top1 is not None
    assert found.outcome.top1 > 0.8


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    found, seen = trained(point(recipe=Recipe(learning_rate=math.inf)))
    assert (found.outcome.status, found.outcome.reason) == ("error", "diverged at epoch 1: loss is not finite")
    assert (seen, found.outcome.top1, found.outcome.loss, found.outcome.curve, found.model) == ([], None, None, (), None)


def test_a_deadline_that_is_past() -> None:
    found, seen = trained(point(), deadline=-1.0)
    assert found.outcome.status == "skipped"
    assert found.outcome.reason is not None
    assert found.outcome.reason.startswith("budget: cut off within epoch 1 of 2")
    assert seen == []


def test_a_deadline_that_will_not_be_kept_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))  # an epoch reads it some ten times
    found, seen = trained(point(epochs=100), deadline=200.0)
    assert found.outcome.status == "skipped"
    assert found.outcome.reason == "budget: ended after epoch 1 of 100, the others do not fit; a larger --budget"
    assert len(seen) == 1
    assert next(clock) < 50


def test_with_a_checkpoint_no_second_of_a_budget_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    found, seen = trained(point(epochs=100), deadline=200.0, kept_at=tmp_path / "kept.pt")
    assert found.outcome.status == "skipped"
    assert found.outcome.reason is not None
    assert found.outcome.reason.startswith("budget: cut off within epoch")
    assert len(seen) > 5


def test_weights_that_are_no_numbers_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the last step is from before it."""
    monkeypatch.setattr(loop.Training, "is_finite", lambda training: training.step < 4)
    found, seen = trained(point())
    assert (found.outcome.status, found.outcome.reason) == ("error", "diverged at epoch 2: weights are not finite")
    assert len(seen) == 1


def test_what_an_operator_raises_on_larger_images_costs_it_that_figure_alone(tmp_path: Path) -> None:
    (tmp_path / "square.py").write_text(
        "from torch import nn\n\n\nclass Square(nn.Module):\n    def forward(self, x):\n        assert x.shape[1] == 16, 'no such size'\n        return x\n"
    )
    whole = few()
    larger = Part(images=torch.nn.functional.pad(whole.test.images, (0, 4, 0, 2)), labels=whole.test.labels)
    split = Split(train=whole.train, test=whole.test, elsewhere={"10 x 12": larger})
    found = trained(point(f"{tmp_path / 'square.py'}:Square", epochs=1), split)[0].outcome
    assert (found.status, found.elsewhere, found.absent) == ("ok", None, {"elsewhere": "AssertionError: no such size"})


def test_what_an_operator_raises_is_an_outcome(own_operators: Any) -> None:
    found, _ = trained(point(f"{own_operators}:Raises"))
    assert (found.outcome.status, found.outcome.reason) == ("error", "RuntimeError: no such luck")


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [loop.rate(Recipe(learning_rate=1.0, warmup=0.1), step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert loop.rate(Recipe(learning_rate=1.0), 0, 1) == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": Recipe(drop_path=0.3)},
        {"recipe": Recipe(ema=0.9)},
        {"recipe": Recipe(augment="shift-flip")},
        {"dtype": "bf16"},
        {"positions": False},
        {"mlp_hidden": 3},
        {"validating": True},
    ],
    ids=str,
)
def test_each_part_of_a_recipe_counts(changes: dict[str, Any]) -> None:
    plain, other = trained(point(epochs=1)), trained(point(epochs=1, **changes))
    again = trained(point(epochs=1, **changes))
    curves = [[(epoch.loss, epoch.top1) for epoch in found.outcome.curve] for found, _ in (plain, other, again)]
    assert other[0].outcome.status == "ok"
    if "ema" not in str(changes):  # the averaged weights are tested, not trained
        assert curves[0] != curves[1]
    assert curves[1] == curves[2]


def test_averaged_weights_are_what_is_tested() -> None:
    (plain, _), (averaged, _) = trained(point()), trained(point(recipe=Recipe(ema=0.999)))
    assert plain.model is not None
    assert averaged.model is not None
    assert plain.outcome.loss == averaged.outcome.loss
    assert not torch.equal(plain.model.head.weight, averaged.model.head.weight)


def test_a_search_never_sees_the_test_images() -> None:
    """With test images that no model could take, a search's trial trains as ever."""
    whole = few()
    nothing = Part(images=torch.full_like(whole.test.images, math.nan), labels=torch.full_like(whole.test.labels, -1))
    (found, seen), (_, usual) = trained(point(validating=True), Split(train=whole.train, test=nothing)), trained(point(validating=True))
    assert found.outcome.status == "ok"
    assert [(epoch.loss, epoch.top1) for epoch in seen] == [(epoch.loss, epoch.top1) for epoch in usual]


def test_larger_images_are_tested_where_the_operator_can() -> None:
    whole = few()
    larger = Part(images=torch.nn.functional.pad(whole.test.images, (0, 4, 0, 2)), labels=whole.test.labels)
    split = Split(train=whole.train, test=whole.test, elsewhere={"10 x 12": larger})
    for op in ("softmax", "lisa", "gfnet", "performer"):
        found = trained(point(op, epochs=1), split)[0].outcome.elsewhere
        assert found is not None
        assert 0 <= found["10 x 12"] <= 1
    assert trained(point("linformer", epochs=1), split)[0].outcome.elsewhere is None


@pytest.mark.slow
def test_memory_does_not_grow_over_epochs() -> None:
    training = loop.train(point("lisa", epochs=6, recipe=Recipe(ema=0.9, drop_path=0.1, augment="shift")), few(64))
    standing = []
    for _ in range(6):
        next(training)
        gc.collect()
        standing.append(sum(t.untyped_storage().nbytes() for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter)))
    assert standing[1] == standing[-1]
