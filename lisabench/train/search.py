"""The small search over learning rate and weight decay that every operator of a comparison gets alike.

Trials are trained without a fifth of the training images and judged by that fifth; the test images are not looked at. The first trial is
the recipe as it stands, the others are spread evenly over both ranges, on a logarithmic scale, the same ones for every operator.

Source: J. H. Halton, On the efficiency of certain quasi-random sequences, 1960 (the spread); Bergstra and Bengio, Random Search for
Hyper-Parameter Optimization, JMLR 2012 (why no grid).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lisabench.journal import Record
from lisabench.train.point import Recipe

LEARNING_RATES = (5e-4, 1e-2)
WEIGHT_DECAYS = (5e-3, 0.5)


def trial_recipes(recipe: Recipe, trials: int) -> list[Recipe]:
    """So many recipes that differ in learning rate and weight decay; more trials begin with the same ones."""
    from scipy.stats import qmc

    places = qmc.Halton(2, scramble=False).random(trials)[1:] if trials > 1 else []  # the first place is the corner
    return [
        recipe,
        *(
            replace(recipe, learning_rate=_between(LEARNING_RATES, float(rate)), weight_decay=_between(WEIGHT_DECAYS, float(decay)))
            for rate, decay in places
        ),
    ]


def best_recipe(recipe: Recipe, records: Iterable[Record]) -> Recipe:
    """`recipe` with learning rate and weight decay of the trial that classed most of the held-out images right; the first of equals.

    Where every trial failed, the recipe as it stands: its training then shows how.
    """
    done = [record for record in records if record["status"] == "ok"]
    if not done:
        return recipe
    best: dict[str, Any] = max(done, key=lambda record: record["top1"])["recipe"]
    return replace(recipe, learning_rate=best["learning_rate"], weight_decay=best["weight_decay"])


def _between(limits: tuple[float, float], place: float) -> float:
    """The number at this share of the way, by factors; two digits, so that tables can state it."""
    low, high = limits
    return float(f"{low * (high / low) ** place:.2g}")
