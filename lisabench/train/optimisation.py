"""How weights are changed: the learning rate of each step, and which weights decay."""

from __future__ import annotations

import math
from typing import Any

from lisabench.train.point import Recipe
from lisabench.train.vit import ViT


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step, the first being 0."""
    warmup = max(1, round(recipe.warmup * steps))
    rising = (step + 1) / warmup
    falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
    return recipe.learning_rate * min(rising, falling)


def parameter_groups(model: ViT, weight_decay: float) -> list[dict[str, Any]]:
    """Weights and tables decay; biases, norms and positions do not."""
    decaying = [p for p in model.parameters() if p.ndim > 1 and p is not model.positions]
    others = [p for p in model.parameters() if p.ndim <= 1 or p is model.positions]
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
