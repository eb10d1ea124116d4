"""How much of a training step is spent on getting at its images, which are kept in memory: under 5% is the aim.

    python benchmarks/train_data.py

Prints, for each data set with softmax and the default recipe on one CPU thread, the medians of a whole step and of its images alone:
choosing, augmenting and standardising them.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

from dataclasses import replace
from statistics import median
from time import perf_counter

import torch

from lisabench import registry
from lisabench.train import catalogue
from lisabench.train.loop import Training
from lisabench.train.point import Point, Recipe
from lisabench.train.team import Team

STEPS, WARM_UP = 60, 10


def seconds(data: str, augment: str) -> tuple[float, float]:
    """Medians of a step and of the part of it that gets the images, taken in turns."""
    images = catalogue.find(data)
    recipe = replace(Recipe(**images.recipe), augment=augment)
    point = Point(op="softmax", options=registry.load("softmax").resolve({}), data=data, epochs=1, seed=0, recipe=recipe)
    training = Training(point, images.read(), "cpu", Team())
    chosen = torch.randperm(len(training.train))[: recipe.batch]
    steps, batches = [], []
    for _ in range(WARM_UP + STEPS):
        began = perf_counter()
        training.take_step(chosen)
        between = perf_counter()
        training.batch(chosen, slice(None))
        steps.append(between - began)
        batches.append(perf_counter() - between)
    return median(steps[WARM_UP:]), median(batches[WARM_UP:])


def main() -> None:
    torch.set_num_threads(1)
    print("data                 augment        step     images    share")
    for data, augment in [
        ("digits", "none"),
        ("digits", "shift"),
        *((name, "none") for name in catalogue.names() if name.startswith("structures") and "shuffled" not in name),
    ]:
        step, batch = seconds(data, augment)
        print(f"{data:20} {augment:8} {1e3 * step:7.2f} ms {1e3 * batch:7.3f} ms {batch / step:8.1%}")


if __name__ == "__main__":
    main()
