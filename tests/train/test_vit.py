"""The small ViT: how it cuts images, what it holds, and that any operator stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lisabench import registry
from lisabench.train.vit import MICRO, SIZES, Size, ViT, branch_shares, operator_flops, other_flops, parameter_count
from lisabench.workload import Grid

TINY = Size(dim=8, depth=2, heads=2, mlp_ratio=2)
OBLONG = Grid(3, 5)


def model(name: str, *, size: Size = TINY, grid: Grid = OBLONG, patch: int = 2, channels: int = 3, **settings: Any) -> ViT:
    torch.manual_seed(0)
    operator = registry.load(name)
    told = {"size": size, "grid": grid, "patch": patch, "channels": channels, "positions": 0.3, "classes": 7}
    return ViT(operator, operator.resolve({}), **(told | settings))


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
    vit = model("softmax", size=MICRO, grid=Grid(8, 8), patch=1, channels=1)
    block = 2 * 2 * 48 + 4 * (48 * 48 + 48) + 48 * 96 + 96 + 96 * 48 + 48
    assert parameter_count(vit) == 2 * 48 + 64 * 48 + 3 * block + 2 * 48 + 48 * 7 + 7
    projections, products = 4 * 2 * 64 * 48 * 48, 2 * 2 * 64 * 64 * 48
    assert operator_flops(vit) == 3 * (projections + products)
    assert other_flops(vit) == 64 * 2 * 48 + 3 * 2 * (2 * 64 * 48 * 96) + 2 * 48 * 7


@pytest.mark.parametrize(("name", "millions"), [("tiny", 5.7), ("small", 22.0)])
def test_sizes_are_those_of_deit(name: str, millions: float) -> None:
    """Table 1 of the paper counts 5 and 22 million parameters, its code 5.7 and 22.1 with a class token and 1000 classes."""
    with torch.device("meta"):
        vit = model("softmax", size=SIZES[name], grid=Grid(14, 14), patch=16, classes=1000)
    assert parameter_count(vit) / 1e6 == pytest.approx(millions, abs=0.05)


def test_flops_of_an_operator_that_states_no_cost(own_operators: Path) -> None:
    assert operator_flops(model(f"{own_operators}:Plain")) is None


def test_width_and_positions_can_be_chosen() -> None:
    whole, narrow, without = model("softmax"), model("softmax", mlp_hidden=3), model("softmax", positions=None)
    assert parameter_count(whole) - parameter_count(narrow) == TINY.depth * (16 - 3) * (2 * 8 + 1)
    assert parameter_count(whole) - parameter_count(without) == 15 * 8
    images = torch.randn(1, 3, 6, 10)
    torch.testing.assert_close(without(images), without(images.unflatten(2, (3, 2)).flip(2).flatten(2, 3)))  # rows of patches swapped


def test_stochastic_depth_leaves_branches_out() -> None:
    vit, images = model("softmax"), torch.randn(3, 3, 6, 10)
    shares = torch.ones(TINY.depth, 2, 3)
    torch.testing.assert_close(vit(images, shares), vit(images))
    shares[:, :, 1] = 0
    left_out = vit(images, shares)
    torch.testing.assert_close(left_out[[0, 2]], vit(images)[[0, 2]])
    torch.testing.assert_close(left_out[1], vit.head(vit.norm(vit.tokens(images)[1]).mean(0)))


def test_branches_are_left_out_at_a_rate_that_grows_with_depth() -> None:
    size = Size(dim=8, depth=5, heads=2, mlp_ratio=1)
    shares = branch_shares(size, 0.4, 20_000, torch.Generator().manual_seed(0))
    assert shares.shape == (5, 2, 20_000)
    for depth, rate in enumerate((0.0, 0.1, 0.2, 0.3, 0.4)):
        assert (shares[depth] == 0).double().mean().item() == pytest.approx(rate, abs=0.01)
        assert shares[depth].mean().item() == pytest.approx(1, abs=0.02)
    assert branch_shares(TINY, 0.0, 4, torch.Generator()).eq(1).all()


@pytest.mark.parametrize("name", registry.built_in())
def test_a_wider_view_takes_what_was_trained_along(name: str) -> None:
    vit = model(name, grid=Grid(4, 6), patch=1).eval()
    images = torch.randn(2, 3, 4, 6)
    before = vit(images)
    if name in ("agent", "linformer", "window"):  # the last on grids smaller than its window
        with pytest.raises(ValueError, match=f"the parameters of {name} are those of a 4 x 6 grid"):
            vit.at_grid(Grid(6, 8))
        return
    torch.testing.assert_close(vit.at_grid(Grid(4, 6))(images), before, rtol=1e-4, atol=1e-5)
    assert vit.at_grid(Grid(6, 8)).eval()(torch.randn(2, 3, 6, 8)).isfinite().all()
    torch.testing.assert_close(vit(images), before)  # the copy shares nothing


def test_an_operator_that_changes_the_shape_is_told(own_operators: Path) -> None:
    with pytest.raises(ValueError, match=r"gave shape \(1, 15, 3\); valid: that of its input, \(1, 15, 8\)"):
        model(f"{own_operators}:Narrow")(torch.randn(1, 3, 6, 10))


def test_positions_start_with_the_deviation_that_is_asked_for() -> None:
    for deviation in (0.02, 1.5):
        positions = model("identity", grid=Grid(20, 20), positions=deviation).positions
        assert positions is not None
        assert float(positions.detach().std() / deviation) == pytest.approx(1, abs=0.05)
