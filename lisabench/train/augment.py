"""Changes training images at random: shifts, mirror images, parts of an image brought to its size.

What is drawn is apart from what is done with it: `draw` gives numbers for a whole batch from a generator of the CPU, and `apply` does a
part of them to a part of the batch, on any device, so that two processes that share a batch see what one would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.errors import unknown

KINDS = ("none", "shift", "shift-flip", "crop-flip")
SHIFT = 8  # a shift is up to 1/8 of the side: 4 pixels of 32, as is usual for CIFAR
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10  # as in torchvision's RandomResizedCrop


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is done to each image. A slice of it is that of the same images of the batch.

    `boxes` (B, 4): top, left, height and width, in pixels, of what becomes the image; it may reach over the edge. `flips` (B,): whether
    left and right are swapped then. `whole`: the boxes are as large as the image and lie on whole pixels.
    """

    kind: str
    boxes: Tensor
    flips: Tensor
    whole: bool

    def __len__(self) -> int:
        return len(self.flips)

    def __getitem__(self, part: slice) -> Draws:
        return Draws(kind=self.kind, boxes=self.boxes[part], flips=self.flips[part], whole=self.whole)


def draw(kind: str, samples: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Draws for that many images of that size, in their order, from a generator of the CPU; "none" draws nothing.

    Raises:
        InputError: the kind is none of `KINDS`.
    """
    if kind not in KINDS:
        raise unknown("--augment", kind, KINDS)
    boxes, flips = torch.tensor([0.0, 0.0, height, width]).repeat(samples, 1), torch.zeros(samples, dtype=torch.bool)
    if kind == "none":
        return Draws(kind=kind, boxes=boxes, flips=flips, whole=True)
    boxes = _BOXES[kind](samples, height, width, generator)
    if kind.endswith("-flip"):
        flips = torch.rand(samples, generator=generator) < 0.5
    return Draws(kind=kind, boxes=boxes, flips=flips, whole=kind != "crop-flip")


def apply(images: Tensor, draws: Draws) -> Tensor:
    """The images (B, C, H, W), of any dtype and device, as the draws (of B) have them; shape, dtype and device stay.

    Beyond an edge the edge's pixels are repeated: zeros would be black in uint8 images and grey in standardised ones. Shifts and flips
    move pixels and change none; of crops each pixel is a bilinear mean of four.
    """
    if draws.kind == "none":
        return images
    boxes, flips = draws.boxes.to(images.device), draws.flips.to(images.device)
    return _moved(images, boxes, flips) if draws.whole else _sampled(images, boxes, flips)


def _shifts(samples: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes (B, 4) as large as the image, off by up to 1/8 of each side, all whole shifts alike in likelihood.

    Source: He et al., CVPR 2016, sec. 4.2, where the image is padded by 4 of 32 pixels with zeros and cropped.
    """
    most = torch.tensor([height // SHIFT, width // SHIFT])
    corners = (torch.rand(samples, 2, generator=generator, dtype=torch.float64) * (2 * most + 1)).floor() - most
    return torch.cat([corners.float(), torch.tensor([height, width], dtype=torch.float32).expand(samples, 2)], dim=1)


def _crops(samples: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes (B, 4) of a random share of the image and a random ratio of width to height, at a random place within it.

    An image takes the first of its ten boxes that fits into it, or else the largest one in its middle whose ratio is allowed.

    Source: Szegedy et al., CVPR 2015, sec. 6; torchvision's RandomResizedCrop, which rounds boxes to whole pixels.
    """
    numbers = torch.rand(samples, 2 * TRIES + 2, generator=generator)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * numbers[:, :TRIES])
    low, high = torch.tensor(RATIO).log()
    ratio = (low + (high - low) * numbers[:, TRIES : 2 * TRIES]).exp()
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=-1)  # (B, tries, 2)
    whole = torch.tensor([height, width], dtype=torch.float32)
    fits = (sides <= whole).all(dim=-1)
    chosen = sides[torch.arange(samples), fits.int().argmax(dim=1)]  # (B, 2)
    largest = torch.tensor([min(height, width / RATIO[0]), min(width, height * RATIO[1])])
    some = fits.any(dim=1, keepdim=True)
    chosen = torch.where(some, chosen, largest)
    places = torch.where(some, numbers[:, -2:], 0.5)
    return torch.cat([places * (whole - chosen), chosen], dim=1)


_BOXES: dict[str, Callable[[int, int, int, torch.Generator], Tensor]] = {"shift": _shifts, "shift-flip": _shifts, "crop-flip": _crops}


def _moved(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) + boxes[:, :1].long()).clamp(0, height - 1)  # (B, H)
    x = (torch.arange(width, device=images.device) + boxes[:, 1:2].long()).clamp(0, width - 1)
    x = torch.where(flips[:, None], x.flip(1), x)
    place = (y[:, :, None] * width + x[:, None, :]).flatten(1)  # (B, H W)
    return images.flatten(2).gather(2, place[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


def _sampled(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    size = images.shape[2:]
    taken = images if images.is_floating_point() else images.float()
    axes = []
    for axis, length in enumerate(size):
        centres = (torch.arange(length, device=images.device) + 0.5) / length
        if axis == 1:
            centres = torch.where(flips[:, None], 1 - centres, centres)
        # grid_sample counts from -1 to 1, from one outer edge to the other.
        axes.append(2 * (boxes[:, axis, None] + centres * boxes[:, axis + 2, None]) / length - 1)
    y, x = (axis.to(taken.dtype) for axis in axes)  # (B, H), (B, W)
    grid = torch.stack([x[:, None, :].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=-1)
    found = F.grid_sample(taken, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found if images.is_floating_point() else found.round().to(images.dtype)
