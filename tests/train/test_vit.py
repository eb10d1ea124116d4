"""The small ViT: how it cuts images, what it holds, and that any operator stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lisabench import registry
from lisabench.train.vit import MICRO, Size, ViT, operator_flops, parameter_count
from lisabench.workload import Grid

TINY = Size(dim=8, depth=2, heads=2, mlp_ratio=2)
OBLONG = Grid(3, 5)


def model(name: str, *, size: Size = TINY, grid: Grid = OBLONG, patch: int = 2, channels: int = 3, **options: Any) -> ViT:
    torch.manual_seed(0)
    operator = registry.load(name)
    return ViT(operator, operator.resolve(options), size=size, grid=grid, patch=patch, channels=channels, classes=7)


def test_patches_are_cut_row_by_row() -> None:
    images = torch.arange(2 * 3 * 6 * 10, dtype=torch.float32).reshape(2, 3, 6, 10)
    patches = model("softmax").patches(images)
    assert patches.shape == (2, 15, 12)
    for token in range(15):
        y, x = 2 * (token // 5), 2 * (token % 5)
        torch.testing.assert_close(patches[:, token], images[:, :, y : y + 2, x : x + 2].flatten(1), rtol=0, atol=0)


@pytest.mark.parametrize("name", registry.built_in())
def test_any_operator_stands_in_it(name: str) -> None:
    vit = model(name)
    images = torch.randn(4, 3, 6, 10)
    logits = vit(images)
    assert logits.shape == (4, 7)
    torch.testing.assert_close(vit(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    without = [n for n, p in vit.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("name", registry.built_in())
def test_order_of_tokens_matters(name: str) -> None:
    """Positions are learned: an image turned upside down is another image."""
    vit = model(name)
    images = torch.randn(1, 3, 6, 10)
    assert not torch.allclose(vit(images), vit(images.flip(2)), atol=1e-6)


def test_what_softmax_holds_and_costs() -> None:
    """Counted by hand: C 48, 64 tokens, MLP of 96, three blocks."""
    grid, operator = Grid(8, 8), registry.load("softmax")
    vit = model("softmax", size=MICRO, grid=grid, patch=1, channels=1)
    block = 2 * 2 * 48 + 4 * (48 * 48 + 48) + 48 * 96 + 96 + 96 * 48 + 48
    assert parameter_count(vit) == 2 * 48 + 64 * 48 + 3 * block + 2 * 48 + 48 * 7 + 7
    projections, products = 4 * 2 * 64 * 48 * 48, 2 * 2 * 64 * 64 * 48
    assert operator_flops(operator, operator.resolve({}), size=MICRO, grid=grid) == 3 * (projections + products)


def test_flops_of_an_operator_that_states_no_cost(own_operators: Path) -> None:
    operator = registry.load(f"{own_operators}:Plain")
    assert operator_flops(operator, operator.resolve({}), size=TINY, grid=OBLONG) is None


def test_an_operator_that_changes_the_shape_is_told(own_operators: Path) -> None:
    with pytest.raises(ValueError, match=r"gave shape \(1, 15, 3\); valid: that of its input, \(1, 15, 8\)"):
        model(f"{own_operators}:Narrow")(torch.randn(1, 3, 6, 10))
