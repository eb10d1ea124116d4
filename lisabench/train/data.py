"""The image sets that models are trained on, by name: small ones that need no network, and a user's own images.

A set's shape is known before all of its images are read. What is read is kept in memory as tensors, so that a step waits for no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lisabench.workload import Grid

HELD_OUT_EVERY, HELD_OUT_SEED = 5, 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images (B, channels, height, width), float32 as the model takes them or uint8, and their classes (B,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Split:
    """What is trained on and what is tested on. `elsewhere`: further test parts, whose images are larger, by their size ("16 x 16").

    `mean` and `deviation` of each channel, of brightness from 0 to 1, are those of the training part: uint8 images are standardised by
    them when they are used. Images in float32 are taken as they are.
    """

    train: Part
    test: Part
    elsewhere: Mapping[str, Part] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def standardised(self, images: Tensor) -> Tensor:
        """What a model is given of these images."""
        if images.is_floating_point():
            return images
        mean, deviation = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return (images.float() / 255 - mean) / deviation

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Places of the training images without a fifth of each class, and of that fifth: what a search trains on and decides on."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(HELD_OUT_SEED))
        order = order[torch.argsort(self.train.labels[order], stable=True)]  # class by class, at random within a class
        held = torch.zeros(len(order), dtype=torch.bool)
        held[order[::HELD_OUT_EVERY]] = True
        return (~held).nonzero().flatten(), held.nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An image set as a model sees it, `patch` pixels square a token; `read` gives the same split each time.

    `epochs` and `recipe`, fields of a `Recipe`: what a training takes where the user says nothing. `digest`: a hash by which a change
    of a user's own images is seen; None for a set that is a part of lisabench.
    """

    name: str
    height: int
    width: int
    channels: int
    classes: int
    patch: int
    epochs: int
    read: Callable[[], Split]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None

    @property
    def grid(self) -> Grid:
        return self.grid_of(self.height, self.width)

    def grid_of(self, height: int, width: int) -> Grid:
        """The tokens of images of this size."""
        return Grid(height // self.patch, width // self.patch)
