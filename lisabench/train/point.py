"""What is trained, stated whole: an operator in a model, on a data set, by a recipe, from a seed; and what comes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from lisabench import registry
from lisabench.train import catalogue
from lisabench.train.data import DataSet
from lisabench.train.vit import MICRO, Size, ViT


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained: AdamW, a linear warm-up over a share of the steps, then a cosine down to 0.

    `positions_deviation`: of learned positions at the start; one that is much smaller than the patches' embeddings (0.02, as is usual for
    large patches) hides them behind the first norm, and softmax, which knows of no order but by them, learns little for tens of epochs.
    `drop_path`: the largest share of samples for which a block's branch is left out (stochastic depth; it grows from 0 over the
    blocks). `ema`: the decay a step of the averaged weights that are tested, 0 for none. `augment`: see `augment.py`.
    """

    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    drop_path: float = 0.0
    ema: float = 0.0
    augment: str = "none"
    positions_deviation: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training. `digest`: the hash of a user's own operator file; `data_digest`: of a user's own images.

    `mlp_hidden` is the width of the MLPs, None for that of `size`. `validating`: a share of the training images is held out and
    tested on in place of the test images (for a search over the recipe).
    """

    op: str
    options: dict[str, Any]
    data: str
    patch: int | None = None
    image_size: int | None = None
    epochs: int
    seed: int
    digest: str | None = None
    data_digest: str | None = None
    size: Size = MICRO
    positions: bool = True
    mlp_hidden: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    dtype: str = "fp32"
    compiled: bool = False
    validating: bool = False

    @cached_property
    def key(self) -> str:
        """Content hash: equal points have equal keys on every machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()[:16]

    @cached_property
    def images(self) -> DataSet:
        return catalogue.find(self.data, patch=self.patch, image_size=self.image_size)

    def model(self) -> ViT:
        """The model with fresh weights, on torch's default device; they come from torch's global seed."""
        images = self.images
        return ViT(
            registry.load(self.op),
            self.options,
            size=self.size,
            grid=images.grid,
            patch=images.patch,
            channels=images.channels,
            classes=images.classes,
            positions=self.recipe.positions_deviation if self.positions else None,
            mlp_hidden=self.mlp_hidden,
        )


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """How far training is: the mean loss over an epoch's training images, the accuracy on the test images after it, and its speed."""

    epoch: int
    loss: float
    top1: float
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a training: `top1` is that of the last epoch, not of the best, so that nothing is chosen on the test images.

    `loss` is the last epoch's mean training loss (label smoothing in it); `elsewhere` the accuracies on larger images, by their size;
    `seconds` are those of the whole training, evaluations among them; `throughput_images_per_s` is of the training
    steps alone, without the first epoch's where there are more. `absent`: why a figure could not be had.
    """

    status: str
    reason: str | None = None
    parameters: int | None = None
    top1: float | None = None
    loss: float | None = None
    elsewhere: dict[str, float] | None = None
    curve: tuple[Epoch, ...] = ()
    throughput_images_per_s: float | None = None
    seconds: float | None = None
    absent: dict[str, str] = field(default_factory=dict)
