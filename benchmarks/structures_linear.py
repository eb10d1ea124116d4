"""How much of the generated tasks is solved without a look at two marks together: by a sum over single marks, each weighed by its place.

    python benchmarks/structures_linear.py

Fits scikit-learn's LogisticRegression to the pixels of the training images, each with a weight for each class, and prints its accuracy
on the test images of the same size beside chance.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

from sklearn.linear_model import LogisticRegression

from lisabench.train import structures

STEPS = 1000


def accuracies() -> Iterator[tuple[str, float, float]]:
    """Each task and control, with its test accuracy and chance."""
    for name in structures.names():
        split, classes = structures.read(name), structures.find(name, patch=None).classes
        train, test = ((part.images.flatten(1).numpy(), part.labels.numpy()) for part in (split.train, split.test))
        yield name, float(LogisticRegression(max_iter=STEPS).fit(*train).score(*test)), 1 / classes


def main() -> None:
    print("data                          test accuracy   chance")
    for name, accuracy, chance in accuracies():
        print(f"{name:<30}{accuracy:>12.1%}{chance:>10.1%}", flush=True)


if __name__ == "__main__":
    main()
