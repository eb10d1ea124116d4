"""Swin's windows: which tokens see each other, and that what fills a window weighs nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid
from lisabench.operators._relative_position import pairwise
from lisabench.operators.window import Window


def tensors(grid: Grid) -> Tensor:
    """Query, key and value of two heads with four channels."""
    return torch.randn(3, 2, 2, grid.tokens, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def seen(grid: Grid, *, window: int, shift: bool = False) -> Tensor:
    """(N, N): true where the output of token i depends on the value of token j."""
    module = Window(1, 1, grid, window=window, shift=shift).double()
    ones = torch.ones(1, 1, grid.tokens, 1, dtype=torch.float64)
    weights: Tensor = torch.func.jacrev(lambda value: module.mix(ones, ones, value).flatten())(ones)
    return weights.reshape(grid.tokens, grid.tokens) > 0


@pytest.mark.parametrize("window", [5, 64])
def test_a_window_as_large_as_the_grid_is_softmax_with_biases(window: int) -> None:
    """It is cut to the grid, and does not shift."""
    grid = Grid(4, 5)
    module = Window(8, 2, grid, window=window, shift=True).double()
    assert module.table.shape == (2, 7, 9)
    query, key, value = tensors(grid)
    want = F.scaled_dot_product_attention(query, key, value, attn_mask=pairwise(module.table, grid))
    torch.testing.assert_close(module.mix(query, key, value), want)


def test_windows_are_cut_at_multiples_and_shifted_ones_half_a_window_on() -> None:
    """Fig. 4 of the paper along one axis: the roll makes no neighbours of the two ends."""
    line = Grid(1, 8)
    assert seen(line, window=4).int().tolist() == torch.block_diag(*[torch.ones(4, 4)] * 2).int().tolist()
    shifted = torch.block_diag(torch.ones(2, 2), torch.ones(4, 4), torch.ones(2, 2))
    assert seen(line, window=4, shift=True).int().tolist() == shifted.int().tolist()


@pytest.mark.parametrize("shift", [False, True])
def test_a_grid_that_windows_do_not_divide_gives_what_its_windows_give_alone(shift: bool) -> None:
    """The published code fills the last windows with zeros before the projections, and these keys take part."""
    grid, window = Grid(5, 7), 3
    module = Window(8, 2, grid, window=window, shift=shift).double()
    query, key, value = tensors(grid)
    got = module.mix(query, key, value).unflatten(2, grid)
    bias = pairwise(module.table, Grid(window, window)).unflatten(-1, (window, window)).unflatten(-3, (window, window))
    edges = [sorted({0, *range((1 if shift else 0), side, window), side}) for side in grid]
    for top, bottom in zip(edges[0][:-1], edges[0][1:], strict=True):
        for left, right in zip(edges[1][:-1], edges[1][1:], strict=True):
            q, k, v = (x.unflatten(2, grid)[:, :, top:bottom, left:right].flatten(2, 3) for x in (query, key, value))
            rows, columns = slice(bottom - top), slice(right - left)
            within = bias[:, rows, columns, rows, columns].flatten(-2).flatten(1, 2)
            want = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(4) + within, dim=-1) @ v
            torch.testing.assert_close(got[:, :, top:bottom, left:right].flatten(2, 3), want)


def test_what_fills_a_window_weighs_nothing() -> None:
    """Constant values come out as they went in: weights over the tokens that exist add up to 1."""
    for shift in (False, True):
        query, key, value = tensors(Grid(5, 3))
        out = Window(8, 2, Grid(5, 3), window=4, shift=shift).double().mix(query, key, torch.ones_like(value))
        torch.testing.assert_close(out, torch.ones_like(out))


def test_a_window_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="window got 0; valid: 1 or more"):
        Window(8, 2, Grid(4, 4), window=0)
