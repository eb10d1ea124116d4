"""The search: the same trials for all, judged by held-out training images."""

from __future__ import annotations

from typing import Any

import torch
from training import digits

from lisabench.train.point import Recipe
from lisabench.train.search import LEARNING_RATES, WEIGHT_DECAYS, best_recipe, trial_recipes


def test_the_first_trial_is_the_recipe_and_more_trials_begin_with_the_same() -> None:
    recipe = Recipe(learning_rate=1e-3, batch=7)
    assert trial_recipes(recipe, 1) == [recipe]
    many, fewer = trial_recipes(recipe, 9), trial_recipes(recipe, 4)
    assert many[:4] == fewer
    assert fewer[0] == recipe
    assert len(set(many)) == 9
    for trial in many[1:]:
        assert LEARNING_RATES[0] <= trial.learning_rate <= LEARNING_RATES[1]
        assert WEIGHT_DECAYS[0] <= trial.weight_decay <= WEIGHT_DECAYS[1]
        assert trial.batch == 7
    middle = (LEARNING_RATES[0] * LEARNING_RATES[1]) ** 0.5
    assert 3 <= sum(trial.learning_rate < middle for trial in many[1:]) <= 5  # spread over the range


def record(rate: float, top1: float | None, status: str = "ok") -> dict[str, Any]:
    return {"status": status, "top1": top1, "recipe": {"learning_rate": rate, "weight_decay": rate / 10}}


def test_the_best_trial_decides_the_first_of_equals() -> None:
    trials = [record(1e-3, 0.8), record(2e-3, 0.9), record(3e-3, 0.9), record(4e-3, None, "error")]
    best = best_recipe(Recipe(batch=7), trials)
    assert (best.learning_rate, best.weight_decay, best.batch) == (2e-3, 2e-4, 7)
    assert best_recipe(Recipe(batch=7), trials[3:]) == Recipe(batch=7)


def test_what_is_held_out() -> None:
    """A fifth of each class, of no image that is trained on."""
    labels = digits().train.labels
    kept, held = digits().held_out()
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for label in range(10):
        assert abs(int((labels[held] == label).sum()) - int((labels == label).sum()) / 5) <= 1
    assert torch.equal(held, digits().held_out()[1])
