"""What the tests of trainings share: a tiny model, few images, a training run to its end."""

from __future__ import annotations

from functools import cache
from typing import Any

from lisabench import registry
from lisabench.train import catalogue
from lisabench.train.data import Part, Split
from lisabench.train.loop import Trained, Within, train
from lisabench.train.point import Epoch, Point
from lisabench.train.vit import Size

TINY = Size(dim=8, depth=2, heads=2, mlp_ratio=1)


def point(op: str = "softmax", options: dict[str, Any] | None = None, **fields: Any) -> Point:
    resolved = registry.load(op).resolve(options or {})
    return Point(op=op, options=resolved, **{"data": "digits", "patch": 2, "epochs": 2, "seed": 0, "size": TINY} | fields)


@cache
def digits() -> Split:
    return catalogue.find("digits").read()


@cache
def few(images: int = 100) -> Split:
    """Some of the digits, to train on and to test on."""
    whole = digits()
    train, test = (Part(images=part.images[:images], labels=part.labels[:images]) for part in (whole.train, whole.test))
    return Split(train=train, test=test)


def trained(point: Point, split: Split | None = None, **settings: Any) -> tuple[Trained, list[Epoch]]:
    """What came of the training, and the epochs that it yielded on the way."""
    training, seen = train(point, split or few(), **settings), []
    while True:
        try:
            progress = next(training)
            seen += [] if isinstance(progress, Within) else [progress]
        except StopIteration as end:
            return end.value, seen
