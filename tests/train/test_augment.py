"""What is done to training images: nothing new in them where pixels move, the right part of them where they are sampled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.errors import InputError
from lisabench.train.augment import AREA, KINDS, RATIO, Draws, apply, draw


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(samples: int, height: int = 16, width: int = 24, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (samples, channels, height, width), generator=seeded(1), dtype=torch.uint8)


def changed(images: Tensor, kind: str, seed: int) -> Tensor:
    return apply(images, draw(kind, len(images), images.shape[2], images.shape[3], seeded(seed)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_shape_and_dtype_stay_and_a_seed_gives_the_same_again(kind: str, dtype: torch.dtype) -> None:
    images = coloured(32).to(dtype)
    found = changed(images, kind, 0)
    assert (found.shape, found.dtype) == (images.shape, dtype)
    torch.testing.assert_close(changed(images, kind, 0), found, rtol=0, atol=0)
    assert torch.equal(found, images) == (kind == "none")
    assert torch.equal(changed(images, kind, 2), found) == (kind == "none")


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_batch_is_done_elsewhere_from_the_same_draws(kind: str) -> None:
    images = coloured(10).float()
    draws = draw(kind, 10, 16, 24, seeded())
    parts = [apply(images[part], draws[part]) for part in (slice(0, 3), slice(3, 10), slice(10, 10))]
    torch.testing.assert_close(torch.cat(parts), apply(images, draws), rtol=0, atol=0)


def test_none_draws_nothing() -> None:
    generator = seeded()
    before = generator.get_state()
    draw("none", 8, 8, 8, generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", ["shift", "shift-flip"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (5, 40)])
def test_shifts_are_those_of_a_padded_image_cropped(kind: str, height: int, width: int) -> None:
    images = coloured(200, height, width)
    draws = draw(kind, 200, height, width, seeded())
    down, right = height // 8, width // 8
    padded = F.pad(images.float(), (right, right, down, down), mode="replicate").to(torch.uint8)
    for image, whole, box, flipped in zip(apply(images, draws), padded, draws.boxes.long(), draws.flips, strict=True):
        expected = whole[:, down + box[0] : down + box[0] + height, right + box[1] : right + box[1] + width]
        assert torch.equal(image, expected.flip(2) if flipped else expected)
    shifts = {tuple(corner) for corner in draws.boxes[:, :2].long().tolist()}
    if (height, width) == (8, 8):
        assert shifts == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert ({y for y, _ in shifts}, {x for _, x in shifts}) == (set(range(-down, down + 1)), set(range(-right, right + 1)))
    assert draws.flips.any() == (kind == "shift-flip")


def test_crops_keep_to_their_bounds() -> None:
    draws = draw("crop-flip", 4000, 48, 64, seeded())
    top, left, height, width = draws.boxes.unbind(1)
    assert (draws.boxes >= 0).all()
    assert (top + height <= 48 + 1e-4).all()
    assert (left + width <= 64 + 1e-4).all()
    area, ratio = height * width / (48 * 64), width / height
    assert AREA[0] - 1e-6 <= area.min() < 0.1
    assert 0.9 < area.max() <= AREA[1] + 1e-6
    assert RATIO[0] - 1e-5 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= RATIO[1] + 1e-5
    assert 0.45 < draws.flips.float().mean() < 0.55


def test_an_image_that_no_box_fits_gives_its_middle() -> None:
    """Of 4 x 400 pixels, a share of 8% is wider than allowed: the box is as high as the image and 4/3 as wide."""
    draws = draw("crop-flip", 5, 4, 400, seeded())
    torch.testing.assert_close(draws.boxes, torch.tensor([0, 200 - 8 / 3, 4, 16 / 3]).expand(5, 4))


def test_a_crop_is_the_box_brought_to_size() -> None:
    """Against torch's own resizing of the cut-out part; away from its edge, where that sees no neighbours."""
    images = coloured(1).float()
    box, flips = torch.tensor([[3.0, 4.0, 8.0, 12.0]]), torch.tensor([False])
    cut = F.interpolate(images[:, :, 3:11, 4:16], size=(16, 24), mode="bilinear", align_corners=False)
    found = apply(images, Draws(kind="crop-flip", boxes=box, flips=flips, whole=False))
    torch.testing.assert_close(found[:, :, 1:-1, 1:-1], cut[:, :, 1:-1, 1:-1], rtol=0, atol=1e-3)
    mirrored = apply(images, Draws(kind="crop-flip", boxes=box, flips=~flips, whole=False))
    torch.testing.assert_close(mirrored, found.flip(3), rtol=0, atol=1e-3)


def test_the_whole_image_as_crop_is_the_image() -> None:
    images = coloured(2)
    draws = Draws(kind="crop-flip", boxes=torch.tensor([[0.0, 0.0, 16.0, 24.0]] * 2), flips=torch.tensor([False, True]), whole=False)
    assert torch.equal(apply(images, draws), torch.stack([images[0], images[1].flip(2)]))


def test_unknown_kind() -> None:
    with pytest.raises(InputError, match=r"unknown --augment 'flip'.*shift-flip"):
        draw("flip", 1, 8, 8, seeded())
